"""Median and MAD of many columns at once, each of its own number of values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gradwatch_daemon.records import F64, I64


class Middles:
    """Where the middle of each column's sorted values stands: the same as long as their numbers are, which is nearly always."""

    __slots__ = ("_above", "_half", "_places", "count", "measured")

    def __init__(self, measured: I64, room: int) -> None:
        """For `measured` values of each column, in rows with `room` for more (NaN)."""
        self.count = measured.tobytes()
        self.measured = measured
        self._places = np.arange(len(measured))
        self._half = np.maximum(measured - 1, 0) // 2
        self._above = np.minimum(measured // 2, room - 1)

    def of(self, values: F64) -> tuple[F64, F64]:
        """(median, MAD) of each row of values f64[columns, room]; the lower of two middle ones for the MAD. NaN of none."""
        places, half = self._places, self._half
        ordered = np.sort(values, axis=1)
        middle: F64 = 0.5 * (ordered[places, self._above] + ordered[places, half])
        mad: F64 = np.sort(np.abs(ordered - middle[:, None]), axis=1)[places, half]
        return middle, mad
