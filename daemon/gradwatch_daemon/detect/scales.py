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
        self._linear = np.array([scale.kind == LINEAR for scale in scales], np.bool_)
        self._logit = np.array([scale.kind == LOGIT for scale in scales], np.bool_)
        # Between them a value is put on its scale; what needs no logarithm is 1 meanwhile.
        self._floor = np.array([1.0 if scale.kind == LINEAR else scale.least for scale in scales], np.float64)
        self._ceiling = np.full(len(scales), np.inf)
        self._ceiling[self._linear] = 1.0
        self._ceiling[self._logit] = 1.0 - self._floor[self._logit]
        self.mad_least = np.array([scale.mad_least for scale in scales], np.float64)
        self.strided = [(place, one.stride) for place, one in enumerate(series) if one.stride > 1]

    @property
    def range(self) -> tuple[F64, F64]:
        """The ends of each scale: what lies beyond them counts as them."""
        with np.errstate(all="ignore"):
            ends = self.scaled(np.array((np.full_like(self._floor, -np.inf), np.full_like(self._floor, np.inf))))
        return ends[0], ends[1]

    def scaled(self, values: F64) -> F64:
        """Values f64[..., columns] on their scales. numpy's log gives equal bits in any contiguous shape (a test holds it)."""
        sizes = np.minimum(np.maximum(values, self._floor), self._ceiling)
        np.divide(sizes, 1.0 - sizes, out=sizes, where=self._logit)
        x: F64 = np.log(sizes)
        np.copyto(x, values, where=self._linear)
        return x

    def back(self, x: F64) -> F64:
        """Scale to values, f64[..., columns]."""
        size: F64 = np.exp(np.minimum(x, 700.0))
        np.divide(size, 1.0 + size, out=size, where=self._logit)
        np.copyto(size, x, where=self._linear)
        return size
