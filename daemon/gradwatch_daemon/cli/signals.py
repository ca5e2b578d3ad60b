"""`gradwatch signals`: what a run measures, its last values, and why a value is missing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gradwatch_daemon.cli.client import connect, segment
from gradwatch_daemon.cli.output import lost_words, number

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output

HEADS = ("SIGNAL", "SUBJECT", "UNIT", "LAST", "UPDATE", "MEASURED", "NON-FINITE", "NOW")


def run(args: Namespace, output: Output) -> int:
    """List the signals of a run in the order of the registry."""
    client = connect(os.environ)
    answer = client.listed(f"/api/v1/runs/{segment(args.run)}/signals", attempt=args.attempt, rank=args.rank, limit=None)
    if output.as_json:
        output.document(answer)
    else:
        output.table(HEADS, [_row(item) for item in answer["items"]], f"{args.run} has sent no update yet.")
        if lost := lost_words(answer["coverage"]):
            output.note(lost)
    return 0


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    """`LAST` is the last measured value, `NOW` says whether the newest update has one."""
    missing = item["status"] != "measured"
    return (
        item["signal"],
        item["subject"],
        item["unit"],
        number(item["value_last"], "never measured"),
        item["update_last"],
        item["measured"],
        item["nonfinite"],
        f"– ({item['reason']})" if missing else "measured",
    )
