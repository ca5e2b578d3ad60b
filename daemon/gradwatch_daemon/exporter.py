"""The wiring of an export: finds the run or anomaly, reads it, and writes it in the form asked for."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gradwatch_contracts import __version__
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import nearest
from gradwatch_daemon.apart import refusal
from gradwatch_daemon.api.anomalies import anomaly_document
from gradwatch_daemon.api.coverage import covered
from gradwatch_daemon.api.replay import replay_document
from gradwatch_daemon.catalogue import describe
from gradwatch_daemon.detect.catalogue import PROFILES
from gradwatch_daemon.detect.extensions import load_rules
from gradwatch_daemon.exporting.bundle import write_bundle
from gradwatch_daemon.exporting.flat import column_name, flat_rows
from gradwatch_daemon.exporting.page import render
from gradwatch_daemon.exporting.report import AROUND, POINTS, Report, chosen_signals
from gradwatch_daemon.exporting.text import write_csv, write_jsonl
from gradwatch_daemon.records.rules import Measure
from gradwatch_daemon.replay.run import replay_run
from gradwatch_daemon.store.backup import new_file
from gradwatch_daemon.store.extract import extract_run
from gradwatch_daemon.store.reader import SqliteReader
from gradwatch_daemon.store.recording import RecordingReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gradwatch_daemon.detect.catalogue import Profile
    from gradwatch_daemon.exporting.flat import FlatRow
    from gradwatch_daemon.records import Anomaly, SignalBlock
    from gradwatch_daemon.store.recording import RecordedStream, Recording

    Thresholds = Mapping[str, Mapping[str, float]]

TEXTS = ("csv", "jsonl")

NICE = 10
"""Of a process that exports for the daemon: ingest goes first."""

REPLAY_ROWS_MAX = 200_000
"""Stored updates that are replayed for a page: about 10 s."""

EVENTS_MAX = 1000

PREFIX_MIN = 4
"""Characters of an anomaly's id that may stand for all of it."""

ALIKE_MAX = 5
"""Anomalies that are named where several begin alike."""

COMPUTED = frozenset({"gradient_drift", "performance_degradation", "skipped_steps"})
"""Kinds whose numbers are of something computed from the signal: a line at them in its plot would mislead."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run, or an anomaly by its id; the updates of tables and plots, both included, None for no bound. `profile` and
    `thresholds` are the rules where nothing recorded tells; `made` is the time of writing, in words."""

    what: str
    format: str
    profile: str
    thresholds: Thresholds
    made: str
    first: int | None = None
    last: int | None = None


@dataclass(slots=True)
class Source:
    """What was found: the run as it is at one moment, the anomaly if one was asked for, the rules it was judged by."""

    reader: RecordingReader
    recording: Recording
    anomaly: Anomaly | None
    profile: str
    thresholds: Thresholds
    rules: Profile
    notes: list[str] = field(default_factory=list)


def export_place(path: Path, wanted: Wanted, target: Path) -> dict[str, Any]:
    """Write the new file `target` from a data directory or database file; what was written, as a plain document.

    Raises:
        GradwatchError: `run-not-found` for neither a run nor an anomaly; `recording-unreadable`; `export-failed`.
    """
    with closing(RecordingReader(path)) as reader:
        source = _find(reader, wanted)
        with new_file(target, "export-failed") as draft:
            rows = _write(source, wanted, draft)
    run = source.recording.run.run
    anomaly = source.anomaly.id if source.anomaly is not None else None
    said = {"file": str(target), "format": wanted.format, "bytes": target.stat().st_size, "rows": rows}
    return {
        **said,
        "run": run,
        "anomaly": anomaly,
        "rules_hash": source.rules.rules_hash,
        "notes": source.notes,
        "coverage": _coverage(source),
    }


def print_table(path: Path, wanted: Wanted, out: TextIO) -> int:
    """The same as text into an open stream; returns the number of rows.

    Raises:
        GradwatchError: as `export_place`.
    """
    with closing(RecordingReader(path)) as reader:
        source = _find(reader, wanted)
        return _write_text(source, wanted, out)


def _coverage(source: Source) -> dict[str, Any]:
    found = source.recording
    return covered(found.received, found.lost, found.thinned)


def _anomaly_of(reader: RecordingReader, what: str) -> Anomaly | None:
    """The one with this id, or the only one whose id begins so.

    Raises:
        GradwatchError: `anomaly-not-found` where several begin so.
    """
    alike = reader.anomalies_beginning(what, ALIKE_MAX) if len(what) >= PREFIX_MIN else []
    if len(alike) > 1:
        named = ", ".join(f"{one.id} ({one.run} {one.kind})" for one in alike)
        raise GradwatchError("anomaly-not-found", where=str(reader.file), expected=f"more of one id of {named}", got=repr(what))
    return alike[0] if alike else reader.anomaly(what)


