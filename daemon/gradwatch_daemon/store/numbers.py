"""The writer's numbering of streams, signals and signal sets, kept beside the tables so that commits need no look-up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gradwatch_daemon.records import SignalKey, Stream
from gradwatch_daemon.store.chunks import blocks
from gradwatch_daemon.store.chunks.tail import decode_members, encode_members
from gradwatch_daemon.store.schema import CHUNK_ROWS

if TYPE_CHECKING:
    import sqlite3


@dataclass(slots=True)
class StreamPlace:
    """A stream's number, how many rows it has, and how many chunks."""

    number: int
    rows: int = 0
    chunks: int = 0

    @property
    def full(self) -> bool:
        """Whether its tails hold a whole chunk."""
        return self.rows - self.chunks * CHUNK_ROWS >= CHUNK_ROWS


@dataclass(slots=True)
class Numbers:
    """Numbers as of the open transaction; after a rollback it must be loaded anew."""

    streams: dict[Stream, StreamPlace] = field(default_factory=dict)
    signals: dict[SignalKey, int] = field(default_factory=dict)
    sets: dict[tuple[SignalKey, ...], int] = field(default_factory=dict)
    full: set[Stream] = field(default_factory=set)

    @classmethod
    def load(cls, db: sqlite3.Connection) -> Numbers:
        """Read all of them."""
        numbers = cls()
        for number, *stream in db.execute("SELECT id, run, attempt, rank FROM stream").fetchall():
            chunks = blocks.tail_start(db, number) // CHUNK_ROWS
            place = numbers.streams[Stream(*stream)] = StreamPlace(number, blocks.row_end(db, number), chunks)
            if place.full:
                numbers.full.add(Stream(*stream))
        names = {number: SignalKey(*key) for number, *key in db.execute("SELECT id, name, subject FROM signal")}
        numbers.signals = {key: number for number, key in names.items()}
        for set_id, members in db.execute("SELECT id, members FROM signal_set"):
            numbers.sets[tuple(names[number] for number in decode_members(members))] = set_id
        return numbers

    def place(self, db: sqlite3.Connection, stream: Stream) -> StreamPlace:
        """The place of a stream, made if it is new."""
        if stream not in self.streams:
            made = db.execute("INSERT INTO stream (run, attempt, rank) VALUES (?, ?, ?)", stream)
            self.streams[stream] = StreamPlace(_made(made))
        return self.streams[stream]

    def set_number(self, db: sqlite3.Connection, signals: tuple[SignalKey, ...]) -> int:
        """The number of an ordered set of signals, made if it is new."""
        if signals not in self.sets:
            members = encode_members([self._signal_number(db, SignalKey(*key)) for key in signals])
            self.sets[signals] = _made(db.execute("INSERT INTO signal_set (members) VALUES (?)", (members,)))
        return self.sets[signals]

    def _signal_number(self, db: sqlite3.Connection, key: SignalKey) -> int:
        if key not in self.signals:
            self.signals[key] = _made(db.execute("INSERT INTO signal (name, subject) VALUES (?, ?)", key))
        return self.signals[key]


def _made(cursor: sqlite3.Cursor) -> int:
    if cursor.lastrowid is None:
        raise RuntimeError("an INSERT without a row id")
    return cursor.lastrowid
