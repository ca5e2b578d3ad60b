"""`gradwatch anomalies`: what was found, as a list, live, or as a gate for scripts."""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.control import Severity
from gradwatch_daemon.cli.anomaly_id import short
from gradwatch_daemon.cli.client import connect
from gradwatch_daemon.cli.failure import EXIT_FINDINGS, EXIT_INCONCLUSIVE, EXIT_USAGE, CommandError
from gradwatch_daemon.cli.follow import follow
from gradwatch_daemon.cli.output import glyph, number, percent, printable
from gradwatch_daemon.cli.runs import standing

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator

    from gradwatch_daemon.cli.client import Client
    from gradwatch_daemon.cli.output import Output


def run(args: Namespace, output: Output) -> int:
    """List or follow. With `--exit-code`: 10 when one fired at or above the gate, 11 when that cannot be said.

    Raises:
        CommandError: 2 for `--follow` with a gate, which would never end.
    """
    if args.follow and args.exit_code:
        raise CommandError("--follow never ends, so it has no --exit-code.", next_step="Leave one out.", exit_code=EXIT_USAGE)
    if args.follow:
        return _follow(args, output)
    client = connect(os.environ)
    answers = client.pages("/api/v1/anomalies", **_query(args))
    first, items = _collect(answers, args)
    cut = len(items) > args.limit
    if output.as_json:
        output.document({**first, "items": items[: args.limit], "next": None, "more": cut})
    else:
        _list(first, items[: args.limit], cut, output)
    return _gate(client, args, output) if args.exit_code else 0


def _query(args: Namespace) -> dict[str, object]:
    exact = args.severity if args.severity == Severity.CRITICAL.value else None
    return {"run": args.run, "kind": args.kind, "severity": exact, "state": args.state, "since": args.since}


def _collect(answers: Iterator[dict[str, Any]], args: Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The first answer, and the items of as many pages as show whether there are more than `--limit`."""
    first: dict[str, Any] = {}
    items: list[dict[str, Any]] = []
    for answer in answers:
        first = first or answer
        items += [item for item in answer["items"] if at_or_above(item, args.severity)]
        if len(items) > args.limit:
            break
    return first, items


def at_or_above(item: dict[str, Any], severity: str) -> bool:
    """Whether an anomaly is as bad as that."""
    return Severity(item["severity"]).rank >= Severity(severity).rank


def _list(first: dict[str, Any], items: Iterable[dict[str, Any]], cut: bool, output: Output) -> None:
    listed = list(items)
    for item in listed:
        for line in lines(item, output):
            output.line(line)
    if cut:
        output.note("There are more: raise --limit, or narrow with RUN, --kind, --severity, --since.")
    nothing = "" if listed else "No anomaly found. "
    output.note(f"{nothing}Detectors: {standing(first['detectors'])}.{_lost(first['coverage'])}")


def _lost(coverage: dict[str, Any]) -> str:
    if not coverage["lost"]:
        return ""
    return f" {coverage['lost']} records were lost; {percent(coverage['share'])} is covered."


def lines(item: dict[str, Any], output: Output) -> list[str]:
    """One anomaly for a person: what, where, the numbers, what else it explains, what to try."""
    subject = f" [{printable(item['subject'])}]" if item["subject"] else ""
    severity = output.paint(f"{glyph(item['severity']):>2} {item['severity']:<8}", item["severity"])
    head = f"{severity} {item['state']:<8}  {item['run']}  update {item['update_fired']}  {item['kind']}{subject}"
    status = item["status"]
    numbers = ", ".join(
        f"{name} {number(item[name], status.get(name, ''))}"
        for name in ("value", "limit", "baseline")
        if item[name] is not None or status.get(name) != "the rule has none"
    )
    story = f"   {numbers}; onset {item['update_onset']}, seen {item['count']}x; id {short(item['id'])}"
    said = [head, f"   {printable(item['sentence'])}", story]
    if item["attached"]:
        said.append("   explains: " + ", ".join(sorted({finding["kind"] for finding in item["attached"]})))
    said += [f"   {line}" for line in attended(item)]
    said += [f"   try: {printable(step)}" for step in item["try"][:1]]
    return said


def attended(item: dict[str, Any]) -> list[str]:
    """What people did about an anomaly, a line each."""
    seen, silence = item["acknowledged"], item["silenced"]
    note = f": {printable(seen['note'])}" if seen and seen["note"] else ""
    said = [f"acknowledged by {printable(seen['by'])}{note}"] if seen else []
    return [*said, f"silenced by {silence}: not delivered"] if silence else said


def _follow(args: Namespace, output: Output) -> int:
    wanted = {"runs": args.run, "topics": "anomaly"}
    told: dict[str, dict[str, Any]] = {}
    if not output.as_json:
        output.note(f"Following {args.run or 'all runs'}; what fires is shown here. Ctrl-C ends.")
    for item in follow(lambda: connect(os.environ), wanted, _query(args), output.note, time.sleep):
        if not _matches(item, args):
            continue
        if output.as_json:
            output.event(item)
            continue
        before = told.get(item["id"])
        for line in lines(item, output) if before is None else news(item, before):
            output.line(line)
        told[item["id"]] = item
    return 0


def news(item: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """What has changed in the story of an anomaly that was told before: one line, or none.

    A firing anomaly changes with every update; its counts are no news.
    """
    changes = []
    new = {finding["kind"] for finding in item["attached"]} - {finding["kind"] for finding in before["attached"]}
    if item["severity"] != before["severity"]:
        changes.append(f"now {item['severity']}")
    if new:
        changes.append(f"also {', '.join(sorted(new))} at update {item['update_last']}")
    changes += [line for line in attended(item) if line not in attended(before)]
    if item["state"] != before["state"]:
        resolved = item["update_resolved"]
        changes.append(item["state"] if resolved is None else f"{item['state']} at update {resolved}")
    about = f"{short(item['id'])}  {item['run']}  {item['kind']} since update {item['update_onset']}"
    return [f"   {about}: {'; '.join(changes)}"] if changes else []


def _matches(item: dict[str, Any], args: Namespace) -> bool:
    """The stream filters by run only."""
    return (
        at_or_above(item, args.severity)
        and args.kind in (None, item["kind"], *(finding["kind"] for finding in item["attached"]))
        and args.state in (None, item["state"])
        and (args.since is None or _instant(item["fired_at"]) >= _instant(args.since))
    )


def _instant(text: str) -> float:
    return datetime.fromisoformat(text.strip().upper().replace("Z", "+00:00")).timestamp()


def _gate(client: Client, args: Namespace, output: Output) -> int:
    """The verdict for a script, over everything that fired, however many the list shows."""
    inconclusive = ""
    for answer in client.pages("/api/v1/anomalies", **{**_query(args), "severity": None}):
        if any(at_or_above(item, args.exit_code) and item["state"] != "pending" for item in answer["items"]):
            return EXIT_FINDINGS
        inconclusive = _why_inconclusive(answer, allow_blind=args.allow_blind)
    if inconclusive:
        output.note(f"Inconclusive: {inconclusive}.")
        return EXIT_INCONCLUSIVE
    return 0


def _why_inconclusive(answer: dict[str, Any], *, allow_blind: bool) -> str:
    counts, coverage = answer["detectors"], answer["coverage"]
    if not counts["armed"] + counts["firing"]:
        return "no detector can judge yet"
    if coverage["lost"]:
        return f"{coverage['lost']} records were lost"
    if counts["blind"] + counts["learning"] and not allow_blind:
        return f"detectors: {standing(counts)}; `gradwatch runs RUN` says what they lack"
    return ""
