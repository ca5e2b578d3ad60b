"""From rows and roll-ups of one signal to points or buckets that hide nothing.

A bucket is the rows whose ordinals in the stream share ordinal // size, size a power of two, so buckets do not shift while a
run grows. Extremes of finite values, non-finite and measured counts and the last value of each bucket are exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch_daemon.store.chunks.rollup import ABSENT
from gradwatch_daemon.store.protocol import Point, Series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gradwatch_daemon.records import F32, F64, I64, U8, SignalKey


Chosen = NDArray[np.bool_]
"""Which of some rows are meant."""


class Items(NamedTuple):
    """Rows, or entries of 64 rows, in order of arrival: what a bucket is made of. All arrays are over items.

    `ordinal` is that of the first row; `low`, `high`, `last` are NaN where there is no such value.
    """

    ordinal: I64
    update: I64
    t_ns: I64
    env_steps: I64
    low: F64
    high: F64
    last: F64
    rows: I64
    measured: I64
    nonfinite: I64
    status: U8


def items_of_rows(shared: Sequence[I64], values: F32, status: U8, chosen: Chosen) -> Items:
    """Items of the chosen rows that have the signal; `shared` is ordinal, update, t_ns and env_steps of all."""
    kept = np.flatnonzero(chosen & (status != ABSENT))
    state = status[kept]
    measured = state == 0
    with np.errstate(invalid="ignore"):  # widening a signalling NaN warns
        value = np.where(measured, values[kept].astype(np.float64), np.nan)
    finite = np.where(np.isfinite(value), value, np.nan)
    nonfinite = (measured & ~np.isfinite(value)).astype(np.int64)
    ordinal, update, t_ns, env_steps = (column[kept] for column in shared)
    return Items(
        ordinal,
        update,
        t_ns,
        env_steps,
        finite,
        finite,
        value,
        np.ones(len(kept), np.int64),
        measured.astype(np.int64),
        nonfinite,
        state,
    )


def items_of_groups(ordinal: I64, marks: I64, groups: NDArray[np.void]) -> Items:
    """Items of roll-up entries; `marks` i64[entries, 3] is update, t_ns and env_steps of their first rows."""
    kept = groups["rows"] > 0
    entries = groups[kept]
    update, t_ns, env_steps = marks[kept].T
    return Items(
        ordinal[kept],
        update,
        t_ns,
        env_steps,
        entries["low"].astype(np.float64),
        entries["high"].astype(np.float64),
        entries["last"].astype(np.float64),
        entries["rows"].astype(np.int64),
        entries["measured"].astype(np.int64),
        entries["nonfinite"].astype(np.int64),
        entries["status"],
    )


def join_items(parts: Sequence[Items]) -> Items:
    """Items one after another."""
    if not parts:
        whole, real = np.zeros(0, np.int64), np.zeros(0)
        return Items(whole, whole, whole, whole, real, real, real, whole, whole, whole, np.zeros(0, np.uint8))
    return parts[0] if len(parts) == 1 else Items(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def in_order(parts: Sequence[Items]) -> Items:
    """Items that do not overlap, sorted by their rows."""
    items = join_items(parts)
    if bool((np.diff(items.ordinal) > 0).all()):
        return items
    order = np.argsort(items.ordinal)
    return Items._make(column[order] for column in items)


def bucket_rows(ordinal: I64, points: int, least: int) -> int:
    """The smallest power of two, `least` or more, that makes at most `points` buckets of rows with these ordinals."""
    size = least
    while len(ordinal) and _starts(ordinal, size).size > points:
        size *= 2
    return size


def _starts(ordinal: I64, size: int) -> NDArray[np.intp]:
    place = ordinal // size
    return np.flatnonzero(np.diff(place, prepend=place[0] - 1))


def last_row(items: Items) -> Point | None:
    """The last of some rows (not roll-up entries), None where there is none."""
    if not len(items.ordinal):
        return None
    update, t_ns, env_steps = int(items.update[-1]), int(items.t_ns[-1]), int(items.env_steps[-1])
    return Point(update, t_ns, env_steps, float(items.last[-1]), int(items.status[-1]))


def raw_series(key: SignalKey, items: Items, unmeasured: Mapping[int, int]) -> Series:
    """Every row a point."""
    counts = items.measured, items.nonfinite, items.status
    place = items.update, items.t_ns, items.env_steps
    return Series(key, 1, *place, items.last, items.last, items.last, *counts, len(items.ordinal), unmeasured, last_row(items))


def bucket_series(key: SignalKey, items: Items, size: int, unmeasured: Mapping[int, int], end: Point | None) -> Series:
    """Items gathered into buckets of `size` rows; there is at least one item and none is longer than a bucket. `end` is the
    last row."""
    starts = _starts(items.ordinal, size)
    measured = np.add.reduceat(items.measured, starts)
    newest = np.maximum.reduceat(np.where(items.measured > 0, np.arange(len(items.ordinal)), -1), starts)
    return Series(
        key,
        size,
        items.update[starts],
        items.t_ns[starts],
        items.env_steps[starts],
        np.fmin.reduceat(items.low, starts),
        np.fmax.reduceat(items.high, starts),
        np.where(newest >= 0, items.last[newest], np.nan),
        measured,
        np.add.reduceat(items.nonfinite, starts),
        np.where(measured > 0, np.uint8(0), np.maximum.reduceat(items.status, starts)),
        int(items.rows.sum()),
        unmeasured,
        end,
    )
