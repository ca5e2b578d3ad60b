"""Blocks: the rows of one stream, column-major: one array per field over `n` updates, never one object per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gradwatch_contracts.columns import Schema

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


class Stream(NamedTuple):
    """What a row belongs to, besides its update."""

    run: str
    attempt: int
    rank: int

    @property
    def rank_shown(self) -> int | None:
        """The rank for people and programs; None where it stands for all ranks together."""
        return None if self.rank == ALL_RANKS else self.rank


ALL_RANKS = -1
"""The rank of rows that are combined over the ranks of a run; detection runs on these where there is more than one."""


class SignalKey(NamedTuple):
    """A signal of the registry and the head, layer or key it is about ('' for none)."""

    name: str
    subject: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class RowBlock:
    """Rows of one session as they came: `values` f64[n, slots], `status` u8[n, columns]; `seqs` of the first and last row."""

    stream: Stream
    session: str
    seqs: tuple[int, int]
    schema: Schema
    update: I64
    t_ns: I64
    env_steps: I64
    level: U8
    flags: U8
    values: F64
    status: U8


@dataclass(frozen=True, slots=True, eq=False)
class SignalBlock:
    """Derived signals of n updates: `values` f32[signals, n] and `status` u8[signals, n] (a `columns.Status`).

    Where `status` is not 0, `values` holds 0 and must not be read. A finite f64 beyond the f32 range is stored as the
    largest finite f32 of its sign, so that storage never makes an infinity.
    """

    stream: Stream
    update: I64
    t_ns: I64
    env_steps: I64
    level: U8
    flags: U8
    signals: tuple[SignalKey, ...]
    values: F32
    status: U8

    def __len__(self) -> int:
        return len(self.update)

    def select(self, part: slice) -> SignalBlock:
        """The same signals over a part of the updates."""
        return SignalBlock(
            self.stream,
            self.update[part],
            self.t_ns[part],
            self.env_steps[part],
            self.level[part],
            self.flags[part],
            self.signals,
            self.values[:, part],
            self.status[:, part],
        )
