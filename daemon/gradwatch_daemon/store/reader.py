"""Reading the store from any thread: a pool of connections that cannot write, one in use by one thread at a time."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import Stream
from gradwatch_daemon.store import control, directory, events, rows
from gradwatch_daemon.store.chunks import blocks
from gradwatch_daemon.store.chunks.rollup import Totals, add_totals, decode_value, totals
from gradwatch_daemon.store.chunks.signal_range import SignalRange
from gradwatch_daemon.store.chunks.stretches import read_stretches
from gradwatch_daemon.store.deliveries import count_deliveries, read_deliveries
from gradwatch_daemon.store.escalations import read_escalation, read_escalations
from gradwatch_daemon.store.overlay import read_attention, read_silences
from gradwatch_daemon.store.protocol import SignalSummary

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gradwatch_daemon.records import Anomaly, Escalation, EventRecord, LossRecord, SignalBlock, SignalKey, TableRecord
    from gradwatch_daemon.records.attention import Attention, Silence
    from gradwatch_daemon.records.commands import CommandRecord
    from gradwatch_daemon.records.notices import Delivery
    from gradwatch_daemon.store.protocol import AnomalyFilter, Series, Stretch

_INT64 = -(2**63), 2**63 - 1

ANOMALIES_KEPT = 1024
"""Decoded anomalies kept: the largest page, a few MB. Few of them change between two reads."""


class Decoded:
    """The anomalies read last, by the whole text of their rows. Any thread may use it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[str, Anomaly] = OrderedDict()
        self._guard = threading.Lock()

    def find(self, texts: list[str]) -> dict[str, Anomaly]:
        """Those that are kept."""
        with self._guard:
            found = {text: self._kept[text] for text in texts if text in self._kept}
            for text in found:
                self._kept.move_to_end(text)
        return found

    def keep(self, decoded: dict[str, Anomaly]) -> None:
        """Keep these, and forget those not asked for longest."""
        with self._guard:
            self._kept.update(decoded)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)


