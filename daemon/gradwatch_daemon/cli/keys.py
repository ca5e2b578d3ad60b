"""`gradwatch keys`: who may send from other machines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gradwatch_daemon.cli.client import connect, segment
from gradwatch_daemon.cli.failure import EXIT_USAGE, CommandError

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """Make a key and print the one line its trainer needs, list the keys, or revoke one.

    Raises:
        CommandError: 2 when NAME is missing or has no place; 5 where ingest does not leave this machine.
    """
    if (args.name is None) != (args.action == "list"):
        raise CommandError(
            f"`gradwatch keys {args.action}` {'needs' if args.name is None else 'takes no'} NAME.",
            next_step="See `gradwatch keys --help`.",
            exit_code=EXIT_USAGE,
        )
    client = connect(os.environ)
    if args.action == "list":
        answer = client.get("/api/v1/keys")
    elif args.action == "add":
        answer = client.post("/api/v1/keys", {"name": args.name})
    else:
        answer = client.delete(f"/api/v1/keys/{segment(args.name)}")
    if output.as_json:
        output.document(answer)
    elif args.action == "list":
        rows = [(item["name"], item["created_at"], item["public"]) for item in answer["items"]]
        output.table(("name", "created", "public key"), rows, "No keys yet. Make one: gradwatch keys add MACHINE")
    elif args.action == "add":
        output.line(f"GRADWATCH_ENDPOINT='{answer['endpoint']}'")
        output.note(f"Put this line into the environment of the trainers of {answer['name']}. It is not shown again.")
    else:
        output.line(f"Revoked {answer['name']}: nothing of it is taken from now on.")
    return 0
