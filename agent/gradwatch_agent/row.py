"""One update of this process, ready to travel, and how rows become one SAMPLES message."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_contracts.control import Level
from gradwatch_contracts.messages import Samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_contracts.columns import Schema

_SCALARS = struct.Struct("<qqqBB")
LEVEL_MAX = max(Level)


@dataclass(frozen=True, slots=True)
class Row:
    """What one update measured.

    `t_ns` is unix time; `env_steps` is the total so far, -1 when the trainer does not say; `level` is the level the whole
    update was collected at; `flags` are bits of `columns.RowFlag`. `values` is f64 little-endian[schema.slots], `status`
    u8[len(schema.columns)] of `columns.Status`.
    """

    update: int
    t_ns: int
    env_steps: int
    level: int
    flags: int
    schema: Schema
    values: bytes
    status: bytes


def row_fault(row: Row) -> str:
    """Why the row cannot travel, '' when it can.

    One such row would make the daemon refuse the whole message, and its 31 honest neighbours with it.
    """
    if len(row.values) != 8 * row.schema.slots or len(row.status) != len(row.schema.columns):
        return "row does not fit its schema"
    try:
        _SCALARS.pack(row.update, row.t_ns, row.env_steps, row.level, row.flags)
    except struct.error:
        return "row number out of range"
    return "" if row.level <= LEVEL_MAX else "row number out of range"


def pack_rows(first_seq: int, rows: Sequence[Row]) -> Samples:
    """Return rows of one schema, with consecutive seq from `first_seq`, as one message, arrays column by column."""
    longs = struct.Struct(f"<{len(rows)}q")
    status = b"".join([row.status for row in rows])
    return Samples(
        first_seq=first_seq,
        n=len(rows),
        schema=rows[0].schema.id,
        update=longs.pack(*[row.update for row in rows]),
        t_ns=longs.pack(*[row.t_ns for row in rows]),
        env_steps=longs.pack(*[row.env_steps for row in rows]),
        level=bytes([row.level for row in rows]),
        flags=bytes([row.flags for row in rows]),
        values=b"".join([row.values for row in rows]),
        status=status if status.strip(b"\0") else None,
    )
