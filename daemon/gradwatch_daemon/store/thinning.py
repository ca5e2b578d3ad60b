"""Retention on SQLite: the rows of a chunk go, its roll-ups stay. The freed pages are used again; the file does not shrink."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
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
        query = f"SELECT {', '.join(rows.ANOMALY)} FROM anomaly WHERE run = ? AND attempt = ? AND rank IN (?, ?)"
        return Around.of(rows.anomaly_of(row) for row in db.execute(query, (*stream, ALL_RANKS)))

    streams = list(facts)
    if keep.bytes_max is not None and size_bytes(db) <= keep.bytes_max:
        keep = replace(keep, bytes_max=None)
    return [(facts[choice.stream][0], choice) for choice in retention.choose(streams, chunks, around, keep, now_ns)]


def thin_chunk(db: sqlite3.Connection, names: Names, number: int, chunk: int) -> None:
    """Take the values of a chunk, signal by signal; what they add up to stays in `groups`, `reasons` and `marks`, and so do the
    update, time and level of each row, which are a few bytes: how the run went is known for good."""
    key = row_key(number, chunk)
    (sets,) = db.execute("SELECT sets FROM chunk WHERE id = ?", (key,)).fetchone()
    signals = {signal for set_id, _ in decode_sets(sets) for signal in names.members_of(db, set_id)}
    keys = sorted(piece_key(number, signal, chunk) for signal in signals)
    db.executemany("UPDATE piece SET status = NULL, data = NULL WHERE id = ?", ((piece,) for piece in keys))
    db.execute("UPDATE chunk SET thinned = 1 WHERE id = ?", (key,))


def thinned_rows(db: sqlite3.Connection) -> dict[int, int]:
    """Rows that were thinned, by stream number."""
    counts: dict[int, int] = {}
    for (id_,) in db.execute("SELECT id FROM chunk WHERE thinned = 1"):
        counts[stream_of(id_)] = counts.get(stream_of(id_), 0) + CHUNK_ROWS
    return counts


def size_bytes(db: sqlite3.Connection) -> int:
    """Pages in use: those that thinning freed are used again before the file grows."""
    pages, free, size = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
