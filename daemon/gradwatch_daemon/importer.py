"""The wiring of an import: finds the log, reads it, and gives it to a pipeline: the daemon's, or one of its own.

A log goes the way a trainer's rows go, so that it is derived, detected on, stored and shown like any other run.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.dialects import UNKNOWN, dialect_of
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import RUN, check_name, nearest, slug
from gradwatch_contracts.segments import without_gaps
from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.config import is_loopback, split_host_port
from gradwatch_daemon.detect.engine import Engine
from gradwatch_daemon.detect.extensions import load_rules
from gradwatch_daemon.importing.points import unreadable
from gradwatch_daemon.importing.progress import read_progress
from gradwatch_daemon.importing.rows import assemble, read_keys
from gradwatch_daemon.importing.send import send_session
from gradwatch_daemon.importing.session import hello_of, messages_of
from gradwatch_daemon.importing.spool import read_spool
from gradwatch_daemon.importing.tfevents import MARK, read_events
from gradwatch_daemon.ingest.sender import SenderSocket
from gradwatch_daemon.pipeline.pipeline import Pipeline
from gradwatch_daemon.places import private_directory
from gradwatch_daemon.records import Counters
from gradwatch_daemon.store.directory import is_locked
from gradwatch_daemon.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from gradwatch_contracts.connection import Connection
    from gradwatch_contracts.dialects import Dialect, Meaning
    from gradwatch_daemon.importing.points import Log
    from gradwatch_daemon.importing.rows import LoggedAttempt
    from gradwatch_daemon.importing.send import Wire
    from gradwatch_daemon.records import Anomaly, Escalation, Run, Stream

PROGRESS = "progress.csv"


@dataclass(slots=True)
class Reading:
    """A log understood: whose it is, its attempts, what each key is read as, and what was odd about it."""

    path: Path
    log: Log
    dialect: Dialect
    attempts: list[LoggedAttempt]
    keys: dict[str, tuple[Meaning, str]]
    oddities: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def is_log(path: Path) -> bool:
    """Whether this is a log and not a data directory of ours."""
    return bool(path.suffix == ".csv" or MARK in path.name or (path.is_dir() and _logs_in(path)))


def _logs_in(path: Path) -> list[Path]:
    """progress.csv where there is one (it says more than the event files beside it), else the event files."""
    if (path / PROGRESS).is_file():
        return [path / PROGRESS]
    return sorted(child for child in path.iterdir() if MARK in child.name and child.is_file())


def read_log(path: Path, given: Mapping[str, str]) -> Reading:
    """Read a log file, or the one log of a directory. `given` says of keys which signal they are.

    Raises:
        GradwatchError: `recording-unreadable`; `invalid-argument` for what is given of keys or signals that are not there.
    """
    files = _logs_in(path) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        inside = sorted({str(found.parent) for found in path.rglob(f"*{MARK}*")}) if path.is_dir() else []
        got = f"none in it, but in {', '.join(inside[:10])}" if inside else "none"
        raise unreadable(path, "a TensorBoard event file, a progress.csv, or a directory with one of them", got)
    log = read_progress(files[0]) if files[0].suffix == ".csv" else read_events(files)
    keys = list(dict.fromkeys(point.key for points in log.attempts for point in points))
    dialect = dialect_of(keys)
    for key, signal in given.items():
        _check_given(key, signal, keys)
    attempts = [assemble(points, dialect) for points in log.attempts if points]
    reading = Reading(path, log, dialect, [attempt for attempt in attempts if attempt.rows], {})
    for attempt in attempts:
        reading.oddities += attempt.oddities
        reading.notes += [note for note in attempt.notes if note not in reading.notes]
    reading.keys = read_keys(keys, dialect, given, reading.oddities)
    if log.damage.cut_short:
        reading.notes.append("the log ends within a record: its writer was killed, or is still writing")
    return reading


def _check_given(key: str, signal: str, keys: Sequence[str]) -> None:
    for word, known, what in ((key, keys, "a key of the log"), (signal, list(SIGNALS), "a signal")):
        if word not in known:
            hint = nearest(word, known)
            next_step = f"Did you mean {hint}?" if hint else ""
            raise GradwatchError("invalid-argument", where="--map", expected=what, got=repr(word), next_step=next_step)


def store_log(reading: Reading, run: str, wire: Wire, updates_total: int | None = None, secret: str = "") -> dict[str, Any]:
    """Give every attempt of a log to a pipeline; the report of it.

    Raises:
        GradwatchError: what the pipeline refuses.
    """
    numbers, fresh = [], 0
    steps_known = reading.dialect is not UNKNOWN and not reading.dialect.steps_are_updates
    for number, attempt in enumerate(reading.attempts):
        hello = hello_of(run, number, attempt.rows, reading.dialect, str(reading.path))
        hello = replace(hello, updates_total=updates_total, secret=secret)
        messages = tuple(messages_of(attempt.rows, reading.keys, reading.dialect, steps_known))
        as_attempt, known = send_session(wire, hello, partial(without_gaps, messages))
        numbers.append(as_attempt)
        fresh += len(attempt.rows) - known
    return report(reading, run, numbers, fresh)


def report(reading: Reading, run: str, attempts: Sequence[int], fresh: int) -> dict[str, Any]:
    """What was read, as what, and what was odd: the plain document of an import."""
    counts, first = _nonfinite(reading)
    updates = [row.update for attempt in reading.attempts for row in attempt.rows]
    return {
        "run": run,
        "path": str(reading.path),
        "written_by": reading.dialect.name,
        "attempts": list(attempts),
        "rows": len(updates),
        "rows_new": fresh,
        "update_first": updates[0] if updates else None,
        "update_last": updates[-1] if updates else None,
        "keys": [
            {
                "key": key,
                "signal": meaning.signal or "user",
                "subject": name,
                "nonfinite": counts[key],
                "nonfinite_first": first.get(key),
                "why": meaning.why,
            }
            for key, (meaning, name) in reading.keys.items()
        ],
        "skipped": dict(reading.log.skipped),
        "damage": reading.log.damage.lines(),
        "oddities": dict(reading.oddities),
        "notes": reading.notes,
    }


def _nonfinite(reading: Reading) -> tuple[Counter[str], dict[str, int]]:
    """Numbers of each key that are NaN or infinite, and the update of the first of them."""
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    for attempt in reading.attempts:
        for row in attempt.rows:
            episodes = [(reading.dialect.episode, value) for value in row.episodes]
            for key, value in [*row.values.items(), *episodes]:
                if not math.isfinite(value):
                    counts[key] += 1
                    first.setdefault(key, row.update)
    return counts, first


def run_name(path: Path) -> str:
    """A run's name made of where its log lies: the file's directory, since files have names that say nothing."""
    place = path.resolve()
    return slug(place.name if place.is_dir() else place.parent.name)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where runs are kept, the rules they are detected with where no daemon does it, and the daemon of this machine if any."""

    data_dir: Path
    profile: str
    thresholds: Mapping[str, Mapping[str, float]]
    connection: Connection | None = None


