"""What is usual for a signal in this run: median and MAD of its own recent accepted values.

Intuition: a value is odd when it is far from the middle of the last 64 good ones, measured in their own spread, on a
log scale for scale-like signals (on the raw scale false alarms were ten times as frequent: rl-diagnostics §2.3). A
fault must not teach the baseline, so values beyond 4 spreads never enter it, nor any within the guard band before now; but 64
rejections in a row are no outliers any more: the run has changed, and learning starts again, visibly.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

WINDOW = 64
"""Accepted values kept: the number all figures of rl-diagnostics §2.3 were measured with."""

LEARNED = 32
"""Accepted values from which on a score is given: half a window (§2.2)."""

GUARD = 4
"""Updates between the newest value in the window and now: a fault that starts slowly is not yet in its own baseline."""

OUTLIER = 4.0
"""|z| beyond which a value never enters."""

REJECTIONS = WINDOW
"""Consecutive rejections after which the baseline starts again."""

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


class Baseline:
    """Median and MAD over the last `WINDOW` accepted values. One per signal, subject and stream."""

    __slots__ = ("_centre", "_guard", "_limit", "_near", "_rejected", "_scale", "_sorted", "_spread", "_usual", "_window")

    def __init__(self, scale: Scale) -> None:
        self._scale = scale
        self._window: deque[float] = deque()
        self._sorted: list[float] = []
        self._guard: deque[tuple[int, float]] = deque()
        self._rejected = 0
        self._near = 0
        self._centre = self._spread = self._usual = self._limit = math.nan

    @property
    def learned(self) -> int:
        """Values in the window, at most `WINDOW`."""
        return len(self._window)

    def step(self, update: int, value: float) -> Score:
        """Score a finite value of `update`, then accept or reject it. Later updates only; the caller drops non-finite ones."""
        guard = self._guard
        while guard and guard[0][0] <= update - GUARD:
            self._admit(guard.popleft()[1])
        scale = self._scale
        x = math.log(max(value, scale.least)) if scale.log else value  # `math.log`, not numpy's: equal bits in any batch
        if len(self._window) < LEARNED:
            guard.append((update, x))
            return LEARNING
        z = (x - self._centre) / self._spread
        score = Score(z, self._usual, self._limit)
        if -OUTLIER <= z <= OUTLIER:
            self._rejected = 0
            guard.append((update, x))
            return score
        self._rejected += 1
        if self._rejected >= REJECTIONS:
            self._restart()
        return score

    def _admit(self, x: float) -> None:
        """Let a value into the window; once learned, measure anew (this is the cost of a baseline, so it stays inline)."""
        window, ordered = self._window, self._sorted
        if len(window) == WINDOW:
            del ordered[bisect_left(ordered, window.popleft())]
        window.append(x)
        insort(ordered, x)
        count = len(ordered)
        if count < LEARNED:
            return
        half = count // 2
        centre = ordered[half] if count % 2 else 0.5 * (ordered[half - 1] + ordered[half])
        self._near = near = nearest_run(ordered, centre, self._near)
        deviation = max(centre - ordered[near], ordered[near + (count - 1) // 2] - centre)
        self._centre = centre
        self._spread = spread = MAD_TO_SIGMA * max(deviation, self._scale.mad_least)
        self._usual, self._limit = self._scale.back(centre), self._scale.back(centre + OUTLIER * spread)

    def _restart(self) -> None:
        self._window.clear()
        self._sorted.clear()
        self._guard.clear()
        self._rejected = self._near = 0
        self._centre = self._spread = self._usual = self._limit = math.nan

    def state(self) -> list[Any]:
        """Everything that is not derived, as plain values."""
        return [list(self._window), [list(item) for item in self._guard], self._rejected]

    @classmethod
    def restored(cls, scale: Scale, state: list[Any]) -> Baseline:
        """The baseline that gave this `state`."""
        baseline = cls(scale)
        window, guard, baseline._rejected = state
        for x in window:
            baseline._admit(x)
        baseline._guard.extend((update, x) for update, x in guard)
        return baseline


def nearest_run(ordered: list[float], centre: float, start: int = 0) -> int:
    """Where the half of the sorted values that is nearest to `centre` begins; its farther end is the MAD away.

    The k = ceil(n / 2) nearest values are neighbours in the sorted list, so the MAD (for an even count the lower of the
    middle two deviations) is found by sliding one window. The answer does not depend on `start`; from the last answer
    it takes a step or two.
    """
    k = (len(ordered) + 1) // 2
    last = len(ordered) - k
    near = min(start, last)
    while near < last and centre - ordered[near] > ordered[near + k] - centre:
        near += 1
    while near > 0 and centre - ordered[near - 1] <= ordered[near - 1 + k] - centre:
        near -= 1
    return near
