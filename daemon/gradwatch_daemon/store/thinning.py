"""Retention on SQLite: the rows and tables of a chunk go, its roll-ups stay.

The freed pages are used again; the file does not shrink.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

from gradwatch_daemon.records import ALL_RANKS, Stream
from gradwatch_daemon.store import retention, rows
from gradwatch_daemon.store.chunks.chunk import decode_sets
from gradwatch_daemon.store.chunks.rollup import decode_marks
from gradwatch_daemon.store.retention import Around, RawChunk
from gradwatch_daemon.store.schema import CHUNK_ROWS, piece_key, row_key, row_of, stream_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from gradwatch_daemon.store.chunks.blocks import Names
    from gradwatch_daemon.store.protocol import Keep
    from gradwatch_daemon.store.retention import Choice

_RAW = """SELECT id, update_min, update_max, marks FROM chunk INDEXED BY chunk_raw
    WHERE thinned = 0 AND id >= ? AND id < ? ORDER BY id"""


def choose(db: sqlite3.Connection, keep: Keep, now_ns: int) -> list[tuple[int, Choice]]:
    """What to thin now, each with the number of its stream, at most `CHUNKS_PER_CALL`."""
    query = """SELECT stream.id, stream.run, attempt, rank, first_seen_ns, rows FROM stream
        JOIN (SELECT run, first_seen_ns FROM run) USING (run) LEFT JOIN checkpoint ON checkpoint.stream = stream.id"""
    facts = {Stream(*key): (number, seen, covered) for number, *key, seen, covered in db.execute(query).fetchall()}

    def chunks(stream: Stream) -> Iterator[RawChunk]:
        number, first_seen_ns, covered = facts[stream]
        for id_, low, high, marks in db.execute(_RAW, (row_key(number, 0), row_key(number + 1, 0))):
            if covered is not None and (row_of(id_) + 1) * CHUNK_ROWS > covered:
                return
            yield RawChunk(row_of(id_), low, high, max(int(decode_marks([marks])[0, -1, 1]), first_seen_ns))

    @cache
    def around(stream: Stream) -> Around:
        return _around(db, stream)

    streams = list(facts)
    if keep.bytes_max is not None and size_bytes(db) <= keep.bytes_max:
        keep = replace(keep, bytes_max=None)
    return [(facts[choice.stream][0], choice) for choice in retention.choose(streams, chunks, around, keep, now_ns)]


def _around(db: sqlite3.Connection, stream: Stream) -> Around:
    query = f"SELECT {', '.join(rows.ANOMALY)} FROM anomaly WHERE run = ? AND attempt = ? AND rank IN (?, ?)"
    return Around.of(rows.anomaly_of(row) for row in db.execute(query, (*stream, ALL_RANKS)))


TABLE_BYTES_PER_STEP = 4 * 1024 * 1024
"""Of tables, a page at least for each: about 20 ms, and commits wait for it. A run at DEBUG may have 500 MB in four chunks,
which took 3.5 s at once."""


ENDING = 2
"""`thinned` of a chunk whose rows are gone and whose tables are not all, 0 where it has its rows, 1 where all is done."""


class Thinning:
    """Retention of one store in steps of at most `retention.CHUNKS_PER_CALL` chunks and `TABLE_BYTES_PER_STEP` of tables.

    The rows of a chunk go before its tables, so that no rows stay which tables are missing beside. What is begun is ended,
    whatever is chosen then; the store itself says what that is, so that a restart goes on. A step that is rolled back makes
    what is known here wrong: go on with another one.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._ending: dict[int, Stream] | None = None
        """Stream of each chunk that is `ENDING`, by its key; None until it is read from the store."""

    def step(self, db: sqlite3.Connection, keep: Keep, now_ns: int) -> tuple[dict[Stream, int], int]:
        """Thin a little; rows by stream, none at all where all is done, and the number of tables taken. A stream with 0 rows
        had more tables."""
        if self._ending is None:
            self._ending = ending_chunks(db)
        counts = dict.fromkeys(self._ending.values(), 0)
        tables, left = 0, TABLE_BYTES_PER_STEP
        for key, stream in chain(list(self._ending.items()), self._begin(db, keep, now_ns)):
            counts[stream] = counts.get(stream, 0) + (0 if key in self._ending else CHUNK_ROWS)
            count, size = take_tables(db, key, stream, left)
            tables, left = tables + count, left - size
            if left <= 0:
                self._ending[key] = stream
                break
            db.execute("UPDATE chunk SET thinned = 1 WHERE id = ?", (key,))
            self._ending.pop(key, None)
        return counts, tables

    def _begin(self, db: sqlite3.Connection, keep: Keep, now_ns: int) -> Iterator[tuple[int, Stream]]:
        """Take the rows of what is to be thinned now, one chunk at a time; its key and stream."""
        for number, choice in choose(db, keep, now_ns):
            if choice.old or size_bytes(db) > (keep.bytes_max or 0):
                thin_chunk(db, self._names, number, choice.number)
                yield row_key(number, choice.number), choice.stream