def _find(reader: RecordingReader, wanted: Wanted) -> Source:
    known, what = reader.runs(), wanted.what
    anomaly = None if what in known else _anomaly_of(reader, what)
    if what not in known and anomaly is None:
        hint = nearest(what, known)
        raise GradwatchError(
            "run-not-found",
            where=str(reader.file),
            expected=f"the id of an anomaly, or one of {', '.join(known[:20])}" if known else "a run",
            got=repr(what[:80]),
            next_step=f"Did you mean {hint}?" if hint else "",
        )
    recording = reader.recording(anomaly.run if anomaly is not None else what)
    judged = anomaly or max(recording.anomalies, key=lambda one: one.t_ns, default=None)
    chosen = _rules_of(judged, wanted.profile, wanted.thresholds)
    source = Source(reader, recording, anomaly, *chosen)
    if judged is not None and source.rules.rules_hash != judged.rules_hash:
        source.notes.append(
            f"it was judged by rules {judged.rules_hash}, which are not at hand; --config names their file. Those here are"
            f" {source.rules.rules_hash}"
        )
    unknown = reader.unknown_signals()
    if unknown:
        source.notes.append(f"signals this version does not know were left out: {', '.join(unknown[:10])}")
    return source


def _rules_of(judged: Anomaly | None, profile: str, thresholds: Thresholds) -> tuple[str, Thresholds, Profile]:
    """The rules whose hash stands with what was found, of those that can be known here; else those given."""
    given = (profile, thresholds, load_rules(profile, thresholds))
    if judged is None or given[2].rules_hash == judged.rules_hash:
        return given
    plain: list[tuple[str, Thresholds, Profile]] = [(name, {}, load_rules(name)) for name in PROFILES]
    return next((one for one in plain if one[2].rules_hash == judged.rules_hash), given)


def _write(source: Source, wanted: Wanted, draft: Path) -> int:
    if wanted.format == "html":
        report = _report(source, wanted)
        draft.write_text(render(report), encoding="utf-8")
        return report.rows
    if wanted.format == "zip":
        return _write_zip(source, wanted, draft)
    if wanted.format == "parquet":
        from gradwatch_daemon.exporting.parquet import write_parquet  # its library is an extra

        streams = _streams(source)
        window = _window(source.anomaly, wanted)
        return write_parquet(_blocks(source, streams), _columns(source, streams), draft, *window)
    with open(draft, "w", encoding="utf-8", newline="") as out:
        return _write_text(source, wanted, out)


def _write_text(source: Source, wanted: Wanted, out: TextIO) -> int:
    streams = _streams(source)
    rows = _rows(source, wanted, streams)
    return write_jsonl(rows, out) if wanted.format == "jsonl" else write_csv(rows, _columns(source, streams), out)


def _streams(source: Source) -> list[RecordedStream]:
    """All of a run, also of single ranks; of an anomaly the one it was found in."""
    streams = source.reader.every_stream(source.recording.run.run)
    one = source.anomaly
    if one is None:
        return streams
    return [found for found in streams if (found.stream.attempt, found.stream.rank) == (one.attempt, one.rank)]


def _rows(source: Source, wanted: Wanted, streams: Sequence[RecordedStream]) -> Iterator[FlatRow]:
    return flat_rows(_blocks(source, streams), *_window(source.anomaly, wanted))


def _blocks(source: Source, streams: Sequence[RecordedStream]) -> Iterator[SignalBlock]:
    for recorded in streams:
        if recorded.first_row:
            source.notes.append(f"the first {recorded.first_row} rows of {tuple(recorded.stream)} are no longer stored")
        yield from source.reader.blocks(recorded)


def _window(anomaly: Anomaly | None, wanted: Wanted) -> tuple[int | None, int | None]:
    """What was asked for; around an anomaly where nothing was."""
    if anomaly is None:
        return wanted.first, wanted.last
    first = max(anomaly.update_onset - AROUND, 0) if wanted.first is None else wanted.first
    return first, anomaly.update_last + AROUND if wanted.last is None else wanted.last


def _columns(source: Source, streams: Iterable[RecordedStream]) -> list[str]:
    """Every signal of the rows, in order of appearance."""
    found: dict[str, None] = {}
    for recorded in streams:
        seen: object = None
        for block in source.reader.blocks(recorded):
            if block.signals is not seen:
                seen = block.signals
                found.update(dict.fromkeys(map(column_name, block.signals)))
    return list(found)


