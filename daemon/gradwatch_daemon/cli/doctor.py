"""`gradwatch doctor`: look for the usual mistakes, from this shell to the trainer, and say what to do about each."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gradwatch_contracts import __version__
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import nearest
from gradwatch_daemon.cli.ailments import Ailment, check_daemon, check_detectors, check_run, seconds_between
from gradwatch_daemon.cli.client import connect, segment
from gradwatch_daemon.cli.failure import EXIT_FINDINGS, CommandError
from gradwatch_daemon.cli.output import printable
from gradwatch_daemon.cli.surroundings import check_surroundings, is_gone, other_places

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.client import Client
    from gradwatch_daemon.cli.output import Output

RECENT_S = 24 * 3600.0
"""A run that was lost earlier is not what somebody asks about now, unless by name."""


def run(args: Namespace, output: Output) -> int:
    """Look at everything that can be reached; 10 when something is wrong. A daemon that is not there is a finding too."""
    env, uid = os.environ, os.getuid()
    found = list(check_surroundings(env, uid, other_places(env, uid)))
    looked: list[str] = []
    try:
        client = connect(env)
        looked.append(client.address.url)
        found += _ask(client, args.run, looked)
    except (CommandError, GradwatchError) as error:
        failure = CommandError.of(error) if isinstance(error, GradwatchError) else error
        # A connection.json that the client refuses was found above, with more words.
        if failure.code != "config-invalid" or not found:
            found.append(_unreachable(failure))
    if output.as_json:
        output.document({"looked_at": looked, "ailments": [asdict(ailment) for ailment in found]})
    else:
        _say(found, looked, output)
    return EXIT_FINDINGS if any(ailment.grave for ailment in found) else 0


def _unreachable(failure: CommandError) -> Ailment:
    pid = is_gone(os.environ, os.getuid()) if failure.code == "daemon-unreachable" else None
    if pid is not None:
        return Ailment(
            "connection-stale",
            "The daemon that wrote connection.json is gone.",
            f"its pid was {pid}, and nobody answers: {failure.why}",
            "Start one with `gradwatch serve`; trainers find it by themselves.",
        )
    return Ailment(failure.code or "daemon-unreachable", failure.what, failure.why, failure.next_step)


def _ask(client: Client, run: str | None, looked: list[str]) -> list[Ailment]:
    daemon = client.get("/api/v1/daemon")
    found = list(check_daemon(daemon, __version__))
    found += check_detectors(client.listed("/api/v1/detectors", limit=None))
    known = client.listed("/api/v1/runs")["items"]
    for name in _chosen(known, run, daemon["now"]):
        looked.append(name)
        found += check_run(client.get(f"/api/v1/runs/{segment(name)}"), daemon)
    if not known or (run is not None and run not in looked):
        found.append(_never_seen(run, [item["run"] for item in known]))
    return found


def _chosen(known: list[dict[str, Any]], run: str | None, now: str) -> list[str]:
    """The run asked for; else those that somebody trains, and those lost within a day."""
    if run is not None:
        return [item["run"] for item in known if item["run"] == run]
    return [
        item["run"]
        for item in known
        if item["live"]
        or item.get("beside")
        or (item["state"] == "lost" and seconds_between(item["last_seen_at"], now) <= RECENT_S)
    ]


def _never_seen(run: str | None, known: list[str]) -> Ailment:
    hint = nearest(run, known) if run else None
    return Ailment(
        "run-never-seen",
        f"{run or 'No run'} has {'never' if run else 'ever'} connected to this daemon."
        + (f" Did you mean {hint}?" if hint else ""),
        "a trainer that finds no daemon goes on without a word but one warning in its log",
        "Check that it calls watch(), with GRADWATCH_MODE not off, as this user and with the daemon's GRADWATCH_RUNTIME_DIR.",
        run or "",
    )


def _say(found: list[Ailment], looked: list[str], output: Output) -> None:
    for ailment in sorted(found, key=lambda ailment: not ailment.grave):
        mark = output.paint("!", "warning") if ailment.grave else output.paint("i", "info")
        output.line(f"{mark} {printable(ailment.what)}")
        for text in (ailment.why, ailment.next_step):
            if text:
                output.line(f"  {printable(text)}")
    if not any(ailment.grave for ailment in found):
        output.note(f"Found nothing wrong. Looked at {', '.join(looked)}.")
