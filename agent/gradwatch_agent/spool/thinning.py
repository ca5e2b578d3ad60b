"""Fewer rows of the same past: of each group those that hold an extreme stay, and what goes is told as lost. Pure.

For a spool that is full. A spike is what somebody will look for, so the rows that are the least or the largest of their group
in most columns stay; so does the first one of each level, of each flag and of what could be measured, and every one with
a NaN or an infinity.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING

from gradwatch_contracts.messages import Loss, Message, Samples
from gradwatch_contracts.segments import cut_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GROUP_ROWS = 64
"""Rows that are compared with each other."""

KEPT_ONE_OF = 4

KEPT_LEAST = 2
"""Of any group: of four rows a spike and a calm one stand out alike, and one of four would be the calm one."""

THINNED = "spool full: thinned"


def thin(messages: Iterable[Message]) -> list[Message]:
    """The messages with about one of `KEPT_ONE_OF` rows, and a LOSS in the place of each other one. Evidence stays."""
    thinned: list[Message] = []
    group: list[Samples] = []
    for message in messages:
        if group and not _continues(group[-1], message, sum(rows.n for rows in group)):
            thinned += _thin_rows(_join(group))
            group = []
        if isinstance(message, Samples):
            group.append(message)
        else:
            thinned.append(message)
    return thinned + _thin_rows(_join(group)) if group else thinned


def _continues(rows: Samples, message: Message, so_far: int) -> bool:
    return (
        isinstance(message, Samples)
        and message.schema == rows.schema
        and message.first_seq == rows.first_seq + rows.n
        and so_far + message.n <= GROUP_ROWS
    )


def _join(group: Sequence[Samples]) -> Samples:
    if len(group) == 1:
        return group[0]
    arrays = {
        name: b"".join([getattr(rows, name) for rows in group])
        for name in ("update", "t_ns", "env_steps", "level", "flags", "values")
    }
    status = None
    if any(rows.status for rows in group):
        columns = next(len(rows.status) // rows.n for rows in group if rows.status)
        status = b"".join([rows.status or bytes(columns * rows.n) for rows in group])
    return Samples(group[0].first_seq, sum(rows.n for rows in group), group[0].schema, **arrays, status=status)


def _thin_rows(rows: Samples) -> list[Message]:
    kept = _kept(rows)
    thinned: list[Message] = []
    at = 0
    while at < rows.n:
        end = at + 1
        while end < rows.n and (end in kept) == (at in kept):
            end += 1
        first = rows.first_seq + at
        thinned.append(
            cut_rows(rows, first, rows.first_seq + end) if at in kept else Loss(first, rows.first_seq + end - 1, THINNED)
        )
        at = end
    return thinned


def _kept(rows: Samples) -> set[int]:
    """Which rows stay."""
    values = array("d", rows.values)
    if sys.byteorder == "big":
        values.byteswap()
    slots = len(values) // rows.n
    status = rows.status or b""
    columns = len(status) // rows.n
    told = [(rows.level[row], rows.flags[row], status[row * columns : (row + 1) * columns]) for row in range(rows.n)]
    kept = {told.index(said) for said in set(told)}
    scores = [0] * rows.n
    for slot in range(slots):
        column = values[slot::slots]
        finite = [value for value in column if value - value == 0.0]
        if len(finite) < rows.n:
            kept.update(row for row, value in enumerate(column) if value - value != 0.0)
        low, high = min(finite, default=0.0), max(finite, default=0.0)
        if low != high:
            scores[column.index(low)] += 1
            scores[column.index(high)] += 1
    best = sorted(range(rows.n), key=lambda row: (-scores[row], row))
    kept.update(best[: max(KEPT_LEAST, -(-rows.n // KEPT_ONE_OF))])
    return kept
