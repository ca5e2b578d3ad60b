"""Where a series is going: its slope over the last updates, and whether the return stands at its own best.

Both keep only the few points before the block. Medians of fixed windows, no running sums: equal bits for any split, and
for the path of a single row.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gradwatch_daemon.records import F64, I64

SLOPE_POINTS = 10
"""Points of a slope: fewer follow the noise, more see a fall too late."""

RETURN_POINTS = 5
"""Updates whose median return is compared with the run's best."""

RETURNS_LEARNED = 10
"""Updates with finished episodes before the range of the returns means anything."""

RETURN_NEAR_BEST = 0.1
"""Share of the run's own range of returns that counts as being at its best."""

RETURN_RISE_LEAST = 0.02
"""Share of that range by which a new best must exceed the old one to be a rise: the best of many noisy medians creeps up."""

PAIRS = SLOPE_POINTS * (SLOPE_POINTS - 1) // 2
_MIDDLE = PAIRS // 2
_OLDEST = tuple(late * (late - 1) // 2 for late in range(SLOPE_POINTS - 1, 0, -1))
"""Where the slope of each point of a window to its oldest stands among all of them, the last first."""


class Trend:
    """Theil-Sen slope (median over all pairs) per update over the last `SLOPE_POINTS` measured values."""

    TAG: ClassVar[str] = "trend"

    __slots__ = ("_slopes", "_updates", "_values")

    def __init__(self) -> None:
        self._updates: list[int] = []
        self._values: list[float] = []
        self._slopes: list[float] = []
        """Of each kept point to each before it, the oldest first: derived, and made again where it does not fit."""

    def slope(self, update: int, value: float) -> float:
        """Slope at one new point; the same number as `slopes` gives."""
        updates, values, slopes = self._updates, self._values, self._slopes
        kept = len(values)
        if len(slopes) != kept * (kept - 1) // 2:  # after a block, a load or a rewind
            slopes = self._slopes = [
                (values[late] - values[early]) / (updates[late] - updates[early])
                for late in range(kept)
                for early in range(late)
            ]
        slopes += [(value - x) / (update - u) for u, x in zip(updates, values, strict=True)]
        updates.append(update)
        values.append(value)
        if kept + 1 < SLOPE_POINTS:
            return math.nan
        middle = sorted(slopes)[_MIDDLE]
        for place in _OLDEST:
            del slopes[place]
        del updates[0], values[0]
        return middle

    def slopes(self, updates: I64, values: F64) -> F64:
        """Slope at each of the new points (finite values at growing updates); NaN for the first `SLOPE_POINTS - 1`."""
        all_updates = np.concatenate((np.array(self._updates, np.float64), updates.astype(np.float64)))
        all_values = np.concatenate((np.array(self._values, np.float64), values))
        slopes = np.full(len(all_values), math.nan)
        if len(all_values) >= SLOPE_POINTS:
            pairs = _slopes_of_pairs(all_updates, all_values)
            slopes[SLOPE_POINTS - 1 :] = np.partition(pairs, _MIDDLE, axis=1)[:, _MIDDLE]
        result = slopes[len(self._values) :]
        self._slopes = []
        self._updates = all_updates[1 - SLOPE_POINTS :].astype(np.int64).tolist()
        self._values = all_values[1 - SLOPE_POINTS :].tolist()
        return result

    def rewind(self, update: int) -> None:
        """The trainer went back: the points after that did not happen."""
        kept = sum(known < update for known in self._updates)
        del self._updates[kept:], self._values[kept:]
        self._slopes = []

    def state(self) -> list[Any]:
        """Everything it remembers."""
        return [self._updates, self._values]

    @classmethod
    def restored(cls, state: list[Any]) -> Trend:
        """The trend that gave this `state`."""
        trend = cls()
        trend._updates, trend._values = state
        return trend


def _slopes_of_pairs(updates: F64, values: F64) -> F64:
    """Slope between any two points of each window, f64[windows, pairs]; those that windows share are divided once."""
    windows = len(values) - SLOPE_POINTS + 1
    pairs = np.empty((PAIRS, windows))
    rows = iter(pairs)
    for apart in range(1, SLOPE_POINTS):
        slopes = (values[apart:] - values[:-apart]) / (updates[apart:] - updates[:-apart])
        for first in range(SLOPE_POINTS - apart):
            next(rows)[:] = slopes[first : first + windows]
    return np.ascontiguousarray(pairs.T)


def _medians(series: F64) -> F64:
    """Medians of each `RETURN_POINTS` values on end; series of at least as many."""
    middle = RETURN_POINTS // 2
    medians: F64 = np.partition(sliding_window_view(series, RETURN_POINTS), middle, axis=1)[:, middle]
    return medians


class Best:
    """Whether the recent return is within `RETURN_NEAR_BEST` of the best of the run, by its own range."""

    TAG: ClassVar[str] = "best"

    __slots__ = ("_count", "_high", "_last", "_low", "_near")

    def __init__(self) -> None:
        self._last: list[float] = []
        self._count = 0
        self._low, self._high = math.inf, -math.inf
        self._near = False

    def near(self, values: F64, usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For each row: True when known to be at its best. A row without a usable return keeps the last answer.

        The median of `RETURN_POINTS` returns is compared with the highest and lowest such median so far; a falling
        return leaves that band, so being in it also says that the return does not fall.
        """
        new = values[usable]
        series = np.concatenate((np.array(self._last, np.float64), new))
        answers = np.zeros(len(new) + 1, np.bool_)
        answers[0] = self._near
        if len(series) >= RETURN_POINTS and len(new):
            medians = _medians(series)
            high = np.maximum(np.maximum.accumulate(medians), self._high)
            low = np.minimum(np.minimum.accumulate(medians), self._low)
            known = self._count + np.arange(len(new) - len(medians) + 1, len(new) + 1) >= RETURNS_LEARNED
            near = known & (high > low) & (medians >= high - RETURN_NEAR_BEST * (high - low))
            answers[len(answers) - len(near) :] = near
            self._high, self._low = float(high[-1]), float(low[-1])
        self._count = min(self._count + len(new), RETURNS_LEARNED)
        self._last = series[1 - RETURN_POINTS :].tolist()
        self._near = bool(answers[-1])
        result: NDArray[np.bool_] = answers[np.cumsum(usable)]
        return result

    def step(self, value: float) -> bool:
        """The answer at one row with a usable return, as `near` gives it."""
        series = [*self._last, value]
        self._last = series[1 - RETURN_POINTS :]
        self._count = min(self._count + 1, RETURNS_LEARNED)
        if len(series) < RETURN_POINTS:
            self._near = False
            return False
        median = sorted(series)[RETURN_POINTS // 2]
        self._high, self._low = max(median, self._high), min(median, self._low)
        high, low = self._high, self._low
        known = self._count >= RETURNS_LEARNED
        self._near = known and high > low and median >= high - RETURN_NEAR_BEST * (high - low)
        return self._near

    @property
    def standing(self) -> bool:
        """The last answer."""
        return self._near

    def rewind(self, update: int) -> None:
        """The trainer went back; its best stays its best."""
        self._last = []

    def state(self) -> list[Any]:
        """Everything it remembers."""
        return [self._last, self._count, self._low, self._high, self._near]

    @classmethod
    def restored(cls, state: list[Any]) -> Best:
        """The one that gave this `state`."""
        best = cls()
        best._last, best._count, best._low, best._high, best._near = state
        return best


class Rise:
    """For how many updates the run's return has not risen: since its median of `RETURN_POINTS` was last a new best."""

    TAG: ClassVar[str] = "rise"

    __slots__ = ("_at", "_high", "_last", "_low")

    def __init__(self) -> None:
        self._last: list[float] = []
        self._low, self._high = math.inf, -math.inf
        self._at = -1
        """Update of the last rise, -1 while there are too few returns."""

    def step(self, update: int, value: float) -> float:
        """Take the return of an update; updates since the last rise, NaN while there are too few returns."""
        series = [*self._last, value]
        self._last = series[1 - RETURN_POINTS :]
        if len(series) >= RETURN_POINTS:
            median = sorted(series)[RETURN_POINTS // 2]
            self._low = min(median, self._low)
            if self._at < 0 or median - self._high > RETURN_RISE_LEAST * (self._high - self._low):
                self._high, self._at = median, update
        return self.since(update)

    def steps(self, updates: I64, values: F64, usable: NDArray[np.bool_]) -> F64:
        """`step` where a return is usable, `since` elsewhere."""
        new, at = values[usable], [self._at]
        series = np.concatenate((np.array(self._last, np.float64), new))
        medians = _medians(series).tolist() if len(series) >= RETURN_POINTS and len(new) else []
        at += [self._at] * (len(new) - len(medians))
        low, high, rose = self._low, self._high, self._at
        for update, median in zip(updates[usable][len(new) - len(medians) :].tolist(), medians, strict=True):
            low = median if median < low else low
            if rose < 0 or median - high > RETURN_RISE_LEAST * (high - low):
                high, rose = median, update
            at.append(rose)
        self._low, self._high, self._at = low, high, rose
        self._last = series[1 - RETURN_POINTS :].tolist()
        last = np.array(at)[np.cumsum(usable)]
        since: F64 = np.where(last >= 0, updates - last, math.nan)
        return since

    def since(self, update: int) -> float:
        """Updates since the last rise at an update without a return."""
        return float(update - self._at) if self._at >= 0 else math.nan

    def rewind(self, update: int) -> None:
        """The trainer went back; its best stays its best, reached by then."""
        self._last = []
        self._at = min(self._at, update)

    def state(self) -> list[Any]:
        """Everything it remembers."""
        return [self._last, self._low, self._high, self._at]

    @classmethod
    def restored(cls, state: list[Any]) -> Rise:
        """The one that gave this `state`."""
        rise = cls()
        rise._last, rise._low, rise._high, rise._at = state
        return rise
