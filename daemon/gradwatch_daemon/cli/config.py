"""`gradwatch config`: the configuration as `gradwatch serve` would read it here, and where each value is from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwatch_daemon.cli.serve import daemon_extra

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """Show it, or only say whether it can be used.

    Raises:
        GradwatchError: `config-invalid`: which key, from where, what was expected, what came.
        CommandError: 2 when the daemon extra is not installed.
    """
    with daemon_extra():
        from gradwatch_daemon.config import load_config
        from gradwatch_daemon.offline import rules_hash_of
    config = load_config({"config": args.config}, os.environ, Path.cwd())
    rules_hash = rules_hash_of(config)
    values: dict[str, Any] = config.model_dump(mode="json")
    thresholds = values.pop("thresholds")
    rows = [(key, value, config.origins[key]) for key, value in values.items()]
    for kind, numbers in thresholds.items():
        for name, value in numbers.items():
            key = f"thresholds.{kind}.{name}"
            rows.append((key, value, config.origins[key]))
    if output.as_json:
        items = [{"key": key, "value": value, "origin": origin} for key, value, origin in rows]
        output.document({"items": items, "rules_hash": rules_hash})
    elif args.action == "show":
        output.table(("KEY", "VALUE", "FROM"), [(key, _shown(value), origin) for key, value, origin in rows], "")
    else:
        output.line(f"It can be used: profile {config.profile}, rules {rules_hash}.")
    return 0


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else str(value)
