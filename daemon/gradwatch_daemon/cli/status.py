"""`gradwatch status`: the daemon, and a sentence for each run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gradwatch_daemon.cli.client import Client, connect
from gradwatch_daemon.cli.failure import EXIT_UNREACHABLE, CommandError

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """Print what the daemon says of itself and its runs; 4 when it is not ready."""
    client = connect(os.environ)
    version = client.get("/version")
    trouble = _trouble(client)
    runs = client.listed("/api/v1/runs")
    if output.as_json:
        output.document(
            {"url": client.address.url, "version": version["version"], "ready": not trouble, "trouble": trouble, **runs}
        )
    else:
        output.line(f"gradwatch {version['version']} at {client.address.url}: {trouble or 'ready'}")
        for item in runs["items"]:
            output.line(_line(item, output))
        if not runs["items"]:
            output.note("No run has connected yet.")
    return EXIT_UNREACHABLE if trouble else 0


def _trouble(client: Client) -> str:
    """Why the daemon is not ready, '' when it is."""
    try:
        client.get("/readyz")
    except CommandError as failure:
        if failure.code != "not-ready":
            raise
        return failure.why or failure.what
    return ""


def _line(item: dict[str, Any], output: Output) -> str:
    state = output.paint(f"{item['state']:<8}", item["state"])
    return f"{item['run']:<24}  {state}  {item['sentence']}"
