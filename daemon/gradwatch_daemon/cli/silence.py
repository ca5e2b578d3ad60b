"""`gradwatch silence`: deliver nothing of some anomalies for a while; list silences, end one."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

from gradwatch_daemon.cli.client import connect, segment
from gradwatch_daemon.cli.failure import EXIT_USAGE, CommandError
from gradwatch_daemon.cli.output import printable

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.client import Client
    from gradwatch_daemon.cli.output import Output

PATH = "/api/v1/silences"
MATCHED = ("run", "kind", "subject")


def run(args: Namespace, output: Output) -> int:
    """Add, list or end.

    Raises:
        CommandError: 2 when an argument of the action is missing, or nothing says what to silence.
    """
    if (args.id is None) != (args.action != "end"):
        raise _usage(f"`gradwatch silence {args.action}` {'needs' if args.id is None else 'takes no'} ID.")
    if args.action == "list":
        _list(connect(os.environ), output)
        return 0
    if args.action == "add":
        item = connect(os.environ).post(PATH, _body(args))
    else:
        item = connect(os.environ).delete(f"{PATH}/{segment(args.id)}")
    if output.as_json:
        output.document(item)
    else:
        output.line(printable(f"{item['id']}: {covered(item)} {_until(item)}; muted {item['muted']} so far."))
    return 0


def _body(args: Namespace) -> dict[str, object]:
    missing = [flag for flag, value in (("--for", args.lifetime), ("--reason", args.reason)) if not value]
    if missing:
        raise _usage(f"`gradwatch silence add` needs {' and '.join(missing)}.")
    matched = {name: getattr(args, name) for name in MATCHED}
    if all(value is None for value in matched.values()) and not args.all:
        raise _usage("Nothing says what to silence: give --run, --kind or --subject, or --all for every anomaly there is.")
    return {**matched, "reason": args.reason, "lifetime_s": args.lifetime, "id": uuid.uuid4().hex[:16]}


def _usage(why: str) -> CommandError:
    return CommandError(why, next_step="See `gradwatch silence --help`.", exit_code=EXIT_USAGE)


def covered(item: dict[str, Any]) -> str:
    """What a silence is about, in words."""
    given = [f"{name} {item[name] or 'none'}" for name in MATCHED if item[name] is not None]
    return ", ".join(given) or "everything"


def _until(item: dict[str, Any]) -> str:
    return {
        "active": f"silenced until {item['expires_at']}",
        "expired": f"was silenced until {item['expires_at']}",
        "ended": "is no longer silenced",
    }[item["state"]]


def _list(client: Client, output: Output) -> None:
    listed = client.listed(PATH)
    if output.as_json:
        output.document(listed)
        return
    output.table(
        ("id", "state", "silenced", "expires", "by", "muted", "reason"),
        [
            (item["id"], item["state"], covered(item), item["expires_at"], item["author"], item["muted"], item["reason"])
            for item in listed["items"]
        ],
        "No silences. Make one: gradwatch silence add --run RUN --kind KIND --for 4h --reason TEXT",
    )
