"""What one run left in a store, read without writing: beside a daemon that is using it, or from a file alone.

The outline is read in one transaction; its rows are read afterwards, block by block, and never held as a whole.
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import nearest
from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.records import ALL_RANKS, SignalBlock, Stream
from gradwatch_daemon.store import directory, rows
from gradwatch_daemon.store.chunks import blocks
from gradwatch_daemon.store.events import count_lost
from gradwatch_daemon.store.schema import APPLICATION_ID, VERSION
from gradwatch_daemon.store.thinning import thinned_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gradwatch_daemon.records import Anomaly, EventRecord, LossRecord, Run

UNREADABLE = (sqlite3.DatabaseError, zlib.error, struct.error, ValueError, TypeError, KeyError, IndexError)
"""What decoding damaged bytes raises: SQLite of its pages, the others of what is in them."""


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """Rows `first_row` to `end_row` (not included) of a stream are stored; `marks` are what detection saw besides."""

    stream: Stream
    first_row: int
    end_row: int
    marks: tuple[EventRecord, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """One run at one moment: the streams that were judged, in order of attempt and rank, what live found, what was lost.

    `received`, `lost` and `thinned` count over all attempts and ranks, as coverage does: a loss that was told twice once.
    """

    run: Run
    streams: tuple[RecordedStream, ...]
    anomalies: tuple[Anomaly, ...]
    losses: tuple[LossRecord, ...]
    received: int = 0
    lost: int = 0
    thinned: int = 0


class RecordingReader:
    """The runs of one database file.

    Raises:
        GradwatchError: `recording-unreadable`: no such file, not ours, of another version, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.file = path / directory.DATABASE if path.is_dir() else path
        if not self.file.is_file():
            raise _unreadable(self.file, "a data directory or its database", "no such file")
        self._names = blocks.Names()
        with ExitStack() as undo:
            try:
                self._db = open_recording(self.file)
                undo.callback(self._db.close)
                _check(self._db, self.file)
            except UNREADABLE as error:
                raise _unreadable(self.file, "a database of gradwatch", str(error)) from error
            undo.pop_all()

    def runs(self) -> list[str]:
        """The names of all runs."""
        with self._reading():
            return [name for (name,) in self._db.execute("SELECT run FROM run ORDER BY run")]

    def recording(self, run: str) -> Recording:
        """Everything of a run but its rows.

        Raises:
            GradwatchError: `run-not-found`, naming the nearest; `recording-unreadable`.
        """
        with self._reading():
            found = self._db.execute(f"SELECT {', '.join(rows.RUN)} FROM run WHERE run = ?", (run,)).fetchone()
            if found is None:
                known = [name for (name,) in self._db.execute("SELECT run FROM run")]
                hint = nearest(run, known)
                raise GradwatchError(
                    "run-not-found",
                    where=str(self.file),
                    expected=f"one of {', '.join(known[:20])}" if known else "a run",
                    got=repr(run),
                    next_step=f"Did you mean {hint}?" if hint else "",
                )
            listed = self._db.execute("SELECT id, run, attempt, rank FROM stream WHERE run = ? ORDER BY attempt, rank", (run,))
            streams = [(number, Stream(*key)) for number, *key in listed]
            together = {stream.attempt for _, stream in streams if stream.rank == ALL_RANKS}
            judged = [s for s in streams if s[1].rank == ALL_RANKS or s[1].attempt not in together]
            return Recording(
                rows.run_of(found),
                tuple(self._stream(number, stream) for number, stream in judged),
                tuple(self._anomalies(run)),
                tuple(loss for number, stream in streams for loss in self._losses(number, stream)),
                *self._arrived(run, [number for number, stream in streams if stream.rank != ALL_RANKS]),
            )

    def blocks(self, recorded: RecordedStream) -> Iterator[SignalBlock]:
        """The rows of a stream in order of arrival, exactly as they were detected on. Signals that this version does not
        know are left out; `unknown_signals` names them.

        Raises:
            GradwatchError: `recording-unreadable`, at the row from which on it is.
        """
        row = recorded.first_row
        stored = blocks.read_blocks(self._db, self._names, recorded.stream, first=row)
        while row < recorded.end_row:
            try:
                block = next(stored)
            except StopIteration:
                raise _unreadable(recorded.stream, f"rows up to {recorded.end_row}", f"no row {row}") from None
            except UNREADABLE as error:
                raise _unreadable(recorded.stream, f"rows from {row} on", f"{type(error).__name__}: {error}") from error
            if len(block) > recorded.end_row - row:
                block = block.select(slice(0, recorded.end_row - row))
            row += len(block)
            yield _known(block)

    def every_stream(self, run: str) -> list[RecordedStream]:
        """All streams of a run that have rows, also those of single ranks, which detection does not read."""
        with self._reading():
            listed = self._db.execute("SELECT id, run, attempt, rank FROM stream WHERE run = ? ORDER BY attempt, rank", (run,))
            found = [self._stream(number, Stream(*key)) for number, *key in listed.fetchall()]
        return [recorded for recorded in found if recorded.end_row > recorded.first_row]

    def anomaly(self, id_: str) -> Anomaly | None:
        """One anomaly of any run."""
        with self._reading():
            found = self._db.execute(f"SELECT {', '.join(rows.ANOMALY)} FROM anomaly WHERE id = ?", (id_,)).fetchone()
        return None if found is None else rows.anomaly_of(found)

    def anomalies_beginning(self, begin: str, most: int) -> list[Anomaly]:
        """Those of any run whose id begins so, at most `most`."""
        query = f"SELECT {', '.join(rows.ANOMALY)} FROM anomaly WHERE substr(id, 1, ?) = ? ORDER BY id LIMIT ?"
        with self._reading():
            found = self._db.execute(query, (len(begin), begin, most)).fetchall()
        return [rows.anomaly_of(row) for row in found]

    def unknown_signals(self) -> list[str]:
        """Names of signals in this file, of any run, that this version does not know."""
        with self._reading():
            names = {str(name) for (name,) in self._db.execute("SELECT DISTINCT name FROM signal")}
        return sorted(names - SIGNALS.keys())

    def close(self) -> None:
        """Give the file back. Again is harmless."""
        self._db.close()

    def _stream(self, number: int, stream: Stream) -> RecordedStream:
        query = (
            f"SELECT {', '.join(rows.EVENT)} FROM event WHERE stream = ? AND seq = -1 AND kind IN ('gap', 'tick') ORDER BY id"
        )
        marks = tuple(rows.event_of(row, stream) for row in self._db.execute(query, (number,)))
        return RecordedStream(stream, blocks.row_begin(self._db, number), blocks.row_end(self._db, number), marks)

    def _arrived(self, run: str, numbers: Sequence[int]) -> tuple[int, int, int]:
        thinned = thinned_rows(self._db)
        received = sum(blocks.row_end(self._db, number) for number in numbers)
        return received, count_lost(self._db, run), sum(thinned.get(number, 0) for number in numbers)

    def _anomalies(self, run: str) -> list[Anomaly]:
        query = f"SELECT {', '.join(rows.ANOMALY)} FROM anomaly WHERE run = ? ORDER BY t_ns, id"
        return [rows.anomaly_of(row) for row in self._db.execute(query, (run,))]

    def _losses(self, number: int, stream: Stream) -> list[LossRecord]:
        query = f"SELECT {', '.join(rows.LOSS)} FROM loss WHERE stream = ? ORDER BY id"
        return [rows.loss_of(row, stream) for row in self._db.execute(query, (number,))]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One committed state, and one refusal for whatever damage is met."""
        try:
            self._db.execute("BEGIN")
            yield
        except UNREADABLE as error:
            raise _unreadable(self.file, "an undamaged database", f"{type(error).__name__}: {error}") from error
        finally:
            self._db.rollback()


def open_recording(file: Path) -> sqlite3.Connection:
    """A connection that cannot write. A database that was put away whole may lie where no index of its WAL can be made;
    nobody writes it there, so it is read as it is."""
    db = directory.open_reader(file)
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        db.close()
        if file.with_name(f"{file.name}-wal").exists():
            raise
        db = sqlite3.connect(f"{file.resolve().as_uri()}?immutable=1", uri=True, isolation_level=None)
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return db


def _check(db: sqlite3.Connection, file: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise _unreadable(file, "a database of gradwatch", "one of another program, or an empty one")
    if version != VERSION:
        step = "Upgrade gradwatch." if version > VERSION else "Start `gradwatch serve` on it once: that brings it up to date."
        raise _unreadable(file, f"data of version {VERSION}", f"version {version}", step)


def _known(block: SignalBlock) -> SignalBlock:
    """Without the signals that this version does not know; the same object where it knows all."""
    kept = [place for place, key in enumerate(block.signals) if key.name in SIGNALS]
    if len(kept) == len(block.signals):
        return block
    columns = (block.update, block.t_ns, block.env_steps, block.level, block.flags)
    signals = tuple(block.signals[place] for place in kept)
    return SignalBlock(block.stream, *columns, signals, block.values[kept], block.status[kept])


def _unreadable(where: object, expected: str, got: str, next_step: str = "") -> GradwatchError:
    return GradwatchError("recording-unreadable", where=str(where), expected=expected, got=got, next_step=next_step)
