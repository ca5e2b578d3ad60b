"""The rows of one stream as the memory store keeps them, and the roll-ups of those that were thinned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_daemon.store.chunks.chunk import decode_columns, encode_chunk
from gradwatch_daemon.store.chunks.rollup import GROUP_ROWS, decode_marks
from gradwatch_daemon.store.chunks.tail import Rows
from gradwatch_daemon.store.retention import RawChunk
from gradwatch_daemon.store.schema import CHUNK_ROWS

if TYPE_CHECKING:
    from gradwatch_daemon.records import I64, SignalBlock, SignalKey
    from gradwatch_daemon.store.chunks.chunk import Piece, Shared
    from gradwatch_daemon.store.chunks.rollup import Totals


@dataclass(slots=True)
class StreamRows:
    """The rows of one stream in order of arrival, cut where a chunk ends, each with its ordinal; `rolled` has the roll-ups of
    the chunks whose rows are gone. `totals` is each signal over all rows, in order of first appearance."""

    blocks: list[tuple[int, SignalBlock]] = field(default_factory=list)
    rolled: dict[int, Rolled] = field(default_factory=dict)
    totals: dict[SignalKey, Totals] = field(default_factory=dict)
    count: int = 0
    update_last: int = -1

    @property
    def raw_begin(self) -> int:
        """Rows before those from which on all are there."""
        return CHUNK_ROWS * (max(self.rolled) + 1) if self.rolled else 0

    def _of_chunk(self, number: int) -> list[SignalBlock]:
        return [block for at, block in self.blocks if at // CHUNK_ROWS == number]

    def raw_chunks(self, first_seen_ns: int, covered: int | None) -> list[RawChunk]:
        """Whole chunks that may be thinned, in order of arrival."""
        chunks: list[RawChunk] = []
        for number in range((self.count if covered is None else covered) // CHUNK_ROWS):
            if rows := self._of_chunk(number):
                update, t_ns = (np.concatenate([getattr(block, name) for block in rows]) for name in ("update", "t_ns"))
                made_ns = max(int(t_ns[-GROUP_ROWS]), first_seen_ns)
                chunks.append(RawChunk(number, int(update.min()), int(update.max()), made_ns))
        return chunks

    def thin(self, number: int) -> None:
        """Take the rows of a chunk and keep what they add up to."""
        rows = self._of_chunk(number)
        self.blocks = [(at, block) for at, block in self.blocks if at // CHUNK_ROWS != number]
        keys = list(dict.fromkeys(key for block in rows for key in block.signals))
        parts = [
            (
                0,
                tuple(keys.index(key) for key in block.signals),
                Rows(*(getattr(block, name) for name in Rows._fields)),
            )
            for block in rows
        ]
        chunk = encode_chunk(parts)
        pieces = {keys[place]: piece for place, (piece, _) in chunk.pieces.items()}
        columns = decode_columns(chunk.columns)
        self.rolled[number] = Rolled(chunk.update_min, chunk.update_max, decode_marks([chunk.marks])[0], columns, pieces)


@dataclass(frozen=True, slots=True, eq=False)
class Rolled:
    """A thinned chunk: `marks` i64[16, 3], update, time and level of its rows, and the piece of each signal, of which only the
    roll-up is looked at."""

    update_min: int
    update_max: int
    marks: I64
    columns: Shared
    pieces: dict[SignalKey, Piece]