def import_log(reading: Reading, run: str, shelf: Shelf, updates_total: int | None = None) -> dict[str, Any]:
    """Store a log in a data directory: through the daemon that has it, else through a pipeline in this process.

    Raises:
        GradwatchError: `data-dir-unusable`, `invalid-argument` for a name that is none, and what a pipeline refuses.
    """
    check_name(run, RUN, "--run")
    with _way_to(shelf, run) as (wire, secret):
        return store_log(reading, run, wire, updates_total, secret)


@contextmanager
def _way_to(shelf: Shelf, run: str) -> Iterator[tuple[Wire, str]]:
    """The way into a data directory, and the secret for it: the daemon that has it, else a pipeline in this process."""
    daemon = shelf.connection
    if daemon is not None and is_locked(shelf.data_dir):
        _check_plain(daemon.ingest)
        with closing(SenderSocket(daemon.ingest)) as socket:
            yield socket, daemon.secret
        return
    private_directory(shelf.data_dir, "--data-dir")
    with closing(_StoreOfOne.open(shelf.data_dir)) as store:
        store.only = run
        yield OwnPipeline(store, load_rules(shelf.profile, shelf.thresholds)), ""


def import_spool(path: Path, run: str, shelf: Shelf, *, delete: bool = False) -> dict[str, Any]:
    """Store what trainers could not send; the report of it. `run` leaves all others out; `delete` removes what is stored.

    Raises:
        GradwatchError: as `import_log`.
    """
    sessions, damaged, busy = read_spool(path)
    stored = []
    for session in sessions:
        hello, last_word = session.hello, session.last_word
        if run and hello.run != run:
            continue
        with _way_to(shelf, hello.run) as (wire, secret):
            attempt, known = send_session(wire, replace(hello, secret=secret), session.messages, last_word)
        stored.append(
            {
                "run": hello.run,
                "session": hello.session,
                "attempt": attempt,
                "rank": hello.rank,
                "records": last_word.last_seq + 1 - session.first_seq,
                "records_new": max(last_word.last_seq + 1 - max(known, session.first_seq), 0),
                "ended": last_word.reason,
                "unread_bytes": session.unread,
            }
        )
        if delete:
            shutil.rmtree(session.path)
            with suppress(OSError):  # others of the run may be there
                session.path.parent.rmdir()
    unread = [
        {"path": str(session.path), "bytes": session.unread} for session in damaged if run in ("", session.path.parent.name)
    ]
    return {"path": str(path), "sessions": stored, "unread": unread, "busy": [str(folder) for folder in busy]}


