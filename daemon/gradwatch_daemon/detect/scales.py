"""The scales of a board's columns as arrays: values to the scale on which they are compared, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradwatch_daemon.detect.series import LINEAR, LOGIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_daemon.detect.series import Series
    from gradwatch_daemon.records import F64


class Scales:
    """One column per series. `mad_least` is f64[columns]; `strided` are (column, stride) of those that learn from few rows."""

    __slots__ = ("_ceiling", "_floor", "_linear", "_logit", "mad_least", "strided")

    def __init__(self, series: Sequence[Series]) -> None:
        scales = [one.scale for one in series]
        self._linear = np.array([place for place, scale in enumerate(scales) if scale.kind == LINEAR], np.int64)
        self._logit = np.array([place for place, scale in enumerate(scales) if scale.kind == LOGIT], np.int64)
        # Between them a value is put on its scale; what needs no logarithm is 1 meanwhile.
        self._floor = np.array([1.0 if scale.kind == LINEAR else scale.least for scale in scales], np.float64)
        self._ceiling = np.full(len(scales), np.inf)
        self._ceiling[self._linear] = 1.0
        self._ceiling[self._logit] = 1.0 - self._floor[self._logit]
        self.mad_least = np.array([scale.mad_least for scale in scales], np.float64)
        self.strided = [(place, one.stride) for place, one in enumerate(series) if one.stride > 1]

    def scaled(self, values: F64) -> F64:
        """Values f64[..., columns] on their scales. numpy's log gives equal bits in any contiguous shape (a test holds it)."""
        sizes = np.minimum(np.maximum(values, self._floor), self._ceiling)
        if len(self._logit):
            share = sizes[..., self._logit]
            sizes[..., self._logit] = share / (1.0 - share)
        x: F64 = np.log(sizes)
        x[..., self._linear] = values[..., self._linear]
        return x

    def back(self, x: F64) -> F64:
        """Scale to values, f64[..., columns]."""
        size: F64 = np.exp(np.minimum(x, 700.0))
        if len(self._logit):
            odds = size[..., self._logit]
            size[..., self._logit] = odds / (1.0 + odds)
        size[..., self._linear] = x[..., self._linear]
        return size
