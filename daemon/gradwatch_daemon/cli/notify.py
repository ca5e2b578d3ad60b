"""`gradwatch notify`: try the channels, list them, and see what people were told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gradwatch_daemon.cli.client import connect
from gradwatch_daemon.cli.failure import EXIT_REFUSED, EXIT_USAGE, CommandError
from gradwatch_daemon.cli.output import printable

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.client import Client
    from gradwatch_daemon.cli.output import Output

TEST_S = 330.0
"""Ten channels that hang, with some room: each may take 30 s."""

NONE = "No channel is configured. Add a table [[notify]] to gradwatch.toml: docs/notifications.md."
STATES = ("delivered", "pending", "failed", "dropped", "muted")


def run(args: Namespace, output: Output) -> int:
    """Test, list or log. The test returns 5 when a channel did not take it, or when there is none.

    Raises:
        CommandError: 2 when NAME has no place.
    """
    if args.name is not None and args.action == "list":
        raise CommandError(
            "`gradwatch notify list` takes no NAME.", next_step="See `gradwatch notify --help`.", exit_code=EXIT_USAGE
        )
    client = connect(os.environ)
    if args.action == "test":
        return _test(client, args.name, output)
    if args.action == "list":
        _list(client, output)
    else:
        _log(client, args.name, args.limit, output)
    return 0


def _test(client: Client, name: str | None, output: Output) -> int:
    answer = client.post("/api/v1/notify/test", {"channel": name}, TEST_S)
    if output.as_json:
        output.document(answer)
    for item in answer["items"] if not output.as_json else ():
        word = "took it" if item["ok"] else "did not take it"
        output.line(printable(f"{item['channel']} ({item['kind']}) {word} after {item['took_ms']:.0f} ms: {item['answer']}"))
    if not answer["items"]:
        output.note(NONE)
    return 0 if answer["items"] and all(item["ok"] for item in answer["items"]) else EXIT_REFUSED


def _list(client: Client, output: Output) -> None:
    listed = client.get("/api/v1/notify")
    if output.as_json:
        output.document(listed)
        return
    output.table(
        ("name", "kind", "address", "from", *STATES),
        [
            (item["name"], item["kind"], item["address"], item["severity"], *(item["deliveries"][state] for state in STATES))
            for item in listed["items"]
        ],
        NONE,
    )


def _log(client: Client, channel: str | None, limit: int, output: Output) -> None:
    answer = client.get("/api/v1/deliveries", channel=channel, limit=limit)
    if output.as_json:
        output.document(answer)
        return
    output.table(
        ("made", "channel", "state", "tries", "event", "about", "answer"),
        [_row(item) for item in answer["items"]],
        "Nobody was told anything yet.",
    )


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    about = f"{item['body']['kind']} in {item['run']}"
    return item["made_at"], item["channel"], item["state"], item["attempts"], item["event"], about, item["answer"]
