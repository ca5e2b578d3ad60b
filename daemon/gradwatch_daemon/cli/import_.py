"""`gradwatch import`: a log of a run that nobody watched, or a spool that nobody took, stored like any other run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwatch_daemon.cli.client import local_daemon
from gradwatch_daemon.cli.failure import EXIT_INCONCLUSIVE, EXIT_USAGE, CommandError
from gradwatch_daemon.cli.output import printable
from gradwatch_daemon.cli.replay import data_dir_of, show
from gradwatch_daemon.cli.serve import daemon_extra

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """Read, store, judge, and say all three. 0 when it was stored whole, 11 when it was damaged or held nothing.

    Raises:
        GradwatchError: what cannot be read or stored.
        CommandError: 2 for a `--map` that is none.
    """
    with daemon_extra():
        from gradwatch_daemon.config import load_config
        from gradwatch_daemon.importer import Shelf
        from gradwatch_daemon.offline import import_what
    given = {"config": args.config, "data_dir": args.data_dir, "profile": args.profile}
    config = load_config(given, os.environ, Path.cwd())
    daemon = local_daemon(os.environ, os.getuid())
    shelf = Shelf(data_dir_of(config, daemon), config.profile, config.thresholds, daemon)
    asked = {"updates_total": args.updates_total, "delete": args.delete}
    document = import_what(Path(args.path), args.run or "", mapping(args.map), shelf, **asked)
    spool = "sessions" in document
    if output.as_json:
        output.document(document)
    elif spool:
        _show_spool(document, output)
    else:
        _show(document, output)
    if spool:
        damaged = document["unread"] or any(session["unread_bytes"] for session in document["sessions"])
        return EXIT_INCONCLUSIVE if damaged or not document["sessions"] else 0
    return EXIT_INCONCLUSIVE if document["damage"] or not document["rows"] else 0


def mapping(given: list[str]) -> dict[str, str]:
    """KEY=SIGNAL of the command line.

    Raises:
        CommandError: 2 for one without both.
    """
    found = {}
    for text in given:
        key, equals, signal = text.rpartition("=")
        if not (equals and key and signal):
            raise CommandError(f"--map takes KEY=SIGNAL, got {text!r}.", exit_code=EXIT_USAGE)
        found[key] = signal
    return found


def _show_spool(document: dict[str, Any], output: Output) -> None:
    for session in document["sessions"]:
        output.line(
            f"{session['run']}: {session['records']} records, {session['records_new']} of them new, as attempt"
            f" {session['attempt']} (rank {session['rank']}). It ended: {session['ended']}."
        )
        if session["unread_bytes"]:
            output.note(f"Damaged: {session['unread_bytes']} bytes cannot be read; what was in them is told as lost.")
    for damaged in document["unread"]:
        output.note(
            f"Damaged: {damaged['path']}, {damaged['bytes']} bytes: no segment there begins with a whole HELLO, so nobody knows"
            " which run and how many records are lost. Delete it when you want."
        )
    for folder in document["busy"]:
        output.note(f"Left alone: {folder} belongs to a trainer that lives and sends it itself.")
    if not document["sessions"]:
        output.note("Nothing was stored.")


def _show(document: dict[str, Any], output: Output) -> None:
    attempts = ", ".join(map(str, document["attempts"])) or "none"
    output.line(
        f"{document['run']}: {document['rows']} updates, {document['rows_new']} of them new, as attempt {attempts}."
        f" Written by {document['written_by']}."
    )
    for key in document["keys"]:
        output.line(printable(f"  {key['key']} → {_reading(key)}"))
    for text in document["damage"]:
        output.note(f"Damaged: {text}.")
    for what, count in document["oddities"].items():
        output.note(f"Odd: {count} {what}.")
    if document["skipped"]:
        output.note(f"Not numbers, left out: {', '.join(sorted(document['skipped']))}.")
    for note in document["notes"]:
        output.note(f"Note: {note}.")
    if document["replay"] is not None:
        show(document["replay"], output)


def _reading(key: dict[str, Any]) -> str:
    """`policy.clip_fraction (mean over all minibatches)`, and how many numbers are none."""
    name = f"user [{key['subject']}]" if key["signal"] == "user" else key["signal"]
    why = f" ({key['why']})" if key["why"] else ""
    odd = f"; {key['nonfinite']} NaN or infinite, first at update {key['nonfinite_first']}" if key["nonfinite"] else ""
    return f"{name}{why}{odd}"
