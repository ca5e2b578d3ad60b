"""Median and MAD of many columns at once, each of its own number of values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gradwatch_daemon.records import F64, I64


def find_middles(values: F64, measured: I64) -> tuple[F64, F64]:
    """(median, MAD) of each row of values f64[columns, room], which holds `measured` of them and NaN; the lower of two middle
    ones for the MAD. NaN of none."""
    columns, room = values.shape
    begins = np.arange(0, columns * room, room)
    half = begins + np.maximum(measured - 1, 0) // 2
    ordered = np.sort(values, axis=1)
    middle: F64 = ordered.take(begins + np.minimum(measured // 2, room - 1))
    middle += ordered.take(half)
    middle *= 0.5
    ordered -= middle[:, None]
    np.abs(ordered, out=ordered)
    ordered.sort(axis=1)
    return middle, ordered.take(half)
