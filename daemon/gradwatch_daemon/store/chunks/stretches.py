"""How a stream went, told by its rows: at which level, where updates are missing, where the trainer went back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gradwatch_daemon.store.chunks import blocks
from gradwatch_daemon.store.chunks.chunk import decode_columns
from gradwatch_daemon.store.protocol import Stretch
from gradwatch_daemon.store.schema import row_key

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from gradwatch_daemon.records import I64, U8, Stream


class Course(NamedTuple):
    """Update, time and level of consecutive rows, or of the first and last rows of stretches of them."""

    update: I64
    t_ns: I64
    level: U8


def read_stretches(db: sqlite3.Connection, names: blocks.Names, stream: Stream) -> list[Stretch]:
    """All rows of a stream as stretches, in order of arrival; empty for an unknown one.

    Each chunk is reduced to the ends of its own stretches before the next is read: 1 M rows are some 2,000 ends.
    """
    number = blocks.stream_number(db, stream)
    parts = [] if number is None else [_ends(part) for part in _courses(db, names, number) if len(part.update)]
    if not parts:
        return []
    ends = Course(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    # Pairs of first and last; a border between two parts is one only where the row after it does not follow.
    first, last = slice(2, None, 2), slice(1, -1, 2)
    new = (ends.update[first] != ends.update[last] + 1) | (ends.level[first] != ends.level[last])
    begins, finishes = np.concatenate(([0], 2 * np.flatnonzero(new) + 2)), np.concatenate((2 * np.flatnonzero(new) + 1, [-1]))
    columns = (ends.update[begins], ends.update[finishes], ends.t_ns[begins], ends.t_ns[finishes], ends.level[begins])
    return [Stretch(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _ends(rows: Course) -> Course:
    """The first and the last row of each stretch, one after the other."""
    new = np.flatnonzero((np.diff(rows.update) != 1) | (np.diff(rows.level) != 0))
    at = np.stack((np.concatenate(([0], new + 1)), np.concatenate((new, [len(rows.update) - 1]))), axis=1).reshape(-1)
    return Course(rows.update[at], rows.t_ns[at], rows.level[at])


def _courses(db: sqlite3.Connection, names: blocks.Names, number: int) -> Iterator[Course]:
    query = "SELECT data FROM chunk_columns WHERE id >= ? AND id < ? ORDER BY id"
    for (data,) in db.execute(query, (row_key(number, 0), row_key(number + 1, 0))):
        update, t_ns, _, level, _ = decode_columns(data)
        yield Course(update, t_ns, level)
    start = blocks.tail_start(db, number)
    for _, rows in blocks.read_tails(db, names, number, start, blocks.row_end(db, number)):
        yield Course(rows.update, rows.t_ns, rows.level)