def _check_plain(endpoint: str) -> None:
    """Refuse a daemon that takes rows with a registered key only; this command has none.

    Raises:
        GradwatchError: `data-dir-unusable`.
    """
    scheme, _, rest = endpoint.partition("://")
    if scheme == "tcp" and not is_loopback(split_host_port(rest)[0]):
        raise GradwatchError(
            "data-dir-unusable",
            where=endpoint,
            expected="a daemon whose ingest is not encrypted",
            got="one that takes registered keys only",
            next_step="Import while it is stopped, or into another --data-dir.",
        )


class _StoreOfOne(SqliteStore):
    """Shows a pipeline one run only: what this process knows of rules and of who is connected says nothing of the others."""

    only = ""

    def runs(self) -> list[Run]:
        """The run, if it is there."""
        return [run for run in super().runs() if run.run == self.only]

    def open_anomalies(self) -> list[Anomaly]:
        """Its own."""
        return [anomaly for anomaly in super().open_anomalies() if anomaly.run == self.only]

    def open_escalations(self) -> list[Escalation]:
        """Its own."""
        return [record for record in super().open_escalations() if record.run == self.only]

    def row_counts(self) -> dict[Stream, tuple[int, int]]:
        """Of its streams."""
        return {stream: counts for stream, counts in super().row_counts().items() if stream.run == self.only}


class OwnPipeline:
    """A pipeline in this process, as a `Wire`."""

    def __init__(self, store: SqliteStore, profile: Any) -> None:
        self._sent: list[bytes] = []
        self._waiting: list[tuple[bytes, bytes]] = []
        self._pipeline = Pipeline(_Answers(self._sent), store, Engine(profile), Counters(), lambda _: None)  # type: ignore[arg-type]

    def send(self, frame: bytes) -> None:
        """Through the pipeline at once: a HELLO must be answered before what follows it."""
        self._pipeline.tick([(b"log", frame)])

    def receive(self) -> list[bytes]:
        """What it said."""
        frames, self._sent[:] = list(self._sent), []
        return frames


class _Answers:
    """The part of a socket that a pipeline speaks to."""

    def __init__(self, sent: list[bytes]) -> None:
        self._sent = sent

    def send(self, _peer: bytes, frame: bytes) -> bool:
        self._sent.append(frame)
        return True

    def wake(self) -> None:
        """Nobody sleeps."""
