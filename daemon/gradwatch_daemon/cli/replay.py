"""`gradwatch replay`: the stored rows of a run through detection again, as a look back and as a gate for scripts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.control import Severity
from gradwatch_daemon.cli.anomalies import at_or_above, lines
from gradwatch_daemon.cli.client import local_daemon
from gradwatch_daemon.cli.failure import EXIT_FINDINGS, EXIT_INCONCLUSIVE, EXIT_USAGE, CommandError
from gradwatch_daemon.cli.output import printable
from gradwatch_daemon.cli.runs import standing
from gradwatch_daemon.cli.serve import daemon_extra

if TYPE_CHECKING:
    from argparse import Namespace

    from gradwatch_contracts.connection import Connection
    from gradwatch_daemon.cli.output import Output
    from gradwatch_daemon.config import Config


def run(args: Namespace, output: Output) -> int:
    """Replay, show, and answer 10, 11 or 0.

    Raises:
        GradwatchError: what cannot be read, is not there, or is no rule.
        CommandError: 2 for a window that is none.
    """
    if args.first is not None and args.last is not None and args.first > args.last:
        raise CommandError(f"--from {args.first} is after --to {args.last}.", exit_code=EXIT_USAGE)
    with daemon_extra():
        from gradwatch_daemon.config import load_config
        from gradwatch_daemon.exporting.bundle import is_bundle
        from gradwatch_daemon.offline import bundled_rules, replay_place
    flags = {
        "config": args.config,
        "data_dir": args.data_dir,
        "profile": args.profile,
        "thresholds": ",".join(args.set) or None,
    }
    config = load_config(flags, os.environ, Path.cwd())
    if is_file(args.what):
        path, name = Path(args.what), args.run or ""
    else:
        path, name = data_dir_of(config, local_daemon(os.environ, os.getuid())), args.what
    profile: str = config.profile
    thresholds = config.thresholds
    if is_bundle(path) and args.config is None:
        # A bundle knows its rules; what is asked for on the command line goes over them.
        given = load_config({"thresholds": flags["thresholds"]}, {"HOME": os.environ.get("HOME", "")}, Path(os.sep))
        profile, thresholds = bundled_rules(path, args.profile or "", given.thresholds)
    document = replay_place(path, name, profile, thresholds, first=args.first, last=args.last, against=args.diff or "")
    if output.as_json:
        output.document(document)
    else:
        show(document, output)
    return gate(document, args.gate, output, allow_blind=args.allow_blind)


def data_dir_of(config: Config, daemon: Connection | None) -> Path:
    """The data directory that was named, else that of the running daemon, else the usual one."""
    if daemon is not None and config.origins["data_dir"] == "default":
        return Path(daemon.token_file).parent
    return Path(config.data_dir)


def is_file(what: str) -> bool:
    """Whether the argument names a place and not a run: it has a path separator, or is a file."""
    return os.sep in what or Path(what).is_file()


def show(document: dict[str, Any], output: Output) -> None:
    """For a person: what was found, what differs, who could not see, and what else to know."""
    speed = document["rows"] / document["seconds"] if document["seconds"] else 0.0
    output.note(
        f"{document['run']} under {document['profile']} (rules {document['rules_hash']}): {document['rows']} updates in"
        f" {document['seconds']:.2f} s, {speed:,.0f} a second."
    )
    for item in document["items"]:
        for line in lines(item, output):
            output.line(line)
    if not document["items"]:
        output.note("No anomaly found.")
    if document["difference"] is not None:
        _show_difference(document["difference"], output)
    output.note(f"Detectors: {standing(document['detectors'])}.")
    told: set[str] = set()
    for stream in document["streams"]:
        for one in stream["standings"]:
            subject = f" [{one['subject']}]" if one["subject"] else ""
            said = f"  {one['state']} {one['kind']}{subject}: {one['reason']}"
            if one["state"] == "blind" and said not in told:
                told.add(said)
                output.note(said)
    for note in document["notes"]:
        output.note(f"Note: {note}.")


def _show_difference(difference: dict[str, Any], output: Output) -> None:
    """One line for each anomaly that is not the same on both sides."""
    for sign, word in (("+", "new"), ("-", "lost")):
        for item in difference[word]:
            output.line(printable(f"{sign} {word:<7} {_name(item)}: {item['sentence']}"))
    for word in ("moved", "changed"):
        for pair in difference[word]:
            before, after = pair["before"], pair["after"]
            output.line(printable(f"~ {word:<7} {_name(after)}: {'; '.join(_changes(before, after))}"))
    counts = ", ".join(f"{len(difference[word])} {word}" for word in ("new", "lost", "moved", "changed"))
    output.line(f"Against {difference['against']}: {counts}, {difference['same']} the same.")


def _name(item: dict[str, Any]) -> str:
    subject = f" [{item['subject']}]" if item["subject"] else ""
    return f"{item['kind']}{subject} since update {item['update_onset']} ({item['severity']})"


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    told = ("update_onset", "update_fired", "update_last", "update_resolved", "severity", "state", "count", "value", "limit")
    changed = [f"{key} {before[key]} → {after[key]}" for key in told if before[key] != after[key]]
    return changed or ["its words or what it explains differ"]


def gate(document: dict[str, Any], severity: str, output: Output, *, allow_blind: bool) -> int:
    """The exit code: 10 for a finding at or above the gate, 11 where none proves nothing, else 0."""
    if any(at_or_above(item, Severity(severity).value) for item in document["items"]):
        return EXIT_FINDINGS
    reasons, counts = list(document["inconclusive"]), document["detectors"]
    if document["rows"] and not counts["armed"] + counts["firing"]:
        reasons.append("no detector can judge")
    elif counts["blind"] + counts["learning"] and not allow_blind:
        reasons.append(f"detectors: {standing(counts)} (--allow-blind lets that pass)")
    if reasons:
        output.note(f"Inconclusive: {'; '.join(reasons)}.")
        return EXIT_INCONCLUSIVE
    return 0