class SqliteReader:
    """`store.protocol.StoreReader`. Each call sees one committed state and ends its transaction before it returns."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._names = blocks.Names()
        self._idle: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._closed = False
        self._decoded = Decoded(ANOMALIES_KEPT)

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        with self._guard:
            if self._closed:
                raise GradwatchError("not-ready", where="store", expected="an open reader", got="a closed one")
            db = self._idle.pop() if self._idle else None
        if db is None:
            db = directory.open_reader(self._file)
        try:
            db.execute("BEGIN")
            yield db
        finally:
            db.rollback()
            with self._guard:
                if not self._closed:
                    self._idle.append(db)
                    db = None
            if db is not None:
                db.close()

    def signals(self, run: str, attempt: int, rank: int) -> list[SignalSummary]:
        """Every signal a stream has, in order of first appearance in the store; empty for an unknown stream."""
        with self._snapshot() as db:
            number = blocks.stream_number(db, Stream(run, attempt, rank))
            if number is None:
                return []
            query = """SELECT signal, update_last, status_last, value_last, measured, nonfinite FROM summary WHERE stream = ?"""
            found = {signal: Totals(*totals) for signal, *totals in db.execute(query, (number,))}
            start = blocks.tail_start(db, number)
            for set_id, tail in blocks.read_tails(db, self._names, number, start, blocks.row_end(db, number)):
                members = self._names.members_of(db, set_id)
                for signal, newer in zip(members, totals(tail.update, tail.values, tail.status), strict=True):
                    found[signal] = add_totals(found[signal], newer) if signal in found else newer
            return [_summary(self._names.key_of(db, signal), found[signal]) for signal in sorted(found)]

    def series(self, stream: Stream, key: SignalKey, first: int | None, last: int | None, points: int) -> Series:
        """A signal over updates `first` to `last` (both included, None for no bound) as at most `points` points.

        Raw when the range has no more rows than that, else buckets. An unknown stream or signal gives an empty series.

        Raises:
            GradwatchError: `invalid-argument`: `points` below 1.
        """
        if points < 1:
            raise GradwatchError("invalid-argument", where="points", expected="1 or more", got=str(points))
        with self._snapshot() as db:
            updates = _INT64[0] if first is None else _bounded(first), _INT64[1] if last is None else _bounded(last)
            return SignalRange(db, self._names, stream, key, updates).series(points)

    def anomalies(self, wanted: AnomalyFilter) -> list[Anomaly]:
        """Anomalies that match, newest first by (t_ns, id), after the cursor.

        A row that did not change gives the same object again, so that whoever describes it can keep the description.
        """
        terms: list[str] = []
        values: list[str | int] = []
        for name, value in (("run", wanted.run), ("severity", wanted.severity), ("state", wanted.state)):
            if value is not None:
                terms.append(f"{name} = ?")
                values.append(value)
        for word, runs in (("IN", wanted.among), ("NOT IN", wanted.apart)):
            if runs is not None:
                terms.append(f"run {word} (SELECT value FROM json_each(?))")
                values.append(json.dumps(runs))
        if wanted.kind is not None:
            # As text: SQLite before 3.42 reads no JSON that holds NaN, the limit of a finding without one.
            terms.append("(kind = ? OR instr(attached, ?))")
            values.extend((wanted.kind, rows.attached_begin(wanted.kind)))
        if wanted.since_ns is not None:
            terms.append("t_ns >= ?")
            values.append(_bounded(wanted.since_ns))
        if wanted.cursor is not None:
            terms.append("(t_ns, id) < (?, ?)")
            values.extend((_bounded(wanted.cursor[0]), wanted.cursor[1]))
        where = f"WHERE {' AND '.join(terms)}" if terms else ""
        chosen = f"FROM anomaly {where} ORDER BY t_ns DESC, id DESC LIMIT ?"
        bound = (*values, max(wanted.limit, 0))
        with self._snapshot() as db:
            if wanted.limit > ANOMALIES_KEPT:
                return [rows.anomaly_of(row) for row in db.execute(f"SELECT {', '.join(rows.ANOMALY)} {chosen}", bound)]
            # Python gives up its lock at every row of a result, and beside a busy pipeline thread waits ms to get it
            # back: one row of all texts. (SQLite keeps the order of a subquery that has a LIMIT.)
            query = f"SELECT group_concat(row_text, char(10)) FROM (SELECT {rows.ANOMALY_TEXT} AS row_text {chosen})"
            (joined,) = db.execute(query, bound).fetchone()
            return self._decode(db, joined.split("\n") if joined else [])

    def _decode(self, db: sqlite3.Connection, texts: list[str]) -> list[Anomaly]:
        """The anomalies with these row texts, which are of the state that `db` is reading."""
        found = self._decoded.find(texts)
        missing = {json.loads(text)[0]: text for text in texts if text not in found}
        if missing:
            query = f"SELECT {', '.join(rows.ANOMALY)} FROM anomaly WHERE id IN (SELECT value FROM json_each(?))"
            read = [rows.anomaly_of(row) for row in db.execute(query, (json.dumps(list(missing)),))]
            new = {missing[anomaly.id]: anomaly for anomaly in read}
            self._decoded.keep(new)
            found.update(new)
        return [found[text] for text in texts]

    def anomaly(self, id_: str) -> Anomaly | None:
        """One anomaly."""
        with self._snapshot() as db:
            found = db.execute(f"SELECT {', '.join(rows.ANOMALY)} FROM anomaly WHERE id = ?", (id_,)).fetchone()
        return None if found is None else rows.anomaly_of(found)

    def escalations(self, run: str) -> list[Escalation]:
        """All escalations of a run, newest first."""
        with self._snapshot() as db:
            return read_escalations(db, run)

    def escalation(self, run: str, id_: str) -> Escalation | None:
        """One escalation of a run."""
        with self._snapshot() as db:
            return read_escalation(db, run, id_)

    def attention(self, anomalies: Sequence[str]) -> dict[str, Attention]:
        """What people did about the anomalies with these ids; those nobody looked at are left out."""
        with self._snapshot() as db:
            return read_attention(db, anomalies)

    def silences(self) -> list[Silence]:
        """All silences, active or over, newest first."""
        with self._snapshot() as db:
            return read_silences(db)

    def commands(self, run: str) -> list[CommandRecord]:
        """All commands of a run, newest first."""
        with self._snapshot() as db:
            return control.read_commands(db, run)

    def command(self, run: str, id_: str) -> CommandRecord | None:
        """One command of a run."""
        with self._snapshot() as db:
            return control.read_command(db, run, id_)

    def shadows(self, run: str) -> dict[str, int]:
        """How often each verb would have been asked for in a run, by actions that are not enabled."""
        with self._snapshot() as db:
            return events.count_shadows(db, run)

    def delivery_counts(self) -> dict[tuple[str, str], int]:
        """How many deliveries are kept, by channel and state."""
        with self._snapshot() as db:
            return count_deliveries(db)

    def deliveries(self) -> list[Delivery]:
        """What people were told and are to be told, newest first."""
        with self._snapshot() as db:
            return read_deliveries(db)

    def events(self, run: str, limit: int) -> list[EventRecord]:
        """The newest `limit` events of a run in any attempt and rank, newest first."""
        with self._snapshot() as db:
            return [rows.event_of(row, stream) for stream, row in self._of_run(db, "event", rows.EVENT, run, limit)]

    def losses(self, run: str) -> list[LossRecord]:
        """All losses of a run, oldest first."""
        with self._snapshot() as db:
            found = [rows.loss_of(row, stream) for stream, row in self._of_run(db, "loss", rows.LOSS, run, -1)]
        return found[::-1]

    def tables(self, run: str, limit: int) -> list[TableRecord]:
        """The newest `limit` tables of a run, newest first."""
        with self._snapshot() as db:
            return [rows.table_of(row, stream) for stream, row in self._of_run(db, "evidence", rows.EVIDENCE, run, limit)]

    def table_updates(self, stream: Stream, kind: str) -> list[int]:
        """The updates of a stream that have a table of a kind, ascending, each once."""
        with self._snapshot() as db:
            query = "SELECT DISTINCT update_at FROM evidence WHERE stream = ? AND kind = ? ORDER BY update_at"
            return [update for (update,) in db.execute(query, (blocks.stream_number(db, stream), kind))]

    def tables_at(self, stream: Stream, kind: str, updates: Sequence[int]) -> list[TableRecord]:
        """The tables of a kind of these updates, by update; of several of one update that which came last."""
        with self._snapshot() as db:
            # Of the columns beside a single max() SQLite gives those of its row.
            query = f"""SELECT {", ".join(rows.EVIDENCE)}, max(id) FROM evidence WHERE stream = ? AND kind = ?
                AND update_at IN (SELECT value FROM json_each(?)) GROUP BY update_at ORDER BY update_at"""
            bound = blocks.stream_number(db, stream), kind, json.dumps(list(updates))
            return [rows.table_of(row[:-1], stream) for row in db.execute(query, bound)]

    def tables_between(self, stream: Stream, kind: str, first: int, last: int, limit: int) -> list[TableRecord]:
        """The last `limit` tables of a kind and of updates `first` to `last`, both included, in order of arrival."""
        with self._snapshot() as db:
            query = f"""SELECT {", ".join(rows.EVIDENCE)} FROM evidence WHERE stream = ? AND kind = ?
                AND update_at BETWEEN ? AND ? ORDER BY id DESC LIMIT ?"""
            bound = blocks.stream_number(db, stream), kind, _bounded(first), _bounded(last), limit
            return [rows.table_of(row, stream) for row in db.execute(query, bound)][::-1]

    def blocks_between(self, stream: Stream, first: int, last: int, limit: int) -> list[SignalBlock]:
        """Stored rows of updates `first` to `last`, both included, in order of arrival; the last `limit` of them."""
        with self._snapshot() as db:
            return blocks.read_between(db, self._names, stream, (_bounded(first), _bounded(last)), limit)

    def stretches(self, stream: Stream) -> list[Stretch]:
        """All rows of a stream as stretches, in order of arrival; empty for an unknown one."""
        with self._snapshot() as db:
            return read_stretches(db, self._names, stream)

    def _of_run(
        self, db: sqlite3.Connection, table: str, columns: tuple[str, ...], run: str, limit: int
    ) -> list[tuple[Stream, rows.Row]]:
        listed = ", ".join(f"{table}.{name}" for name in columns)
        query = f"""SELECT run, attempt, rank, {listed} FROM {table} JOIN stream ON stream.id = {table}.stream
            WHERE stream.run = ? ORDER BY {table}.id DESC LIMIT ?"""
        return [(Stream(*row[:3]), row[3:]) for row in db.execute(query, (run, limit))]

    def close(self) -> None:
        """Close every connection, those in use when their call returns. Again is harmless."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for db in idle:
            db.close()


def _bounded(number: int) -> int:
    """The nearest number that an integer column can hold."""
    return min(max(number, _INT64[0]), _INT64[1])


def _summary(key: SignalKey, totals: Totals) -> SignalSummary:
    value = decode_value(totals.value_last)
    return SignalSummary(key, totals.update_last, totals.status_last, value, totals.measured, totals.nonfinite)
