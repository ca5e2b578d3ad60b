"""One signal of one stream over a range of updates: where its rows lie, read as coarsely as the answer allows."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_daemon.store.chunks import blocks
from gradwatch_daemon.store.chunks.buckets import (
    Chosen,
    Items,
    bucket_rows,
    bucket_series,
    items_of_groups,
    items_of_rows,
    join_items,
    raw_series,
)
from gradwatch_daemon.store.chunks.chunk import decode_status, decode_values
from gradwatch_daemon.store.chunks.rollup import GROUP_ROWS, decode_groups, decode_marks, decode_reasons
from gradwatch_daemon.store.schema import CHUNK_ROWS, chunk_of, piece_key, row_key, row_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from gradwatch_daemon.records import I64, SignalKey, Stream
    from gradwatch_daemon.store.protocol import Series


@dataclass(frozen=True, slots=True)
class ChunkPart:
    """A chunk that may hold rows of the range. `whole`: all of them are in it and its roll-up can stand for them."""

    chunk: int
    whole: bool
    rows: int
    marks: bytes
    groups: bytes
    reasons: bytes


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
        """Raw points when there are at most `points` rows, else buckets."""
        if self._stream is None or self._signal is None:
            return raw_series(self._key, join_items([]), {})
        parts = self._parts(self._stream, self._signal)
        edges = [self._chunk_rows(self._stream, self._signal, part.chunk) for part in parts if not part.whole]
        tail = self._tail_rows(self._stream, self._signal)
        held = sum(part.rows for part in parts if part.whole) + sum(len(items.ordinal) for items in (*edges, tail))
        if held > points * GROUP_ROWS // 2:
            coarse, unmeasured = self._coarse(parts, edges, tail)
            least = max(GROUP_ROWS, _power(held, points))
            size = bucket_rows(coarse.ordinal, points, least)
            return bucket_series(self._key, coarse, size, unmeasured)
        fine = iter(edges)
        spread = [self._chunk_rows(self._stream, self._signal, part.chunk) if part.whole else next(fine) for part in parts]
        items = join_items([*spread, tail])
        if held <= points:
            return raw_series(self._key, items, _unmeasured(items))
        size = bucket_rows(items.ordinal, points, _power(held, points))
        return bucket_series(self._key, items, size, _unmeasured(items))

    def _parts(self, stream: int, signal: int) -> list[ChunkPart]:
        query = """SELECT id, update_min, update_max, marks FROM chunk
            WHERE id >= ? AND id < ? AND update_max >= ? AND update_min <= ? ORDER BY id"""
        bounds = row_key(stream, 0), row_key(stream + 1, 0), self._first, self._last
        listed = [(row_of(id_), *rest) for id_, *rest in self._db.execute(query, bounds)]
        if not listed:
            return []
        query = "SELECT id, groups, reasons FROM piece WHERE id BETWEEN ? AND ?"
        keys = piece_key(stream, signal, listed[0][0]), piece_key(stream, signal, listed[-1][0])
        pieces = {chunk_of(id_): (groups, reasons or b"") for id_, groups, reasons in self._db.execute(query, keys)}
        listed = [row for row in listed if row[0] in pieces]
        rows = decode_groups([pieces[chunk][0] for chunk, *_ in listed])["rows"]
        # A group that only in part has the signal starts at a row that its mark does not tell.
        clean = ((rows == 0) | (rows == GROUP_ROWS)).all(axis=1).tolist()
        counts = rows.sum(axis=1, dtype=np.int64).tolist()
        return [
            ChunkPart(chunk, clean[i] and self._first <= low and high <= self._last, counts[i], marks, *pieces[chunk])
            for i, (chunk, low, high, marks) in enumerate(listed)
        ]

    def _coarse(self, parts: Sequence[ChunkPart], edges: Sequence[Items], tail: Items) -> tuple[Items, dict[int, int]]:
        """Whole chunks by their roll-ups, the others by their rows; and what was not measured in all of it."""
        fine, items = iter(edges), []
        for whole, alike in itertools.groupby(parts, key=lambda part: part.whole):
            if whole:
                items.append(_entries(list(alike)))
            else:
                items.extend(next(fine) for _ in alike)
        unmeasured = Counter(decode_reasons([part.reasons for part in parts if part.whole]))
        unmeasured.update(_unmeasured(join_items([*edges, tail])))
        return join_items([*items, tail]), dict(unmeasured)

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


def _entries(parts: Sequence[ChunkPart]) -> Items:
    groups = decode_groups([part.groups for part in parts])
    marks = decode_marks([part.marks for part in parts])
    first = np.array([part.chunk for part in parts], np.int64)[:, None] * CHUNK_ROWS
    ordinal = first + np.arange(0, CHUNK_ROWS, GROUP_ROWS)
    return items_of_groups(ordinal.reshape(-1), marks.reshape(-1, 3), groups.reshape(-1))


def _unmeasured(items: Items) -> dict[int, int]:
    """Rows (not roll-up entries) without a value, by status."""
    rows = np.bincount(items.status[items.measured == 0], minlength=1)
    return {int(code): int(rows[code]) for code in np.flatnonzero(rows)}


def _power(rows: int, points: int) -> int:
    """The smallest power of two that is at least rows / points."""
    return 1 << (-(-rows // points) - 1).bit_length()
