"""Where a series stands against its own slow past: a bias-corrected exponential moving average and the signed drift from it.

Intuition: the average of a run that slides away lags behind it, so the relative distance of a new value says how far,
and its sign which way. Dividing by 1 - momentum^n (Kingma and Ba 2015, section 3) makes the first averages right,
instead of pulling them towards the first value.

Values that are no finite number, or that lie further than a factor of `OUTLIER_FACTOR` from the average, never enter it;
32 of those in a row mean that the run has changed, and averaging starts again with them. A trainer that goes back to a
checkpoint takes the average with it: the one as of that update is restored from a bounded history.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from gradwatch_daemon.records import F64, I64

MOMENTUM = 0.99
"""Weight of the past: a memory of about 100 updates."""

WARM_UP = 50
"""Updates of its own before a drift is given: the average then has the weight of 40 values."""

OUTLIER_FACTOR = 8.0
"""Healthy gradient norms with a log-noise of 0.7 stay within it 997 times in 1,000."""

REJECTIONS = 32
"""Outliers in a row after which averaging starts again, with these for its first values."""

HISTORY = 512
"""Past averages kept at least, to follow a trainer back; 12 kB. Twice as many are kept at most."""

LEAST = 1e-12
"""An average below it counts as it: drift from an average of 0 is large, not undefined."""


AVERAGE_LEAST = 8
"""Values before a plain average is believed: early it need only tell something from next to nothing."""


class Ema:
    """The moving average of one series of one stream, and how far each new value drifted from it."""

    TAG: ClassVar[str] = "ema"

    __slots__ = ("_count", "_counts", "_mean", "_means", "_momentum", "_outliers", "_updates", "_weight")

    def __init__(self, momentum: float = MOMENTUM) -> None:
        self._momentum = momentum
        self._count = 0
        self._mean, self._weight = 0.0, 1.0
        self._outliers: list[tuple[int, float]] = []
        self._updates, self._counts, self._means = array("q"), array("q"), array("d")

    @property
    def count(self) -> int:
        """Values averaged since it began or began again."""
        return self._count

    @property
    def average(self) -> float:
        """The bias-corrected average; NaN before the first value."""
        return self._mean / (1.0 - self._weight) if self._count else math.nan

    def step(self, update: int, value: float) -> float:
        """Signed drift of the value from the average before it, as a share of that; NaN while warming up. Then learn it.

        0.5 is half as much again, -0.5 half; +inf for a value that is infinite. NaN teaches nothing and has no drift.
        """
        count = self._count
        if count:
            average = self._mean / (1.0 - self._weight)
            if not -math.inf < value < math.inf:
                return value if count >= WARM_UP and value == math.inf else math.nan
            drift = (value - average) / (average if average > LEAST else LEAST)
            if count >= WARM_UP:
                if value > OUTLIER_FACTOR * average or value * OUTLIER_FACTOR < average:
                    self._reject(update, value)
                    return drift
            else:
                drift = math.nan
        elif -math.inf < value < math.inf:
            drift = math.nan
        else:
            return math.nan
        momentum = self._momentum
        self._mean = momentum * self._mean + (1.0 - momentum) * value
        self._weight *= momentum
        self._count = count + 1
        if self._outliers:
            self._outliers = []
        self._updates.append(update)
        self._counts.append(count + 1)
        self._means.append(self._mean)
        self._forget()
        return drift

    def steps(self, updates: I64, values: F64) -> list[float]:
        """`step` for many finite values in a row: the same drifts and the same bits, at a tenth of the cost."""
        warm = max(WARM_UP - self._count, 0)
        drifts = [self.step(*row) for row in zip(updates[:warm].tolist(), values[:warm].tolist(), strict=True)]
        drifts += self._calm_steps(updates[warm:], values[warm:])
        rest = slice(len(drifts), None)
        return drifts + [self.step(*row) for row in zip(updates[rest].tolist(), values[rest].tolist(), strict=True)]

    def _calm_steps(self, updates: I64, values: F64) -> list[float]:
        """Drifts of the values up to the first that is no plain one, all at once: of a healthy run all of them."""
        if self._outliers or not len(values):
            return []
        means, weights = _averaging(self._momentum, self._mean, self._weight, values)
        average = means[:-1] / (1.0 - weights[:-1])
        calm = (average > LEAST) & (values <= OUTLIER_FACTOR * average) & (values * OUTLIER_FACTOR >= average)
        length = len(values) if calm.all() else int(np.argmin(calm))
        self._mean, self._weight = float(means[length]), float(weights[length])
        self._updates.frombytes(updates[:length].tobytes())
        self._counts.frombytes(np.arange(self._count + 1, self._count + 1 + length).tobytes())
        self._means.frombytes(means[1 : length + 1].tobytes())
        self._count += length
        self._forget()
        average = average[:length]
        drifts: list[float] = ((values[:length] - average) / average).tolist()
        return drifts

    def _forget(self) -> None:
        """Keep no more of the past than `HISTORY` tells."""
        while len(self._updates) >= 2 * HISTORY:
            for kept in (self._updates, self._counts, self._means):
                del kept[:HISTORY]

    def rewind(self, update: int) -> None:
        """The trainer goes on from before this update: become the average as of the last value before it.

        Where the history does not reach back that far averaging starts again: a wrong average would call health drift.
        """
        place = bisect_left(self._updates, update)
        if place == len(self._updates):
            return
        for kept in (self._updates, self._counts, self._means):
            del kept[place:]
        self._outliers = []
        if not place:
            self._count, self._mean, self._weight = 0, 0.0, 1.0
            return
        self._count, self._mean = self._counts[-1], self._means[-1]
        self._weight = _power(self._momentum, self._count)

    def _reject(self, update: int, value: float) -> None:
        self._outliers.append((update, value))
        if len(self._outliers) >= REJECTIONS:
            outliers, self._outliers = self._outliers, []
            self._count, self._mean, self._weight = 0, 0.0, 1.0
            for past, outlier in outliers:
                self.step(past, outlier)

    def state(self) -> list[Any]:
        """Everything it remembers, as plain values (its `state_dict`)."""
        kept = [series.tobytes() for series in (self._updates, self._counts, self._means)]
        return [self._momentum, self._count, [list(outlier) for outlier in self._outliers], self._mean, self._weight, *kept]

    @classmethod
    def restored(cls, state: list[Any]) -> Ema:
        """The one that gave this `state`."""
        momentum, count, outliers, mean, weight, *kept = state
        ema = cls(momentum)
        ema._count, ema._mean, ema._weight = count, mean, weight
        ema._outliers = [(update, value) for update, value in outliers]
        updates, counts, means = kept
        ema._updates.frombytes(updates)
        ema._counts.frombytes(counts)
        ema._means.frombytes(means)
        return ema


def _averaging(momentum: float, mean: float, weight: float, values: F64) -> tuple[F64, F64]:
    """(mean, weight) before the first value and after each of them, rounded as one by one."""
    gains = ((1.0 - momentum) * values).tolist()
    means = np.array(list(accumulate(gains, lambda past, gain: momentum * past + gain, initial=mean)))
    weights = np.full(len(means), momentum)
    weights[0] = weight
    return means, np.multiply.accumulate(weights)


def _power(momentum: float, count: int) -> float:
    """Momentum multiplied `count` times, rounded each time as `step` does, so that going back gives the same bits."""
    weight = 1.0
    for _ in range(count):
        weight *= momentum
        if not weight:
            break
    return weight


class Average:
    """The plain bias-corrected average, without outliers, drift or a way back: what a quantity is in the long run."""

    TAG: ClassVar[str] = "average"

    __slots__ = ("_count", "_mean", "_weight")

    def __init__(self) -> None:
        self._count = 0
        self._mean, self._weight = 0.0, 1.0

    def step(self, value: float) -> float:
        """The average before a finite value, which it then learns from; NaN for the first `AVERAGE_LEAST`."""
        before = self._mean / (1.0 - self._weight) if self._count >= AVERAGE_LEAST else math.nan
        self._mean = MOMENTUM * self._mean + (1.0 - MOMENTUM) * value
        self._weight *= MOMENTUM
        self._count = min(self._count + 1, AVERAGE_LEAST)
        return before

    def steps(self, values: F64) -> F64:
        """`step` for many values: the averages before each."""
        means, weights = _averaging(MOMENTUM, self._mean, self._weight, values)
        before: F64 = means[:-1] / (1.0 - weights[:-1])
        before[: max(AVERAGE_LEAST - self._count, 0)] = math.nan
        self._mean, self._weight = float(means[-1]), float(weights[-1])
        self._count = min(self._count + len(values), AVERAGE_LEAST)
        return before

    def rewind(self, update: int) -> None:
        """The trainer went back; the long run did not change by that."""

    def state(self) -> list[Any]:
        """Everything it remembers."""
        return [self._count, self._mean, self._weight]

    @classmethod
    def restored(cls, state: list[Any]) -> Average:
        """The one that gave this `state`."""
        average = cls()
        average._count, average._mean, average._weight = state
        return average
