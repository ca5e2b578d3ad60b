"""`gradwatch status`: the daemon in two lines, and a line for each live run; or everything known of one run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.control import Severity
from gradwatch_daemon.cli.client import connect
from gradwatch_daemon.cli.failure import EXIT_UNREACHABLE
from gradwatch_daemon.cli.output import known, printable
from gradwatch_daemon.cli.runs import open_line, show

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.client import Client
    from gradwatch_daemon.cli.output import Output

NAMED = 3
"""Anomalies of a run that a line each names, the worst; with the id that `explain` and `ack` take."""

FIRING_READ = 200

ENDED = ("stalled", "lost", "crashed", "finished", "stopped", "imported")


def run(args: Namespace, output: Output) -> int:
    """Print what the daemon says of itself and its runs; 4 when it is not ready."""
    client = connect(os.environ)
    if args.run is not None:
        show(client, args.run, output)
        return 0
    daemon = client.get("/api/v1/daemon")
    runs = client.listed("/api/v1/runs")
    if output.as_json:
        output.document({"url": client.address.url, "daemon": daemon, **runs})
    else:
        _say(client, daemon, runs["items"], args.all, output)
    return 0 if daemon["ready"] else EXIT_UNREACHABLE


def _say(client: Client, daemon: dict[str, Any], items: list[dict[str, Any]], everything: bool, output: Output) -> None:
    trouble = "; ".join(daemon["trouble"]) or "ready"
    output.line(f"gradwatch {daemon['version']} at {client.address.url}: {trouble}")
    output.line(_health(daemon))
    shown = [item for item in items if item["live"] or item.get("beside") or everything]
    firing = _firing(client) if any(item["anomalies_open"] for item in shown) else {}
    for item in shown:
        output.line(_line(item, output))
        worst = sorted(firing.get(item["run"], ()), key=lambda one: -Severity(one["severity"]).rank)
        for one in worst[:NAMED]:
            output.line(f"  {open_line(one, output)}")
        if worst[NAMED:]:
            output.line(f"  and {len(worst) - NAMED} more: gradwatch anomalies {item['run']}")
    if not items:
        output.note("No run has connected yet.")
    elif not everything:
        _say_ended(items, output)


def _firing(client: Client) -> dict[str, list[dict[str, Any]]]:
    """What fires now, newest first, by run; of very many the newest."""
    by_run: dict[str, list[dict[str, Any]]] = {}
    for one in client.get("/api/v1/anomalies", state="firing", limit=FIRING_READ)["items"]:
        by_run.setdefault(one["run"], []).append(one)
    return by_run


def _health(daemon: dict[str, Any]) -> str:
    """What the daemon did and what it refused, since it started."""
    refused = sum(daemon["refused"].values())
    disk = daemon["data_dir"]
    said = [
        f"profile {daemon['profile']}",
        f"since {daemon['started_at']}",
        f"{daemon['rows']} updates in {daemon['commits']} commits",
        f"{disk['free_bytes'] / 1e9:.1f} GB free",
    ]
    if refused:
        said.append(f"{refused} frames refused")
    if daemon["commit_failures"]:
        said.append(f"{daemon['commit_failures']} commits failed")
    return ", ".join(said)


def _say_ended(items: list[dict[str, Any]], output: Output) -> None:
    ended = [item["state"] for item in items if not item["live"]]
    counts = [f"{ended.count(state)} {state}" for state in ENDED if state in ended]
    if ended:
        live = "" if len(ended) < len(items) else "No run is live. "
        output.note(f"{live}Not shown: {', '.join(counts)}; `gradwatch status --all` shows them.")


def _line(item: dict[str, Any], output: Output) -> str:
    state = output.paint(f"{item['state']:<8}", item["state"])
    level = known(item["level"]["effective"])
    return f"{item['run']:<24}  {state}  {level:<7}  {printable(item['sentence'])}"