def _write_zip(source: Source, wanted: Wanted, draft: Path) -> int:
    report = _report(source, wanted)
    lines = [json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n" for item in report.anomalies]
    about = {
        "run": source.recording.run.run,
        "anomaly": source.anomaly.id if source.anomaly is not None else None,
        "gradwatch": __version__,
        "made_at": wanted.made,
        "rules": {
            "profile": source.profile,
            "thresholds": {kind: dict(numbers) for kind, numbers in source.thresholds.items()},
            "hash": source.rules.rules_hash,
        },
        "notes": source.notes,
        "coverage": _coverage(source),
    }
    with tempfile.TemporaryDirectory(prefix="gradwatch-", dir=draft.parent) as home:
        database = Path(home) / "gradwatch.db"
        extract_run(source.reader.file, source.recording.run.run, database)
        write_bundle(draft, database, {"report.html": render(report), "anomalies.jsonl": "".join(lines)}, about)
    return report.rows


def _report(source: Source, wanted: Wanted) -> Report:
    recording, rules, anomaly, coverage = source.recording, source.rules, source.anomaly, _coverage(source)
    catalogue = describe(rules)
    rows = sum(recorded.end_row - recorded.first_row for recorded in recording.streams)
    replayed = None
    if rows <= REPLAY_ROWS_MAX:
        made_of = replay_run(recording, source.reader.blocks, rules, clock=time.perf_counter)
        replayed = replay_document(made_of, catalogue)
    newest = sorted(recording.anomalies, key=lambda one: (one.t_ns, one.id), reverse=True)
    streams = [recorded.stream for recorded in recording.streams]
    if anomaly is not None:
        streams = [stream for stream in streams if (stream.attempt, stream.rank) == (anomaly.attempt, anomaly.rank)] or streams
    if not streams:
        raise GradwatchError("recording-unreadable", where=recording.run.run, expected="stored rows", got="none")
    stream = streams[-1]
    needs = {kind: [need.signal for need in rule.needs] for kind, rule in rules.rules.items()}
    with closing(SqliteReader(source.reader.file)) as reader:
        summaries = reader.signals(*stream)
        keys = chosen_signals(summaries, [anomaly] if anomaly is not None else newest, needs)
        series = [reader.series(stream, key, *_window(anomaly, wanted), POINTS) for key in keys]
        events = reader.events(recording.run.run, EVENTS_MAX)
    return Report(
        run=recording.run,
        stream=stream,
        rows=rows,
        about=None if anomaly is None else {**anomaly_document(anomaly, catalogue, {}), "coverage": coverage},
        anomalies=[{**anomaly_document(one, catalogue, {}), "coverage": coverage} for one in newest],
        series=series,
        limits=_limits(rules),
        events=events,
        losses=recording.losses,
        replayed=replayed,
        profile=f"{rules.name} {rules.rules_hash}",
        made=wanted.made,
        version=__version__,
    )


def _limits(rules: Profile) -> dict[str, list[tuple[str, float]]]:
    """Of each signal the numbers that it alone is compared with, by the name that the configuration has for them."""
    found: dict[str, list[tuple[str, float]]] = {}
    for kind, rule in rules.rules.items():
        for one in rule.thresholds if kind not in COMPUTED else ():
            if one.measure is Measure.VALUE and one.signal and not one.series and one.severity and math.isfinite(one.limit):
                found.setdefault(one.signal, []).append((f"{kind}.{one.key}", one.limit))
    return found


def main() -> int:
    """One export on request of the daemon: an order on stdin, one JSON document on stdout."""
    os.nice(NICE)
    order = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_FSIZE, (order["bytes_max"], order["bytes_max"]))
    try:
        answer = {"document": export_place(Path(order["path"]), Wanted(**order["wanted"]), Path(order["target"]))}
    except GradwatchError as error:
        large = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EFBIG
        limit = {"where": "export", "expected": f"at most {order['bytes_max']} bytes", "got": "more"}
        answer = refusal(GradwatchError("export-too-large", **limit) if large else error)
    except ModuleNotFoundError as error:
        got = f"{order['wanted']['format']}, which needs {error.name} where the daemon runs"
        expected = "html, zip, csv or jsonl"
        answer = refusal(GradwatchError("invalid-parameter", where="query/format", expected=expected, got=got))
    json.dump(answer, sys.stdout, allow_nan=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
