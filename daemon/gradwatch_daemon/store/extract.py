"""One run of a store as a database of its own: rows, marks, anomalies and what people did about them, byte for byte."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from gradwatch_daemon.store import directory
from gradwatch_daemon.store.chunks.chunk import decode_sets
from gradwatch_daemon.store.chunks.tail import decode_members
from gradwatch_daemon.store.recording import open_recording
from gradwatch_daemon.store.schema import row_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_BY_KEY = ("tail", "chunk", "chunk_columns", "piece")
"""Their key begins with the number of the stream."""


def extract_run(source: Path, run: str, target: Path) -> None:
    """Copy a run of a database file, as it is at one moment, into the new database `target`.

    Streams keep their numbers and rows their ordinals, so that a replay of the copy is one of the original. Names of signals
    that only other runs have are left out. The source is read with a connection that cannot write.

    Raises:
        sqlite3.Error: the source is damaged, or the target cannot be written.
    """
    with closing(open_recording(source)) as db, closing(sqlite3.connect(target, isolation_level=None)) as copy:
        directory.migrate(copy)
        copy.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN")
        copy.execute("BEGIN")
        streams = [number for (number,) in db.execute("SELECT id FROM stream WHERE run = ?", (run,))]
        for table, where, given in _parts(db, run, streams):
            columns = [name for _, name, *_ in copy.execute(f"PRAGMA table_info({table})")]
            marks = ", ".join("?" * len(columns))
            listed = ", ".join(columns)
            rows = db.execute(f"SELECT {listed} FROM {table} WHERE {where}", tuple(given))
            copy.executemany(f"INSERT INTO {table} ({listed}) VALUES ({marks})", rows)
        copy.execute("COMMIT")
        db.rollback()


def _parts(db: sqlite3.Connection, run: str, streams: list[int]) -> Iterable[tuple[str, str, list[object]]]:
    """Every table with what of it belongs to the run, those that others refer to first.

    A table is known by its columns, so that one of a later version is not forgotten: what belongs to a run says so by the
    run's name, by a stream's number, or by an anomaly's id.
    """
    sets, signals = _used(db, streams)
    yield "stream", "run = ?", [run]
    yield "signal", _among("id"), [json.dumps(signals)]
    yield "signal_set", _among("id"), [json.dumps(sets)]
    named = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")]
    for table in named:
        columns = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
        if table in ("stream", "signal", "signal_set"):
            continue
        if table in _BY_KEY:
            for number in streams:
                yield table, "id >= ? AND id < ?", [row_key(number, 0), row_key(number + 1, 0)]
        elif "run" in columns:
            yield table, "run = ?", [run]
        elif "stream" in columns:
            yield table, _among("stream"), [json.dumps(streams)]
        elif "anomaly" in columns:
            yield table, "anomaly IN (SELECT id FROM anomaly WHERE run = ?)", [run]


def _among(column: str) -> str:
    """One parameter however many numbers: SQLite takes 32,766, and an expression of depth 1,000."""
    return f"{column} IN (SELECT value FROM json_each(?))"


def _used(db: sqlite3.Connection, streams: list[int]) -> tuple[list[int], list[int]]:
    """The sets of signals that the rows of these streams have, and the signals in them."""
    sets: set[int] = set()
    for number in streams:
        bounds = (row_key(number, 0), row_key(number + 1, 0))
        sets |= {found for (found,) in db.execute("SELECT DISTINCT set_id FROM tail WHERE id >= ? AND id < ?", bounds)}
        for (runs,) in db.execute("SELECT sets FROM chunk WHERE id >= ? AND id < ?", bounds):
            sets |= {int(found) for found, _ in decode_sets(runs)}
    signals: set[int] = set()
    for (found,) in db.execute(f"SELECT members FROM signal_set WHERE {_among('id')}", (json.dumps(sorted(sets)),)):
        signals |= set(decode_members(found))
    for (number,) in db.execute(f"SELECT signal FROM summary WHERE {_among('stream')}", (json.dumps(streams),)):
        signals.add(number)
    return sorted(sets), sorted(signals)
