"""The x64 roll-up of a chunk, and the totals of a signal over rows: small numbers that hide nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gradwatch_daemon.store.schema import CHUNK_ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gradwatch_daemon.records import F32, I64, U8

GROUP_ROWS = 64
"""Rows of one roll-up entry: 1 M updates are 15,625 entries, which reduce to any bucket size in under a millisecond."""

ABSENT = 255
"""Status of a row whose signal set does not hold the signal. Exists only inside chunks; never leaves the store."""

GROUP = np.dtype(
    [
        ("low", "<f4"),
        ("high", "<f4"),
        ("last", "<f4"),
        ("rows", "u1"),
        ("measured", "u1"),
        ("nonfinite", "u1"),
        ("status", "u1"),
    ]
)
"""One roll-up entry of 64 rows: low and high of the finite values (NaN: none), last measured value (NaN: none), rows that
have the signal, how many are measured and how many of those not finite, and the highest status."""

REASON = np.dtype([("status", "u1"), ("rows", "<u2")])
"""How many rows of a chunk were not measured, by status."""


class Totals(NamedTuple):
    """One signal over rows, for its summary. `value_last` is f32 bytes, None when no row is measured; `update_last` is the
    update it is from, or that of the newest row when there is none."""

    update_last: int
    status_last: int
    value_last: bytes | None
    measured: int
    nonfinite: int


def roll_up(values: F32, status: U8) -> NDArray[np.void]:
    """GROUP[signals, rows // 64] of f32[signals, rows] and their statuses; rows is a multiple of 64."""
    # Nearly every signal is whole: all measured and finite, which needs a third of what the others need.
    whole = ~status.any(axis=1) & np.isfinite(values).all(axis=1)
    out = np.zeros((len(values), values.shape[1] // GROUP_ROWS), GROUP)
    out[whole] = _roll_up_whole(values[whole])
    if not whole.all():
        out[~whole] = _roll_up_any(values[~whole], status[~whole])
    return out


def _roll_up_whole(values: F32) -> NDArray[np.void]:
    """Of signals that lack nothing."""
    value = values.reshape(len(values), values.shape[1] // GROUP_ROWS, GROUP_ROWS)
    out = np.zeros(value.shape[:2], GROUP)
    out["low"], out["high"], out["last"] = value.min(axis=2), value.max(axis=2), value[:, :, -1]
    out["rows"] = out["measured"] = GROUP_ROWS
    return out


def _roll_up_any(values: F32, status: U8) -> NDArray[np.void]:
    shape = (len(values), values.shape[1] // GROUP_ROWS, GROUP_ROWS)
    value, state = values.reshape(shape), status.reshape(shape)
    measured, present = state == 0, state != ABSENT
    finite = measured & np.isfinite(value)
    counted = measured.sum(axis=2)
    some = finite.any(axis=2)
    newest = GROUP_ROWS - 1 - measured[:, :, ::-1].argmax(axis=2)
    out = np.zeros(shape[:2], GROUP)
    out["low"] = np.where(some, np.where(finite, value, np.float32(np.inf)).min(axis=2), np.float32(np.nan))
    out["high"] = np.where(some, np.where(finite, value, np.float32(-np.inf)).max(axis=2), np.float32(np.nan))
    out["last"] = np.where(counted > 0, np.take_along_axis(value, newest[:, :, None], axis=2)[:, :, 0], np.float32(np.nan))
    out["rows"] = present.sum(axis=2)
    out["measured"] = counted
    out["nonfinite"] = counted - finite.sum(axis=2)
    out["status"] = np.where(present, state, 0).max(axis=2)
    return out


def totals(update: I64, values: F32, status: U8) -> list[Totals]:
    """Totals of each signal over rows; every signal is in at least one of them (a status that is not ABSENT)."""
    measured, present = status == 0, status != ABSENT
    end, signals = len(update) - 1, np.arange(len(values))
    newest = end - measured[:, ::-1].argmax(axis=1)
    last = end - present[:, ::-1].argmax(axis=1)
    counted = measured.sum(axis=1)
    nonfinite = (measured & ~np.isfinite(values)).sum(axis=1)
    of_update = update[np.where(counted > 0, newest, last)].tolist()
    states, values_last = status[signals, last].tolist(), values[signals, newest]
    found = zip(of_update, states, values_last, counted.tolist(), nonfinite.tolist(), strict=True)
    return [Totals(of, state, value.tobytes() if n else None, n, wrong) for of, state, value, n, wrong in found]


def add_totals(older: Totals, newer: Totals) -> Totals:
    """Totals of rows and of later rows, as of all of them."""
    kept = newer if newer.value_last is not None or older.value_last is None else older
    measured, nonfinite = older.measured + newer.measured, older.nonfinite + newer.nonfinite
    return Totals(kept.update_last, newer.status_last, kept.value_last, measured, nonfinite)


def count_reasons(status: U8) -> bytes:
    """REASON[...] of one signal over a chunk: what was not measured, by status."""
    rows = np.bincount(status, minlength=256)
    rows[[0, ABSENT]] = 0
    return np.array([(code, rows[code]) for code in np.flatnonzero(rows)], REASON).tobytes()


def cut_groups(groups: NDArray[np.void], begins: I64, end: int, first: int, last: int) -> bytes:
    """Empty the roll-up entries of one chunk that hold no row of updates `first` to `last`, in place; `begins` are the first
    updates of the entries, `end` the last one of the chunk. Returns REASON[...] of the entries that stay, where all that an
    entry lacks counts under its highest status: more is not known of a part of a chunk."""
    ends = np.append(begins[1:] - 1, end)
    outside = (np.maximum(begins, ends) < first) | (np.minimum(begins, ends) > last)
    for name in ("rows", "measured", "nonfinite"):
        groups[name][outside] = 0
    lacking = np.bincount(groups["status"], groups["rows"].astype(np.int64) - groups["measured"], 256).astype(np.int64)
    return np.array([(code, lacking[code]) for code in np.flatnonzero(lacking)], REASON).tobytes()


def decode_groups(pieces: Sequence[bytes]) -> NDArray[np.void]:
    """GROUP[pieces, 16]: the roll-ups of several pieces."""
    return np.frombuffer(b"".join(pieces), GROUP).reshape(len(pieces), CHUNK_ROWS // GROUP_ROWS)


def decode_marks(chunks: Sequence[bytes]) -> I64:
    """i64[chunks, 16, 3]: update, t_ns and env_steps of the first row of each roll-up entry."""
    marks = np.frombuffer(b"".join(chunks), "<i8").astype(np.int64, copy=False)
    return marks.reshape(len(chunks), CHUNK_ROWS // GROUP_ROWS, 3)


def decode_reasons(pieces: Sequence[bytes]) -> dict[int, int]:
    """Rows not measured by status, over several pieces."""
    listed = np.frombuffer(b"".join(pieces), REASON)
    rows = np.bincount(listed["status"], listed["rows"], 256)
    return {int(code): int(rows[code]) for code in np.flatnonzero(rows)}


def decode_value(value: bytes | None) -> float | None:
    """One stored f32 as a float."""
    return None if value is None else float(np.frombuffer(value, "<f4")[0])
