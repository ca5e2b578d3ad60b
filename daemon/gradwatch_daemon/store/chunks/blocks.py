"""Stored rows read back as the blocks they were, from chunks and tails."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_daemon.records import SignalBlock, SignalKey, Stream
from gradwatch_daemon.store.chunks.chunk import Shared, cut_columns, decode_columns, decode_sets, decode_status, decode_values
from gradwatch_daemon.store.chunks.tail import Rows, decode_members, decode_run
from gradwatch_daemon.store.schema import CHUNK_ROWS, piece_key, row_key, row_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from numpy.typing import NDArray

TAILS = "SELECT set_id, n, data FROM tail WHERE id >= ? AND id < ? ORDER BY id"
"""Tails by their first row; `row_key` gives both bounds."""


@dataclass(slots=True)
class Names:
    """What the numbers of streams, signals and sets mean. Committed rows of these tables never change, so reads are kept."""

    members: dict[int, tuple[int, ...]] = field(default_factory=dict)
    keys: dict[int, SignalKey] = field(default_factory=dict)
    signals: dict[int, tuple[SignalKey, ...]] = field(default_factory=dict)

    def members_of(self, db: sqlite3.Connection, set_id: int) -> tuple[int, ...]:
        """Signal numbers of a set, in its order."""
        if set_id not in self.members:
            (members,) = db.execute("SELECT members FROM signal_set WHERE id = ?", (set_id,)).fetchone()
            self.members[set_id] = decode_members(members)
        return self.members[set_id]

    def key_of(self, db: sqlite3.Connection, number: int) -> SignalKey:
        """Name and subject of a signal."""
        if number not in self.keys:
            self.keys[number] = SignalKey(*db.execute("SELECT name, subject FROM signal WHERE id = ?", (number,)).fetchone())
        return self.keys[number]

    def block(self, db: sqlite3.Connection, stream: Stream, set_id: int, rows: Rows) -> SignalBlock:
        """The rows of a set as a block. The same set gives the same `signals` object: detection knows a layout by it."""
        signals = self.signals.get(set_id)
        if signals is None:
            signals = self.signals[set_id] = tuple(self.key_of(db, number) for number in self.members_of(db, set_id))
        return SignalBlock(stream, *rows[:5], signals, rows.values, rows.status)


def stream_number(db: sqlite3.Connection, stream: Stream) -> int | None:
    """The number of a stream, None if it has no rows, events or anything else."""
    found = db.execute("SELECT id FROM stream WHERE run = ? AND attempt = ? AND rank = ?", stream).fetchone()
    return None if found is None else int(found[0])


def tail_start(db: sqlite3.Connection, number: int) -> int:
    """First row of a stream that is not in a chunk."""
    (last,) = db.execute("SELECT max(id) FROM chunk WHERE id >= ? AND id < ?", _range(number)).fetchone()
    return 0 if last is None else (row_of(last) + 1) * CHUNK_ROWS


def row_end(db: sqlite3.Connection, number: int) -> int:
    """How many rows a stream has: the ordinal of the next one."""
    last = db.execute("SELECT id, n FROM tail WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT 1", _range(number)).fetchone()
    return tail_start(db, number) if last is None else row_of(last[0]) + int(last[1])


def row_begin(db: sqlite3.Connection, number: int) -> int:
    """The ordinal of the row of a stream from which on every row is stored: behind the last chunk that was thinned."""
    query = "SELECT max(id) FROM chunk WHERE id >= ? AND id < ? AND thinned <> 0"
    (last,) = db.execute(query, _range(number)).fetchone()
    return 0 if last is None else (row_of(last) + 1) * CHUNK_ROWS


def _range(number: int) -> tuple[int, int]:
    return row_key(number, 0), row_key(number + 1, 0)


def read_tails(db: sqlite3.Connection, names: Names, number: int, first: int, end: int) -> list[tuple[int, Rows]]:
    """(set number, rows) of the tails that start at row `first` or later and before `end`."""
    tails = db.execute(TAILS, (row_key(number, first), row_key(number, end))).fetchall()
    return decode_run(tails, lambda set_id: names.members_of(db, set_id))


def read_columns(db: sqlite3.Connection, number: int, chunk: int) -> Shared:
    """What the signals of a chunk share."""
    (data,) = db.execute("SELECT data FROM chunk_columns WHERE id = ?", (row_key(number, chunk),)).fetchone()
    return decode_columns(data)


def read_chunk(db: sqlite3.Connection, names: Names, number: int, chunk: int) -> list[tuple[int, Rows]]:
    """(set number, rows) of a chunk, in order of arrival."""
    (sets,) = db.execute("SELECT sets FROM chunk WHERE id = ?", (row_key(number, chunk),)).fetchone()
    shared = read_columns(db, number, chunk)
    runs = decode_sets(sets)
    pieces = {}
    for signal in {signal for set_id, _ in runs for signal in names.members_of(db, set_id)}:
        key = piece_key(number, signal, chunk)
        status, data = db.execute("SELECT status, data FROM piece WHERE id = ?", (key,)).fetchone()
        pieces[signal] = (decode_values(data), decode_status(status))
    parts, at = [], 0
    for set_id, count in runs:
        part = slice(at, at + count)
        members = names.members_of(db, set_id)
        values = np.array([pieces[signal][0][part] for signal in members], np.float32).reshape(len(members), count)
        status = np.array([pieces[signal][1][part] for signal in members], np.uint8).reshape(len(members), count)
        parts.append((set_id, Rows(*cut_columns(shared, part), values, status)))
        at += count
    return parts


def read_blocks(
    db: sqlite3.Connection, names: Names, stream: Stream, first: int = 0, after: int | None = None
) -> Iterator[SignalBlock]:
    """Blocks of a stream from row `first` on, in order of arrival; only rows of updates above `after` if given.

    Rows that were thinned are left out. Commits and compaction between two blocks do no harm: what was read is known by its
    row, not by its place.
    """
    number = stream_number(db, stream)
    row = first
    while number is not None:
        chunk = row // CHUNK_ROWS
        skipped = row - chunk * CHUNK_ROWS
        found = db.execute("SELECT update_max, thinned FROM chunk WHERE id = ?", (row_key(number, chunk),)).fetchone()
        if found is None:
            parts, skipped = read_tails(db, names, number, row, (chunk + 1) * CHUNK_ROWS), 0
        elif found[1] or (after is not None and found[0] <= after):
            parts, row = [], (chunk + 1) * CHUNK_ROWS
            continue
        else:
            parts = read_chunk(db, names, number, chunk)
        if not parts:
            return
        for set_id, rows in parts:
            block, count = names.block(db, stream, set_id, rows), len(rows.update)
            fresh = np.arange(count) >= skipped
            row, skipped = row + max(count - skipped, 0), max(skipped - count, 0)
            kept = _pick(block, fresh if after is None else fresh & (block.update > after))
            if len(kept):
                yield kept


def read_between(
    db: sqlite3.Connection, names: Names, stream: Stream, updates: tuple[int, int], limit: int
) -> list[SignalBlock]:
    """Rows with an update from `updates[0]` to `updates[1]`, in order of arrival; the last `limit` of them."""
    number = stream_number(db, stream)
    if number is None:
        return []
    bounds = (*_range(number), *updates)
    where = "WHERE id >= ? AND id < ? AND update_max >= ? AND update_min <= ?"
    tails = db.execute(f"SELECT set_id, n, data FROM tail {where} ORDER BY id", bounds).fetchall()
    chunks = db.execute(f"SELECT id FROM chunk {where} AND thinned = 0 ORDER BY id DESC", bounds)
    parts = decode_run(tails, lambda set_id: names.members_of(db, set_id))
    found: list[SignalBlock] = []
    while limit > 0:
        for set_id, rows in reversed(parts):
            kept = np.flatnonzero((rows.update >= updates[0]) & (rows.update <= updates[1]))[-limit:] if limit > 0 else ()
            if len(kept):
                found.append(_pick(names.block(db, stream, set_id, rows), np.isin(np.arange(len(rows.update)), kept)))
            limit -= len(kept)
        older = chunks.fetchone()
        if older is None:
            break
        parts = read_chunk(db, names, number, row_of(older[0]))
    return found[::-1]


def _pick(block: SignalBlock, rows: NDArray[np.bool_]) -> SignalBlock:
    if rows.all():
        return block
    columns = (block.update[rows], block.t_ns[rows], block.env_steps[rows], block.level[rows], block.flags[rows])
    return SignalBlock(block.stream, *columns, block.signals, block.values[:, rows], block.status[:, rows])
