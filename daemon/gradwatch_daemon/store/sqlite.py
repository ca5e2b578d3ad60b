"""The store on SQLite: one file, one writing connection, any number of readers.

A commit is one transaction that appends tails; compaction, between commits, turns 1,024 rows of tails into a chunk in one
transaction with their deletion. What a commit returned from survives kill -9 of the daemon (`synchronous = NORMAL`), and
where it is opened `synced` the loss of power too (`FULL`).
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import Checkpoint, Stream
from gradwatch_daemon.store import control, directory, events, rows, thinning
from gradwatch_daemon.store.chunks import blocks
from gradwatch_daemon.store.chunks.chunk import encode_chunk
from gradwatch_daemon.store.chunks.tail import encode_tail
from gradwatch_daemon.store.deliveries import read_deliveries, write_deliveries
from gradwatch_daemon.store.escalations import read_escalation, read_open_escalations
from gradwatch_daemon.store.numbers import Numbers
from gradwatch_daemon.store.overlay import read_attention, read_silence, read_silences
from gradwatch_daemon.store.reader import SqliteReader
from gradwatch_daemon.store.schema import CHUNK_ROWS, piece_key, row_key, upsert

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gradwatch_daemon.records import Anomaly, Commit, Escalation, EventRecord, Run, Session, SignalBlock
    from gradwatch_daemon.records.attention import Attention, Silence
    from gradwatch_daemon.records.commands import CommandRecord
    from gradwatch_daemon.records.notices import Delivery
    from gradwatch_daemon.store.protocol import Keep

S = TypeVar("S", bound="SqliteStore")

WAL_BYTES = 4 * 1024 * 1024
"""Written since the last checkpoint before the next: about 8,000 single-row commits or 10 chunks."""

WAL_BYTES_MAX = 64 * 1024 * 1024
"""Above this the writer waits for readers to leave the WAL, so that steady readers cannot make it grow for ever; in vain, it
tries again after as much more."""

WAL_WAIT_MS = 250
"""How long it waits for that; reads take a few ms."""

COMMIT_BYTES = 5 * 4096
"""Pages that a commit touches besides its own bytes, for the sum above."""

CHUNKS_PER_CALL = 16
"""Chunks of one `compact()`: a few ms each, and commits wait for it."""

THINNED_ROW_BYTES = 512
"""Pages that thinning touches, an update: about as much as the row took, for the sum above."""

_TAIL = "INSERT INTO tail (id, set_id, n, update_min, update_max, data) VALUES (?, ?, ?, ?, ?, ?)"
_CHUNK = "INSERT INTO chunk (id, update_min, update_max, sets, marks) VALUES (?, ?, ?, ?, ?)"
_COLUMNS = "INSERT INTO chunk_columns (id, data) VALUES (?, ?)"
_PIECE = "INSERT INTO piece (id, groups, reasons, status, data) VALUES (?, ?, ?, ?, ?)"
_WAITING = "INSERT INTO waiting (stream, data) VALUES (?, ?) ON CONFLICT (stream) DO UPDATE SET data = excluded.data"
_WAITED = "DELETE FROM waiting WHERE stream = ?"
_SUMMARY = """INSERT INTO summary (stream, signal, update_last, status_last, value_last, measured, nonfinite)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (stream, signal) DO UPDATE SET
    update_last = CASE WHEN excluded.value_last IS NULL AND value_last IS NOT NULL
                  THEN update_last ELSE excluded.update_last END,
    status_last = excluded.status_last, value_last = coalesce(excluded.value_last, value_last),
    measured = measured + excluded.measured, nonfinite = nonfinite + excluded.nonfinite"""
_RUN = upsert("run", rows.RUN, 1)
_SESSION = upsert("session", rows.SESSION, 1)
_ANOMALY = upsert("anomaly", rows.ANOMALY, 1)
_ESCALATION = upsert("escalation", rows.ESCALATION, 2)
_ATTENTION = upsert("attention", rows.ATTENTION, 1)
_SILENCE = upsert("silence", rows.SILENCE, 1)
_COMMAND = upsert("command", control.COMMAND, 2)
_CHECKPOINT = upsert("checkpoint", ("stream", "update_at", "rows", "rules_hash", "state"), 1)


def _append(table: str, columns: tuple[str, ...]) -> str:
    """SQL that adds a row, or nothing where (session, seq) says that it is there already."""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) ON CONFLICT DO NOTHING"


_EVENT = _append("event", rows.EVENT)
_LOSS = _append("loss", rows.LOSS)
_EVIDENCE = _append("evidence", rows.EVIDENCE)


class SqliteStore:
    """`store.protocol.Store` in a data directory. One thread at a time; `reader()` serves the others."""

    def __init__(self, path: Path, lock: int, db: sqlite3.Connection) -> None:
        self._path = path
        self._lock = lock
        self._db = db
        self._names = blocks.Names()
        self._thinning = thinning.Thinning(self._names)
        self._numbers: Numbers | None = Numbers.load(db)
        self._wal_bytes = 0
        self._wal_wait_at = WAL_BYTES_MAX
        self._closed = False

    @classmethod
    def open(cls: type[S], data_dir: str | os.PathLike[str], *, synced: bool = False) -> S:
        """Open or create the data of a daemon, and lock it against a second one.

        Raises:
            GradwatchError: `data-dir-unusable`: not writable, locked (by which pid), of a newer version, or not ours.
        """
        path = Path(data_dir)
        lock = directory.lock_directory(path)
        try:
            return cls(path, lock, directory.open_writer(path, synced=synced))
        except BaseException:
            os.close(lock)
            raise

    @contextmanager
    def _transaction(self) -> Iterator[Numbers]:
        """All or nothing; after a failure the numbering and what retention is at are read again, for they may name what never
        came to be."""
        if self._closed:
            raise GradwatchError("not-ready", where="store", expected="an open store", got="a closed one")
        try:
            if self._numbers is None:
                self._numbers = Numbers.load(self._db)
            self._db.execute("BEGIN IMMEDIATE")
            yield self._numbers
            self._db.execute("COMMIT")
        except BaseException as error:
            self._numbers = None
            self._thinning = thinning.Thinning(self._names)
            with suppress(sqlite3.Error):
                self._db.rollback()
            if isinstance(error, sqlite3.Error) and not isinstance(error, (sqlite3.ProgrammingError, sqlite3.IntegrityError)):
                raise directory.unusable(self._path / directory.DATABASE, "a commit", error) from error
            raise

    def commit(self, batch: Commit) -> None:
        """Write the whole batch in one transaction, or nothing.

        A checkpoint covers every row of its stream up to and including this batch.

        Raises:
            GradwatchError: `data-dir-unusable`: nothing was written (disk full, I/O error); the same batch may be tried again.
        """
        db = self._db
        with self._transaction() as numbers:
            written = sum(self._write_block(numbers, block) for block in batch.blocks)
            db.executemany(_RUN, map(rows.run_row, batch.runs))
            for session in batch.sessions:
                db.execute(_SESSION, rows.session_row(session, numbers.place(db, session.stream).number))
            db.executemany(_ANOMALY, map(rows.anomaly_row, batch.anomalies))
            db.executemany(_ESCALATION, map(rows.escalation_row, batch.escalations))
            db.executemany(_ATTENTION, map(rows.attention_row, batch.attention))
            db.executemany(_SILENCE, map(rows.silence_row, batch.silences))
            write_deliveries(db, batch.deliveries)
            db.executemany(_COMMAND, map(control.command_row, batch.commands))
            for event in batch.events:
                db.execute(_EVENT, rows.event_row(event, numbers.place(db, event.stream).number))
            for loss in batch.losses:
                db.execute(_LOSS, rows.loss_row(loss, numbers.place(db, loss.stream).number))
            for table in batch.tables:
                db.execute(_EVIDENCE, rows.table_row(table, numbers.place(db, table.stream).number))
                written += len(table.values)
            for stream, data in batch.waiting:
                place = numbers.place(db, stream)
                db.execute(_WAITING if data else _WAITED, (place.number, data) if data else (place.number,))
                written += len(data)
            for point in batch.checkpoints:
                place = numbers.place(db, point.stream)
                db.execute(_CHECKPOINT, (place.number, point.update, place.rows, point.rules_hash, point.state))
                written += len(point.state)
        self._wal_bytes += written + COMMIT_BYTES
        if self._wal_bytes > 4 * WAL_BYTES:
            self._checkpoint_wal()

    def _write_block(self, numbers: Numbers, block: SignalBlock) -> int:
        """Append a block as tails, cut where a chunk ends so that compaction never has to; returns bytes written."""
        db, place, written, done = self._db, numbers.place(self._db, block.stream), 0, 0
        set_id = numbers.set_number(db, block.signals) if len(block) else 0
        while done < len(block):
            count = min(len(block) - done, CHUNK_ROWS - place.rows % CHUNK_ROWS)
            part = block if count == len(block) else block.select(slice(done, done + count))
            data = encode_tail(part)
            first = row_key(place.number, place.rows)
            db.execute(_TAIL, (first, set_id, count, int(part.update.min()), int(part.update.max()), data))
            place.rows += count
            done += count
            written += len(data)
        if place.full:
            numbers.full.add(block.stream)
        return written

    def compact(self) -> int:
        """Turn full tails into chunks and roll-ups, at most `CHUNKS_PER_CALL`; returns the number of chunks written.

        Called between commits, again at once while it returns that many. Also where the WAL goes into the database.

        Raises:
            GradwatchError: `data-dir-unusable`, as `commit`; what was stored is unchanged.
        """
        made = 0
        if self._numbers is None or self._numbers.full:
            with self._transaction() as numbers:
                for stream in list(numbers.full):
                    place = numbers.streams[stream]
                    while place.full and made < CHUNKS_PER_CALL:
                        self._write_chunk(place.number, place.chunks)
                        place.chunks += 1
                        made += 1
                    if not place.full:
                        numbers.full.discard(stream)
        if self._wal_bytes > WAL_BYTES:
            self._checkpoint_wal()
        return made

    def _write_chunk(self, number: int, chunk: int) -> None:
        db, names = self._db, self._names
        first, end = chunk * CHUNK_ROWS, (chunk + 1) * CHUNK_ROWS
        parts = blocks.read_tails(db, names, number, first, end)
        encoded = encode_chunk([(set_id, names.members_of(db, set_id), of_set) for set_id, of_set in parts])
        db.execute("DELETE FROM tail WHERE id >= ? AND id < ?", (row_key(number, first), row_key(number, end)))
        key = row_key(number, chunk)
        db.execute(_CHUNK, (key, encoded.update_min, encoded.update_max, encoded.sets, encoded.marks))
        db.execute(_COLUMNS, (key, encoded.columns))
        pieces = sorted((piece_key(number, signal, chunk), *piece) for signal, (piece, _) in encoded.pieces.items())
        db.executemany(_PIECE, pieces)
        db.executemany(_SUMMARY, ((number, signal, *totals) for signal, (_, totals) in encoded.pieces.items()))
        self._wal_bytes += len(pieces) * 2 * 4096 + len(encoded.columns)

    def thin(self, keep: Keep, now_ns: int) -> dict[Stream, int]:
        """Leave of chunks that `keep` does not cover their roll-ups, a step of `Thinning` at a time; rows by stream.

        Raises:
            GradwatchError: `data-dir-unusable`, as `commit`; nothing was thinned.
        """
        with self._transaction():
            counts, tables = self._thinning.step(self._db, keep, now_ns)
        self._wal_bytes += sum(counts.values()) * THINNED_ROW_BYTES + tables * 4096
        return counts

    def thinned(self) -> dict[Stream, int]:
        """Rows of each stream of which only roll-ups are left."""
        streams = self._streams()
        return {streams[number]: rows for number, rows in thinning.thinned_rows(self._db).items()}

    def raw_begin(self, stream: Stream) -> int:
        """How many rows of a stream come before those from which on none was thinned."""
        number = blocks.stream_number(self._db, stream)
        return 0 if number is None else blocks.row_begin(self._db, number)

    def size_bytes(self) -> int:
        """Pages in use, the free ones in the file not counted."""
        return thinning.size_bytes(self._db)

    def _checkpoint_wal(self) -> None:
        """Move the WAL into the database; a failure only leaves it longer."""
        with suppress(sqlite3.Error):
            _, pages, _ = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages * 4096 > self._wal_wait_at:
                self._db.execute(f"PRAGMA busy_timeout = {WAL_WAIT_MS}")
                busy, pages, _ = self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
                # A reader that stays would cost every 4 MiB that wait.
                self._wal_wait_at = pages * 4096 + WAL_BYTES_MAX if busy else WAL_BYTES_MAX
        with suppress(sqlite3.Error):
            self._db.execute(f"PRAGMA busy_timeout = {int(directory.BUSY_TIMEOUT_S * 1000)}")
        self._wal_bytes = 0

    def runs(self) -> list[Run]:
        """All runs, in order of their names."""
        return [rows.run_of(row) for row in self._db.execute(f"SELECT {', '.join(rows.RUN)} FROM run ORDER BY run")]

    def session(self, id_: str) -> Session | None:
        """What is recorded of one process; None for one that never greeted."""
        found = self._db.execute(f"SELECT {', '.join(rows.SESSION)} FROM session WHERE session = ?", (id_,)).fetchone()
        if found is None:
            return None
        stream = self._db.execute("SELECT run, attempt, rank FROM stream WHERE id = ?", (found[1],)).fetchone()
        return rows.session_of(found, Stream(*stream))

    def open_anomalies(self) -> list[Anomaly]:
        """Pending and firing ones, oldest first."""
        query = f"SELECT {', '.join(rows.ANOMALY)} FROM anomaly WHERE state <> 'resolved' ORDER BY t_ns, id"
        return [rows.anomaly_of(row) for row in self._db.execute(query)]

    def anomaly(self, id_: str) -> Anomaly | None:
        """One anomaly."""
        found = self._db.execute(f"SELECT {', '.join(rows.ANOMALY)} FROM anomaly WHERE id = ?", (id_,)).fetchone()
        return None if found is None else rows.anomaly_of(found)

    def attention(self, anomalies: Sequence[str]) -> dict[str, Attention]:
        """What people did about the anomalies with these ids; those nobody looked at are left out."""
        return read_attention(self._db, anomalies)

    def silences(self) -> list[Silence]:
        """All silences, active or over, newest first."""
        return read_silences(self._db)

    def silence(self, id_: str) -> Silence | None:
        """One silence."""
        return read_silence(self._db, id_)

    def deliveries(self) -> list[Delivery]:
        """What people were told and are to be told, newest first."""
        return read_deliveries(self._db)

    def open_escalations(self) -> list[Escalation]:
        """Those that anything may still become of, oldest first."""
        return read_open_escalations(self._db)

    def escalation(self, run: str, id_: str) -> Escalation | None:
        """One escalation of a run."""
        return read_escalation(self._db, run, id_)

    def open_commands(self) -> list[CommandRecord]:
        """Those that anything may still become of, oldest first."""
        return control.read_open_commands(self._db)

    def command(self, run: str, id_: str) -> CommandRecord | None:
        """One command of a run."""
        return control.read_command(self._db, run, id_)

    def checkpoint(self, stream: Stream) -> Checkpoint | None:
        """The newest checkpoint of a stream."""
        found = self._saved(stream)
        return None if found is None else Checkpoint(stream, found[0], found[2], found[3])

    def _saved(self, stream: Stream) -> tuple[int, int, str, bytes] | None:
        number = blocks.stream_number(self._db, stream)
        query = "SELECT update_at, rows, rules_hash, state FROM checkpoint WHERE stream = ?"
        found: tuple[int, int, str, bytes] | None = self._db.execute(query, (number,)).fetchone()
        return found

    def blocks_after(self, stream: Stream, update: int) -> Iterator[SignalBlock]:
        """Stored rows of updates above `update`, in order of arrival, exactly as they were detected on; from `raw_begin` on."""
        return blocks.read_blocks(self._db, self._names, stream, first=self.raw_begin(stream), after=update)

    def blocks_since_checkpoint(self, stream: Stream) -> Iterator[SignalBlock]:
        """Rows that arrived after those the newest checkpoint covers; all rows where there is none."""
        found = self._saved(stream)
        return blocks.read_blocks(self._db, self._names, stream, first=0 if found is None else found[1])

    def marks(self, stream: Stream) -> list[EventRecord]:
        """The events that detection made of a stream (kinds `gap` and `tick`, seq -1), oldest first."""
        return events.read_marks(self._db, stream)

    def pauses(self) -> list[EventRecord]:
        """The events of kind `phase` of all runs, oldest first."""
        return events.read_pauses(self._db)

    def waiting(self) -> list[tuple[Stream, bytes]]:
        """The rows of ranks that are not combined yet, by the stream of the combined ones."""
        streams = self._streams()
        found = self._db.execute("SELECT stream, data FROM waiting ORDER BY stream")
        return [(streams[number], data) for number, data in found]

    def row_counts(self) -> dict[Stream, tuple[int, int]]:
        """Rows and the largest update (or -1) of each stream."""
        newest: dict[int, int] = {}
        for table in ("chunk", "tail"):
            for number, update in self._db.execute(f"SELECT id >> 45, max(update_max) FROM {table} GROUP BY id >> 45"):
                newest[number] = max(newest.get(number, update), update)
        streams = self._streams().items()
        return {stream: (blocks.row_end(self._db, number), newest.get(number, -1)) for number, stream in streams}

    def lost_count(self, run: str) -> int:
        """Records of a run covered by a LOSS; where two overlap, counted once."""
        return events.count_lost(self._db, run)

    def _streams(self) -> dict[int, Stream]:
        return {
            number: Stream(*key) for number, *key in self._db.execute("SELECT id, run, attempt, rank FROM stream ORDER BY id")
        }

    def reader(self) -> SqliteReader:
        """A reader for any threads; close it before the store."""
        return SqliteReader(self._path / directory.DATABASE)

    def close(self) -> None:
        """Bring the WAL into the database and give the directory free. Again is harmless."""
        if not self._closed:
            self._closed = True
            self._db.close()
            os.close(self._lock)
