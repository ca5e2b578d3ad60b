"""What is usual for a signal in this run: median and MAD of its own recent accepted values.

Intuition: a value is odd when it is far from the middle of the last 64 good ones, measured in their own spread, on a
log scale for scale-like signals (on the raw scale false alarms were ten times as frequent on synthetic healthy streams).
A fault must not teach the baseline, so values beyond 4 spreads never enter it, nor do the newest accepted ones; but as
many rejections in a row as learning takes are no outliers any more: the run has changed, and they are the new window.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

WINDOW = 64
"""Accepted values measured. Twice as many adapt too slowly to a run that anneals, half as many give a jumpy spread."""

LEARNED = 32
"""Accepted values from which on a score is given: half a window."""

GUARD = 4
"""Newest accepted values that are not measured yet: a fault that starts slowly is not yet in its own baseline."""

REFRESH = 16
"""Accepted values between two measurements: sorting the window for every value was three quarters of the cost."""

OUTLIER = 4.0
"""|z| beyond which a value never enters."""

REJECTIONS = LEARNED + GUARD
"""Consecutive rejections that become the new window. Gradient norms of healthy runs fall tenfold while they learn; with twice
as many the baseline was of no use for a third of such a run."""

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a Gaussian / its MAD."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How values are compared. `log`: by ratio, values below `least` counting as `least`; else by difference.

    `mad_least` is the smallest MAD believed, so that a nearly constant signal does not make every wobble an outlier.
    """

    log: bool
    mad_least: float
    least: float = 0.0

    def back(self, x: float) -> float:
        """Scale → value."""
        return math.exp(min(x, 700.0)) if self.log else x


class Score(NamedTuple):
    """One value against the baseline: `z`, and in the signal's own unit its `usual` value and the value at z = 4.

    All NaN while learning.
    """

    z: float
    usual: float
    limit: float


LEARNING = Score(math.nan, math.nan, math.nan)
INFINITY = math.inf


class Baseline:
    """Median and MAD over the last `WINDOW` accepted values but the newest `GUARD`. One per signal, subject and stream."""

    __slots__ = ("_centre", "_history", "_limit", "_rejected", "_scale", "_spread", "_stale", "_usual")

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._history: deque[float] = deque(maxlen=WINDOW + GUARD)
        self._rejected: list[float] = []
        self._stale = 0
        self._centre = self._spread = self._usual = self._limit = math.nan

    @property
    def learned(self) -> int:
        """Values old enough to be measured, at most `WINDOW`."""
        return max(len(self._history) - GUARD, 0)

    @property
    def standing(self) -> Score:
        """What a row without a usable value has for a score."""
        return Score(math.nan, self._usual, self._limit)

    def step(self, value: float) -> Score:
        """Score a finite value, then accept or reject it. The caller drops non-finite ones."""
        scale = self._scale
        # `math.log`, not numpy's: equal bits in any batch.
        x = math.log(value if value > scale.least else scale.least) if scale.log else value
        z = (x - self._centre) / self._spread
        if -OUTLIER <= z <= OUTLIER:
            score = Score(z, self._usual, self._limit)
            if self._rejected:
                self._rejected.clear()
        elif z != z:  # noqa: PLR0124 (NaN; half the cost of math.isnan)
            score = LEARNING
        else:
            self._rejected.append(x)
            score = Score(z, self._usual, self._limit)
            if len(self._rejected) >= REJECTIONS:
                self._history.clear()
                self._history.extend(self._rejected)
                self._rejected.clear()
                self._measure()
            return score
        self._history.append(x)
        self._stale += 1
        if self._stale >= REFRESH and len(self._history) >= LEARNED + GUARD:
            self._measure()
        return score

    def _measure(self) -> None:
        history = self._history
        ordered = sorted(islice(history, len(history) - GUARD))
        count = len(ordered)
        half = count // 2
        centre = ordered[half] if count % 2 else 0.5 * (ordered[half - 1] + ordered[half])
        near = nearest_run(ordered, centre, count // 4)
        deviation = max(centre - ordered[near], ordered[near + (count - 1) // 2] - centre)
        self._stale = 0
        self._set(centre, MAD_TO_SIGMA * max(deviation, self._scale.mad_least))

    def _set(self, centre: float, spread: float) -> None:
        self._centre, self._spread = centre, spread
        self._usual, self._limit = self._scale.back(centre), self._scale.back(centre + OUTLIER * spread)

    def state(self) -> list[Any]:
        """Everything that is not derived, as plain values."""
        return [list(self._history), list(self._rejected), self._stale, self._centre, self._spread]

    @classmethod
    def restored(cls, scale: Scale, state: list[Any]) -> Baseline:
        """The baseline that gave this `state`."""
        baseline = cls(scale)
        history, baseline._rejected, baseline._stale, centre, spread = state
        baseline._history.extend(history)
        baseline._set(centre, spread)
        return baseline


def nearest_run(ordered: list[float], centre: float, start: int = 0) -> int:
    """Where the half of the sorted values that is nearest to `centre` begins; its farther end is the MAD away.

    The k = ceil(n / 2) nearest values are neighbours in the sorted list, so the MAD (for an even count the lower of the
    middle two deviations) is found by sliding one window. The answer does not depend on `start`.
    """
    k = (len(ordered) + 1) // 2
    last = len(ordered) - k
    near = min(start, last)
    while near < last and centre - ordered[near] > ordered[near + k] - centre:
        near += 1
    while near > 0 and centre - ordered[near - 1] <= ordered[near - 1 + k] - centre:
        near -= 1
    return near
