"""`gradwatch token`: the owner's bearer token, and tokens for others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.cli.client import connect, segment
from gradwatch_daemon.cli.failure import EXIT_USAGE, CommandError

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.client import Client
    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """Print the owner's token or an address that opens the dashboard, or make, list or revoke a token for somebody else.

    Raises:
        GradwatchError: `unauthenticated` when the daemon is named by GRADWATCH_URL and no token is known for it.
        CommandError: 2 when NAME is missing or has no place.
    """
    if (args.name is None) != (args.action in ("print", "link", "list")):
        raise CommandError(
            f"`gradwatch token {args.action}` {'needs' if args.name is None else 'takes no'} NAME.",
            next_step="See `gradwatch token --help`.",
            exit_code=EXIT_USAGE,
        )
    client = connect(os.environ)
    if args.action == "print":
        _print(client, output)
    elif args.action == "link":
        _link(client, output)
    elif args.action == "add":
        _add(client, output, args)
    elif args.action == "list":
        _list(client, output)
    else:
        gone = client.delete(f"/api/v1/tokens/{segment(args.name)}")
        output.document(gone) if output.as_json else output.line(f"Revoked {gone['name']}: it is refused from now on.")
    return 0


def _print(client: Client, output: Output) -> None:
    address = client.address
    if not address.token:
        raise GradwatchError(
            "unauthenticated",
            where=address.url,
            expected="GRADWATCH_TOKEN",
            got="nothing",
            next_step="Run `gradwatch token` where the daemon runs, and set GRADWATCH_TOKEN here.",
        )
    if output.as_json:
        output.document({"url": address.url, "token": address.token})
    else:
        output.line(address.token)


def _link(client: Client, output: Output) -> None:
    made = client.post("/session/codes", {})
    url = f"{made.get('public_url') or client.address.url}/#code={made['code']}"
    if output.as_json:
        output.document({"url": url, "expires_at": made["expires_at"]})
    else:
        output.line(url)
        output.note("It opens the dashboard once, within 15 minutes, and allows what your token allows.")


def _add(client: Client, output: Output, args: Namespace) -> None:
    made = client.post("/api/v1/tokens", {"name": args.name, "scope": args.scope, "lifetime_s": args.lifetime})
    if output.as_json:
        output.document(made)
        return
    output.line(made["token"])
    until = f"until {made['expires_at']}" if made["expires_at"] else "until it is revoked"
    output.note(f"{made['name']} may {made['scope']} {until}. The token is not shown again.")


def _list(client: Client, output: Output) -> None:
    listed = client.get("/api/v1/tokens")
    if output.as_json:
        output.document(listed)
        return
    output.table(
        ("name", "scope", "created", "expires"),
        [(item["name"], item["scope"], item["created_at"], item["expires_at"] or "never") for item in listed["items"]],
        "No tokens but the owner's. Make one: gradwatch token add NAME --scope read --for 30d",
    )
