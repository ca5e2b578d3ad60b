"""One signal of one stream over a range of updates: where its rows lie, read as coarsely as the answer allows.

Of rows that retention thinned only the roll-ups are left: a range that touches some comes in buckets of 64 rows or more, and
at its ends holds those buckets whole.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gradwatch_daemon.store.chunks import blocks
from gradwatch_daemon.store.chunks.buckets import (
    Chosen,
    Items,
    bucket_rows,
    bucket_series,
    in_order,
    items_of_groups,
    items_of_rows,
    join_items,
    last_row,
    raw_series,
)
from gradwatch_daemon.store.chunks.chunk import decode_status, decode_values
from gradwatch_daemon.store.chunks.rollup import GROUP_ROWS, cut_groups, decode_groups, decode_marks, decode_reasons
from gradwatch_daemon.store.schema import CHUNK_ROWS, chunk_of, piece_key, row_key, row_of

if TYPE_CHECKING:
    import sqlite3

    from numpy.typing import NDArray

    from gradwatch_daemon.records import I64, SignalKey, Stream
    from gradwatch_daemon.store.protocol import Series


class Parts(NamedTuple):
    """The chunks that may hold rows of the range; arrays over chunks, in order.

    `whole`: all rows of it are in the range and its roll-up, `marks` i64[chunks, 16, 3] and `groups` GROUP[chunks, 16], can
    stand for them, or it is `thinned` and nothing else is there; `rows` of it that have the signal.
    """

    chunk: I64
    whole: Chosen
    thinned: Chosen
    rows: I64
    marks: I64
    groups: NDArray[np.void]
    reasons: list[bytes]


class SignalRange:
    """Rows of a signal with an update from `updates[0]` to `updates[1]`, within one read transaction of `db`."""

    def __init__(
        self, db: sqlite3.Connection, names: blocks.Names, stream: Stream, key: SignalKey, updates: tuple[int, int]
    ) -> None:
        self._db, self._names, self._key = db, names, key
        self._first, self._last = updates
        signal = db.execute("SELECT id FROM signal WHERE name = ? AND subject = ?", key).fetchone()
        self._stream = blocks.stream_number(db, stream)
        self._signal = None if signal is None else int(signal[0])

    def series(self, points: int) -> Series:
        """Raw points when there are at most `points` rows and none was thinned, else buckets."""
        if self._stream is None or self._signal is None:
            return raw_series(self._key, join_items([]), {})
        parts = self._parts(self._stream, self._signal)
        if parts is None:
            held, edges = 0, []
        else:
            held = int(parts.rows[parts.whole].sum())
            edges = [self._chunk_rows(self._stream, self._signal, chunk) for chunk in parts.chunk[~parts.whole].tolist()]
        edges.append(self._tail_rows(self._stream, self._signal))
        held += sum(len(items.ordinal) for items in edges)
        if parts is not None and (parts.thinned.any() or held > points * GROUP_ROWS // 2):
            return self._coarse(parts, edges, held, points)
        if parts is not None:
            edges += [self._chunk_rows(self._stream, self._signal, chunk) for chunk in parts.chunk[parts.whole].tolist()]
        items = in_order(edges)
        if held <= points:
            return raw_series(self._key, items, _unmeasured(items))
        size = bucket_rows(items.ordinal, points, _power(held, points))
        return bucket_series(self._key, items, size, _unmeasured(items), last_row(items))

    def _coarse(self, parts: Parts, edges: list[Items], held: int, points: int) -> Series:
        """Buckets of 64 rows and more: whole chunks by their roll-ups, the rest by its rows."""
        first = parts.chunk[parts.whole, None] * CHUNK_ROWS + np.arange(0, CHUNK_ROWS, GROUP_ROWS)
        marks, groups = parts.marks[parts.whole].reshape(-1, 3), parts.groups[parts.whole].reshape(-1)
        items = in_order([items_of_groups(first.reshape(-1), marks, groups), *edges])
        unmeasured = Counter(decode_reasons([parts.reasons[i] for i in np.flatnonzero(parts.whole)]))
        unmeasured.update(_unmeasured(join_items(edges)))
        size = bucket_rows(items.ordinal, points, max(GROUP_ROWS, _power(held, points)))
        thinned, newest = int(parts.rows[parts.thinned].sum()), items
        last_chunk = int(items.ordinal[-1]) // CHUNK_ROWS
        if last_chunk in parts.chunk[parts.thinned]:
            newest = join_items([])
        elif int(items.rows[-1]) > 1 and self._stream is not None and self._signal is not None:
            newest = self._chunk_rows(self._stream, self._signal, last_chunk)
        return replace(bucket_series(self._key, items, size, dict(unmeasured), last_row(newest)), thinned=thinned)

    def _parts(self, stream: int, signal: int) -> Parts | None:
        query = """SELECT id, update_min, update_max, marks, thinned FROM chunk
            WHERE id >= ? AND id < ? AND update_max >= ? AND update_min <= ? ORDER BY id"""
        bounds = row_key(stream, 0), row_key(stream + 1, 0), self._first, self._last
        listed = self._db.execute(query, bounds).fetchall()
        if not listed:
            return None
        query = "SELECT id, groups, reasons FROM piece WHERE id BETWEEN ? AND ?"
        keys = piece_key(stream, signal, row_of(listed[0][0])), piece_key(stream, signal, row_of(listed[-1][0]))
        pieces = {chunk_of(piece[0]): piece for piece in self._db.execute(query, keys)}
        listed = [row for row in listed if row_of(row[0]) in pieces]
        if not listed:
            return None
        ids, lows, highs, marks, gone = zip(*listed, strict=True)
        chunks = [row_of(id_) for id_ in ids]
        low, high, without = np.array(lows, np.int64), np.array(highs, np.int64), np.array(gone, np.bool_)
        entries, groups = decode_marks(marks), decode_groups([pieces[chunk][1] for chunk in chunks])
        reasons = [pieces[chunk][2] or b"" for chunk in chunks]
        inside = (low >= self._first) & (high <= self._last)
        if (without & ~inside).any():
            groups = groups.copy()
            for i in np.flatnonzero(without & ~inside).tolist():
                reasons[i] = cut_groups(groups[i], entries[i, :, 0], highs[i], self._first, self._last)
        rows = groups["rows"]
        # A group that only in part has the signal starts at a row that its mark does not tell.
        clean = ((rows == 0) | (rows == GROUP_ROWS)).all(axis=1)
        counts = rows.sum(axis=1, dtype=np.int64)
        kept = ~without | (counts > 0)  # of a thinned chunk perhaps no entry is in the range
        whole, numbers = (clean & inside) | without, np.array(chunks, np.int64)
        left = [reasons[i] for i in np.flatnonzero(kept)]
        return Parts(numbers[kept], whole[kept], without[kept], counts[kept], entries[kept], groups[kept], left)

    def _chunk_rows(self, stream: int, signal: int, chunk: int) -> Items:
        key = piece_key(stream, signal, chunk)
        status, data = self._db.execute("SELECT status, data FROM piece WHERE id = ?", (key,)).fetchone()
        update, t_ns, env_steps, _, _ = blocks.read_columns(self._db, stream, chunk)
        ordinal = np.arange(chunk * CHUNK_ROWS, (chunk + 1) * CHUNK_ROWS, dtype=np.int64)
        shared = ordinal, update, t_ns, env_steps
        return items_of_rows(shared, decode_values(data), decode_status(status), self._within(update))

    def _tail_rows(self, stream: int, signal: int) -> Items:
        start = blocks.tail_start(self._db, stream)
        items, at = [], start
        for set_id, rows in blocks.read_tails(self._db, self._names, stream, start, blocks.row_end(self._db, stream)):
            count, members = len(rows.update), self._names.members_of(self._db, set_id)
            if signal in members:
                place = members.index(signal)
                shared = np.arange(at, at + count, dtype=np.int64), rows.update, rows.t_ns, rows.env_steps
                chosen = self._within(rows.update)
                items.append(items_of_rows(shared, rows.values[place], rows.status[place], chosen))
            at += count
        return join_items(items)

    def _within(self, update: I64) -> Chosen:
        return (update >= self._first) & (update <= self._last)


def _unmeasured(items: Items) -> dict[int, int]:
    """Rows (not roll-up entries) without a value, by status."""
    rows = np.bincount(items.status[items.measured == 0], minlength=1)
    return {int(code): int(rows[code]) for code in np.flatnonzero(rows)}


def _power(rows: int, points: int) -> int:
    """The smallest power of two that is at least rows / points."""
    return 1 << (-(-rows // points) - 1).bit_length()
