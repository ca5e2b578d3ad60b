"""`gradwatch commands`: what a run was asked to do, and what became of it; or take one back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import CODES
from gradwatch_daemon.cli.client import connect, segment
from gradwatch_daemon.cli.command import fetch, say
from gradwatch_daemon.cli.failure import CommandError
from gradwatch_daemon.cli.output import known

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """List them, newest first, cancel the one that is named, or get its file. Returns 0."""
    client = connect(os.environ)
    path = f"/api/v1/runs/{segment(args.run)}/commands"
    if args.cancel is not None:
        item = client.delete(f"{path}/{segment(args.cancel)}")
        if output.as_json:
            output.document(item)
        else:
            say(item, output)
        return 0
    if args.fetch is not None:
        item = client.get(f"{path}/{segment(args.fetch)}")
        if item["artifact"] is None:
            code = CODES["artifact-not-found"]
            raise CommandError(code.title, why=item["sentence"], next_step=code.hint, exit_code=code.exit, code=code.slug)
        fetch(client, item, args.output, output)
        return 0
    answer = client.get(path, limit=args.limit)
    if output.as_json:
        output.document(answer)
        return 0
    rows = [
        (
            item["id"],
            item["verb"],
            item["state"],
            known(item["update_applied"]),
            item["origin"],
            item["requested_at"],
            item["ended_why"] or item["reason"],
        )
        for item in answer["items"]
    ]
    heads = ("id", "verb", "state", "update", "origin", "requested", "why")
    output.table(heads, rows, f"{args.run} was asked for nothing yet.")
    return 0
