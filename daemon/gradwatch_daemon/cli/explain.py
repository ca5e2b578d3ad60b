"""`gradwatch explain`: what an anomaly means, why it fired, what to try, and what its detector cannot see."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import nearest
from gradwatch_contracts.needs import NEEDS, STAND_INS, judged
from gradwatch_daemon.cli.anomalies import lines as anomaly_lines
from gradwatch_daemon.cli.anomaly_id import AmbiguousIdError, by_prefix
from gradwatch_daemon.cli.client import connect, segment
from gradwatch_daemon.cli.failure import EXIT_NOT_FOUND, CommandError
from gradwatch_daemon.cli.output import lost_words, number, printable
from gradwatch_daemon.cli.serve import daemon_extra

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Container

    from gradwatch_daemon.cli.client import Client
    from gradwatch_daemon.cli.output import Output

NORMS_SHOWN = 6
"""Norms of a layer that are listed, the newest."""

BEFORE, AFTER = 4, 1
"""Updates shown before and after the one that fired."""

SIGNALS_SHOWN = 4
"""Columns of that table: they fit beside each other."""


def run(args: Namespace, output: Output) -> int:
    """Explain a kind, or one anomaly with the numbers of its run.

    Raises:
        CommandError: 3 for what is neither a kind of the profile in use nor the id of an anomaly, naming the nearest kind.
    """
    try:
        client = connect(os.environ)
        answer = client.listed("/api/v1/detectors", limit=None)
    except (CommandError, GradwatchError) as error:
        slug = error.code if isinstance(error, CommandError) else error.code.slug
        if slug != "daemon-unreachable" or not _explain_offline(args, output):
            raise
        return 0
    detectors = {item["kind"]: item for item in answer["items"]}
    anomaly = None if args.what in detectors else _anomaly(client, args.what, list(detectors))
    detector = detectors.get(anomaly["kind"] if anomaly else args.what)
    moment = _moment(client, anomaly, detector) if anomaly is not None and detector is not None else []
    if output.as_json:
        output.document({"profile": answer["profile"], "detector": detector, "anomaly": anomaly, "moment": moment})
        return 0
    if anomaly is not None:
        _say_anomaly(anomaly, detectors, output)
        _say_moment(moment, output)
        _say_steps(anomaly, moment, output)
    if detector is not None:
        _say_detector(detector, output, tries=anomaly is None, read={series["signal"] for series in moment})
    elif anomaly is not None:
        output.note(f"The profile {answer['profile']} has no detector {anomaly['kind']} now: it was found under other rules.")
    return 0


def _explain_offline(args: Namespace, output: Output) -> bool:
    """Explain a kind as it comes with gradwatch, since no daemon answers; False for what is none.

    Raises:
        CommandError: 2 when the daemon extra is not installed: the catalogue is a part of it.
    """
    if args.what not in NEEDS:
        return False
    with daemon_extra():
        from gradwatch_daemon.offline import detector_as_shipped
    detector = detector_as_shipped(args.what)
    if output.as_json:
        output.document({"profile": "default", "detector": detector, "anomaly": None, "moment": []})
        return True
    _say_detector(detector, output, tries=True)
    output.note("No daemon answers: this is the profile `default` as it comes, without a configuration of yours.")
    return True


def _anomaly(client: Client, id_: str, kinds: list[str]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = by_prefix(client, id_, lambda whole: client.get(f"/api/v1/anomalies/{segment(whole)}"))
    except CommandError as failure:
        if isinstance(failure, AmbiguousIdError) or failure.code != "anomaly-not-found":
            raise
        raise CommandError(
            "No detector and no anomaly has this name.",
            why=f"got {id_!r}",
            next_step="List kinds with `gradwatch detectors`, and anomalies with `gradwatch anomalies`.",
            exit_code=EXIT_NOT_FOUND,
            did_you_mean=nearest(id_, kinds) or "",
        ) from None
    return found


def _moment(client: Client, anomaly: dict[str, Any], detector: dict[str, Any]) -> list[dict[str, Any]]:
    """What the detector reads, a few updates around the one it fired at; signals that the run does not have are left out."""
    path = f"/api/v1/runs/{segment(anomaly['run'])}/series"
    window = {"from_": max(anomaly["update_fired"] - BEFORE, 0), "to": anomaly["update_fired"] + AFTER, "points": 100}
    found: list[dict[str, Any]] = []
    # A signal is about the head or layer of the anomaly, or about the whole run.
    subjects = dict.fromkeys((anomaly["subject"], ""))
    # Where a signal is not sent, the one that is judged in its place.
    for names in dict.fromkeys((need["signal"], STAND_INS.get(need["signal"], "")) for need in detector["needs"]):
        for name, subject in ((name, subject) for name in names if name for subject in subjects):
            asked = {"signal": name, "subject": subject, "attempt": anomaly["attempt"], "rank": anomaly["rank"], **window}
            try:
                found.append(client.get(path, **asked))
                break
            except CommandError as failure:
                if failure.code not in ("signal-not-found", "run-not-found"):
                    raise
    return found[:SIGNALS_SHOWN]


def _say_moment(moment: list[dict[str, Any]], output: Output) -> None:
    """One line an update, one column a signal: the numbers behind the verdict, and why one is missing."""
    updates = sorted({update for series in moment for update in series["update"]})
    cells = [
        {
            update: number(last, status)
            for update, last, status in zip(series["update"], series["last"], series["status"], strict=True)
        }
        for series in moment
    ]
    if updates:
        heads = [series["signal"] + (f" [{series['subject']}]" if series["subject"] else "") for series in moment]
        output.line("what its detector read:")
        output.table(
            ("UPDATE", *heads), [(update, *(column.get(update, "no row") for column in cells)) for update in updates], ""
        )


def _say_steps(item: dict[str, Any], moment: list[dict[str, Any]], output: Output) -> None:
    """What to do, what costs nothing first, what changes the training last."""
    run, first = item["run"], max(item["update_onset"] - 50, 0)
    for series in moment[:2]:
        output.line(f"look        gradwatch series {run} {series['signal']} --from {first}")
    if item["state"] in {"pending", "firing"}:
        output.line(f"look closer gradwatch escalate {run} --level debug --for 20   (it aims at 5 % of the trainer's time;")
        output.line(f"            gradwatch level {run} says what was measured)")
    for place, step in enumerate(item["try"], 1):
        output.line(printable(f"try {place}       {step}"))


def _say_anomaly(item: dict[str, Any], detectors: dict[str, Any], output: Output) -> None:
    """The finding with its numbers, where it began, and what it explains."""
    for line in anomaly_lines({**item, "try": []}, output):
        output.line(line)
    root = item["root"]
    minibatch = "" if root["minibatch"] is None else f", minibatch {root['minibatch']}"
    output.line(f"began       update {root['update']}{minibatch}, in stage {root['stage']}")
    for found in item["attached"]:
        title = detectors.get(found["kind"], {}).get("title", "")
        numbers = f"value {number(found['value'])}, limit {number(found['limit'], 'the rule has none')}"
        output.line(f"explains    {found['kind']} at update {found['update_fired']} ({title}): {numbers}")
    _say_evidence(item["evidence"], output)
    if lost := lost_words(item["coverage"]):
        output.line(f"coverage    {lost}")
    for address in item["evidence"]["series"]:
        output.line(f"evidence    {address}")


def _say_evidence(evidence: dict[str, Any], output: Output) -> None:
    """What deviated first, and how much of the run around the onset that rests on."""
    output.line(printable(f"first       {evidence['sentence']}"))
    signal = evidence["first_signal"]
    if signal is not None:
        name = f"{signal['signal']}/{signal['subject']}" if signal["subject"] else signal["signal"]
        usual = number(signal["usual"], "nothing")
        output.line(printable(f"signal      {name} {number(signal['value'])} at update {signal['update']}; usual {usual}"))
    for one in evidence["norms"]:
        newest = list(zip(one["update"], one["norm"], strict=True))[-NORMS_SHOWN:]
        told = ", ".join(f"{update}: {number(norm)}" for update, norm in newest)
        output.line(printable(f"norms       {one['what']} of {one['layer']} by update: {told}"))
    held = evidence["updates"]
    output.line(f"rests on    {held['before']} stored updates before the onset and {held['since']} from it on")
    for table in evidence["tables"]:
        if table["href"]:
            output.line(f"table       {table['href']}")


def _say_detector(item: dict[str, Any], output: Output, *, tries: bool, read: Container[str] = ()) -> None:
    """`read` are the signals that were found in the run."""
    output.line(f"{item['kind']}: {item['title']} ({item['severity']})")
    output.line(f"means       {item['meaning']}")
    output.line(f"fires when  {item['formula']}")
    for one in item["thresholds"]:
        changed = f" (the profile has {number(one['default'])})" if one["value"] != one["default"] else ""
        limit = f"{one['name']} {one['comparison']} {number(one['value'])} {one['unit']}".rstrip()
        output.line(f"threshold   {limit}{changed}: {one['meaning']}")
    for vote in item["votes"]:
        output.line(f"vote        {vote['gives']} after {vote['k']} of {vote['n']} updates at {vote['at']} or above")
    output.line(f"warm-up     {item['warm_up']}")
    if tries:
        for place, step in enumerate(item["try"], 1):
            output.line(f"try {place}       {step}")
    for need in item["needs"]:
        other = judged(need["signal"], read)
        if other != need["signal"]:
            output.line(f"needs       {need['signal']}; it is not sent here, and {other} was judged in its place")
            continue
        without = "sees less" if need["optional"] else "blind"
        output.line(f"needs       {need['signal']}; {without} without it: {need['line']}")
        if need["undefined"]:
            output.line(f"            where it is not defined: {need['undefined']}")
    output.line(f"fails when  {item['fails_when']}")
    output.line(f"source      {item['source']}")
