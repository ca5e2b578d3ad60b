"""Rows as they are committed: one blob of fixed layout for each block of one signal set."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from gradwatch_daemon.records import F32, I64, U8, SignalBlock


class Rows(NamedTuple):
    """Consecutive rows of one signal set: i64[n], u8[n], and `values` f32[signals, n], `status` u8[signals, n]."""

    update: I64
    t_ns: I64
    env_steps: I64
    level: U8
    flags: U8
    values: F32
    status: U8


def tail_bytes(n: int, signals: int) -> int:
    """Length of an encoded tail."""
    return n * (26 + 5 * signals)


def encode_tail(block: SignalBlock) -> bytes:
    """Update, t_ns, env_steps, values signal by signal, level, flags, status signal by signal; nothing else.

    Raises:
        ValueError: the arrays of the block do not fit each other.
    """
    data = b"".join(
        (
            block.update.astype("<i8", copy=False).tobytes(),
            block.t_ns.astype("<i8", copy=False).tobytes(),
            block.env_steps.astype("<i8", copy=False).tobytes(),
            block.values.astype("<f4", copy=False).tobytes(),
            block.level.tobytes(),
            block.flags.tobytes(),
            block.status.tobytes(),
        )
    )
    shape = (len(block.signals), len(block.update))
    if len(data) != tail_bytes(shape[1], shape[0]) or block.values.shape != shape or block.status.shape != shape:
        raise ValueError(
            f"block of {shape[0]} signals x {shape[1]} rows: values {block.values.shape}, status {block.status.shape}"
        )
    return data


def decode_tails(blobs: Sequence[bytes], n: int, signals: int) -> Rows:
    """The rows of several tails of the same `n` and signal set, in order; one pass however many there are."""
    count, size = len(blobs), tail_bytes(n, signals)
    table = np.frombuffer(b"".join(blobs), np.uint8).reshape(count, size)

    def field(at: int, width: int, dtype: str) -> NDArray[np.generic]:
        return np.ascontiguousarray(table[:, at : at + width]).view(dtype)

    grid, ends = 4 * n * signals, 24 * n
    values = field(ends, grid, "<f4").reshape(count, signals, n).transpose(1, 0, 2).reshape(signals, count * n)
    status = field(ends + grid + 2 * n, n * signals, "u1").reshape(count, signals, n).transpose(1, 0, 2)
    return Rows(
        field(0, 8 * n, "<i8").reshape(-1).astype(np.int64, copy=False),
        field(8 * n, 8 * n, "<i8").reshape(-1).astype(np.int64, copy=False),
        field(16 * n, 8 * n, "<i8").reshape(-1).astype(np.int64, copy=False),
        field(ends + grid, n, "u1").reshape(-1).astype(np.uint8, copy=False),
        field(ends + grid + n, n, "u1").reshape(-1).astype(np.uint8, copy=False),
        values.astype(np.float32, copy=False),
        status.reshape(signals, count * n).astype(np.uint8, copy=False),
    )


def decode_run(tails: Sequence[tuple[int, int, bytes]], members: Callable[[int], tuple[int, ...]]) -> list[tuple[int, Rows]]:
    """(set number, rows) of tails (set number, n, data) in order; neighbours of one set become one."""
    parts = []
    for set_id, of_set in itertools.groupby(tails, key=lambda tail: tail[0]):
        signals = len(members(set_id))
        same = [
            decode_tails([data for _, _, data in alike], n, signals)
            for n, alike in itertools.groupby(of_set, key=lambda tail: tail[1])
        ]
        parts.append((set_id, same[0] if len(same) == 1 else _join(same)))
    return parts


def _join(parts: Sequence[Rows]) -> Rows:
    return Rows(*(np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True)))


def encode_members(numbers: Sequence[int]) -> bytes:
    """Signal numbers of a set, in order."""
    return np.asarray(numbers, "<u4").tobytes()


def decode_members(members: bytes) -> tuple[int, ...]:
    """Signal numbers of a set, in order."""
    return tuple(np.frombuffer(members, "<u4").tolist())
