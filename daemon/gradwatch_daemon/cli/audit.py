"""`gradwatch audit`: who changed what, newest first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gradwatch_daemon.cli.client import connect

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """Print the newest entries of the audit."""
    listed = connect(os.environ).get("/api/v1/audit", limit=args.limit)
    if output.as_json:
        output.document(listed)
        return 0
    output.table(
        ("at", "who", "from", "status", "what"),
        [
            (item["at"], item["who"] or "nobody", item["from"] or "?", str(item["status"]), _what(item))
            for item in listed["items"]
        ],
        "Nothing was changed yet.",
    )
    if unwritten := sum(item["unwritten"] for item in listed["items"]):
        output.note(f"{unwritten} refused requests more came faster than they are written down.")
    return 0


def _what(item: dict[str, str]) -> str:
    return " ".join(part for part in (item["method"], item["path"], item["body"]) if part)