def ending_chunks(db: sqlite3.Connection) -> dict[int, Stream]:
    """Stream of each chunk whose tables are being taken, by its key."""
    streams = {number: Stream(*key) for number, *key in db.execute("SELECT id, run, attempt, rank FROM stream")}
    return {key: streams[stream_of(key)] for (key,) in db.execute("SELECT id FROM chunk WHERE thinned = ?", (ENDING,))}


def take_tables(db: sqlite3.Connection, key: int, stream: Stream, bytes_most: int) -> tuple[int, int]:
    """Delete tables of a chunk's updates, but for those near an anomaly, until they have `bytes_most` bytes; returns how many,
    and their bytes, which are fewer where there are no more."""
    number = stream_of(key)
    first, last = db.execute("SELECT update_min, update_max FROM chunk WHERE id = ?", (key,)).fetchone()
    # A trainer that went back has an update twice: the tables of one whose rows are still there stay too.
    bounds = (row_key(number, 0), row_key(number + 1, 0), last, first)
    held = []
    for table in (f"chunk INDEXED BY chunk_raw WHERE thinned = 0 AND id <> {key} AND", "tail WHERE"):
        query = f"SELECT update_min, update_max FROM {table} id >= ? AND id < ? AND update_min <= ? AND update_max >= ?"
        held += db.execute(query, bounds).fetchall()
    gone: list[tuple[int]] = []
    size = 0
    for updates in retention.outside(first, last, [*_around(db, stream).ranges, *held]):
        for kind in _table_kinds(db, number):
            query = "SELECT id, length(data) FROM evidence WHERE stream = ? AND kind = ? AND update_at BETWEEN ? AND ?"
            for id_, length in db.execute(query, (number, kind, *updates)):
                if size >= bytes_most:
                    break
                gone.append((id_,))
                size += max(length, 4096)
    db.executemany("DELETE FROM evidence WHERE id = ?", gone)
    return len(gone), size


def thin_chunk(db: sqlite3.Connection, names: Names, number: int, chunk: int) -> None:
    """Take the values of a chunk, signal by signal; what they add up to stays in `groups`, `reasons` and `marks`, and so do the
    update, time and level of each row, which are a few bytes: how the run went is known for good. Its tables go next."""
    key = row_key(number, chunk)
    (sets,) = db.execute("SELECT sets FROM chunk WHERE id = ?", (key,)).fetchone()
    signals = {signal for set_id, _ in decode_sets(sets) for signal in names.members_of(db, set_id)}
    keys = sorted(piece_key(number, signal, chunk) for signal in signals)
    db.executemany("UPDATE piece SET status = NULL, data = NULL WHERE id = ?", ((piece,) for piece in keys))
    db.execute("UPDATE chunk SET thinned = ? WHERE id = ?", (ENDING, key))


def _table_kinds(db: sqlite3.Connection, number: int) -> Iterator[str]:
    """The kinds of tables of a stream, each found by one step into the index: there may be as many tables as updates."""
    kind, query = "", "SELECT kind FROM evidence WHERE stream = ? AND kind > ? ORDER BY kind LIMIT 1"
    while found := db.execute(query, (number, kind)).fetchone():
        kind = str(found[0])
        yield kind


def thinned_rows(db: sqlite3.Connection) -> dict[int, int]:
    """Rows that were thinned, by stream number."""
    counts: dict[int, int] = {}
    for (id_,) in db.execute("SELECT id FROM chunk WHERE thinned <> 0"):
        counts[stream_of(id_)] = counts.get(stream_of(id_), 0) + CHUNK_ROWS
    return counts


def size_bytes(db: sqlite3.Connection) -> int:
    """Pages in use: those that thinning freed are used again before the file grows."""
    pages, free, size = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
