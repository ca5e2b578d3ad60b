"""1,024 rows of one stream as bytes, signal by signal."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from gradwatch_daemon.store.chunks.rollup import ABSENT, GROUP_ROWS, Totals, count_reasons, roll_up, totals
from gradwatch_daemon.store.chunks.tail import Rows
from gradwatch_daemon.store.schema import CHUNK_ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gradwatch_daemon.records import F32, I64, U8

_RUN = np.dtype([("set_id", "<u4"), ("rows", "<u4")])

Shared: TypeAlias = "tuple[I64, I64, I64, U8, U8]"
"""Update, t_ns, env_steps, level and flags of consecutive rows."""


class Piece(NamedTuple):
    """One signal of a chunk. None stands for: nothing missing (`reasons`, `status`), all bits zero (`data`)."""

    groups: bytes
    reasons: bytes | None
    status: bytes | None
    data: bytes | None


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """1,024 rows of one stream as bytes: what the signals share, and a piece and totals for each signal number."""

    update_min: int
    update_max: int
    sets: bytes
    marks: bytes
    columns: bytes
    pieces: dict[int, tuple[Piece, Totals]]


def encode_chunk(parts: Sequence[tuple[int, tuple[int, ...], Rows]]) -> Chunk:
    """Turn (set number, its signal numbers, rows) in order of arrival, 1,024 rows in all, into a chunk."""
    columns = [np.concatenate([getattr(rows, name) for _, _, rows in parts]) for name in Rows._fields[:5]]
    update, t_ns, env_steps = columns[:3]
    numbers, values, status = _unite(parts)
    marks = np.stack([column[::GROUP_ROWS] for column in (update, t_ns, env_steps)], axis=1)
    pieces = _encode_pieces(values, status, roll_up(values, status))
    return Chunk(
        int(update.min()),
        int(update.max()),
        np.array([(set_id, len(rows.update)) for set_id, _, rows in parts], _RUN).tobytes(),
        marks.astype("<i8").tobytes(),
        zlib.compress(b"".join([*map(_shuffled_deltas, columns[:3]), columns[3].tobytes(), columns[4].tobytes()]), 6),
        dict(zip(numbers, zip(pieces, totals(update, values, status), strict=True), strict=True)),
    )


def _unite(parts: Sequence[tuple[int, tuple[int, ...], Rows]]) -> tuple[list[int], F32, U8]:
    """All signals of the parts over all rows; where a part lacks a signal its status is ABSENT and its value 0."""
    if len({members for _, members, _ in parts}) == 1:
        return (
            list(parts[0][1]),
            np.concatenate([rows.values for _, _, rows in parts], axis=1),
            np.concatenate([rows.status for _, _, rows in parts], axis=1),
        )
    numbers = sorted({number for _, members, _ in parts for number in members})
    place = {number: i for i, number in enumerate(numbers)}
    values = np.zeros((len(numbers), CHUNK_ROWS), np.float32)
    status = np.full((len(numbers), CHUNK_ROWS), ABSENT, np.uint8)
    at = 0
    for _, members, rows in parts:
        into = np.array([place[number] for number in members], np.intp)
        values[into, at : at + len(rows.update)] = rows.values
        status[into, at : at + len(rows.update)] = rows.status
        at += len(rows.update)
    return numbers, values, status


def _encode_pieces(values: F32, status: U8, groups: NDArray[np.void]) -> list[Piece]:
    bits = values.view(np.uint32)
    least, most = bits.min(axis=1), bits.max(axis=1)
    flat, zero = (least == most).tolist(), (most == 0).tolist()
    state, same = status[:, :1].tobytes(), (status == status[:, :1]).all(axis=1).tolist()
    all_groups, all_values = _cut(groups.tobytes(), len(groups)), _cut(values.tobytes(), len(values))
    pieces = []
    for i, (group, value) in enumerate(zip(all_groups, all_values, strict=True)):
        data = None if zero[i] else value[: values.itemsize] if flat[i] else value
        if not same[i]:
            pieces.append(Piece(group, count_reasons(status[i]), zlib.compress(status[i].tobytes(), 1), data))
        elif state[i]:
            # One byte, and deflated it is never that short.
            pieces.append(Piece(group, count_reasons(status[i]), state[i : i + 1], data))
        else:
            pieces.append(Piece(group, None, None, data))
    return pieces


def _cut(data: bytes, count: int) -> list[bytes]:
    """Bytes in `count` parts of one length."""
    size = len(data) // max(count, 1)
    return [data[i * size : (i + 1) * size] for i in range(count)]


def _shuffled_deltas(column: I64) -> bytes:
    """Steps of a column, sign folded into the low bit, byte planes apart: consecutive updates deflate to nothing.

    Arithmetic is modulo 2**64, so any int64 comes back.
    """
    steps = np.diff(column, prepend=np.int64(0))
    folded = (steps << np.int64(1)) ^ (steps >> np.int64(63))
    planes: U8 = folded.astype("<i8").view(np.uint8).reshape(-1, 8).T
    return planes.tobytes()


def decode_columns(columns: bytes) -> Shared:
    """Update, t_ns, env_steps, level and flags of a chunk."""
    raw = np.frombuffer(zlib.decompress(columns), np.uint8)
    wide, narrow = raw[: 24 * CHUNK_ROWS].reshape(3, 8, CHUNK_ROWS), raw[24 * CHUNK_ROWS :].reshape(2, CHUNK_ROWS)
    folded = np.ascontiguousarray(wide.transpose(0, 2, 1)).view("<u8").reshape(3, CHUNK_ROWS).astype(np.uint64, copy=False)
    steps = (folded >> np.uint64(1)) ^ (~(folded & np.uint64(1)) + np.uint64(1))
    whole = np.cumsum(steps, axis=1, dtype=np.uint64).view(np.int64)
    return whole[0], whole[1], whole[2], narrow[0], narrow[1]


def cut_columns(columns: Shared, part: slice) -> Shared:
    """The same columns over a part of the rows."""
    update, t_ns, env_steps, level, flags = columns
    return update[part], t_ns[part], env_steps[part], level[part], flags[part]


def decode_values(data: bytes | None) -> F32:
    """f32[1024] of a piece."""
    if data is None:
        return np.zeros(CHUNK_ROWS, np.float32)
    stored = np.frombuffer(data, "<f4").astype(np.float32, copy=False)
    return np.repeat(stored, CHUNK_ROWS) if len(stored) == 1 else stored


def decode_status(status: bytes | None) -> U8:
    """u8[1024] of a piece, ABSENT included."""
    if status is None:
        return np.zeros(CHUNK_ROWS, np.uint8)
    if len(status) == 1:
        return np.full(CHUNK_ROWS, status[0], np.uint8)
    return np.frombuffer(zlib.decompress(status), np.uint8)


def decode_sets(sets: bytes) -> list[tuple[int, int]]:
    """(set number, rows) of a chunk, in order of arrival."""
    return [(int(set_id), int(rows)) for set_id, rows in np.frombuffer(sets, _RUN)]
