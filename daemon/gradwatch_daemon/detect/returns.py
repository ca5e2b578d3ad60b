"""How the return of a run stands against the best it had: by update, and weighted by episodes."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

ROLLING_POINTS = 10
"""Updates with a return that the rolling mean of `classic` covers."""

EPISODES_LEAST = 10
"""Episodes of a window: the mean of fewer says little about a policy."""

WINDOWS_LEARNED = 20
"""Full windows before a range is believed: by then a run has shown where it started."""

NOISES = 4.0
"""Standard errors by which a drop must exceed chance: for a normal mean, 1 in 30,000."""


class RollingBest:
    """Rolling mean over the last `ROLLING_POINTS` returns, and the highest it was."""

    TAG = "rolling"

    __slots__ = ("_best", "_last")

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=ROLLING_POINTS)
        self._best = -math.inf

    def step(self, value: float) -> tuple[float, float]:
        """(rolling mean, best so far with it); NaN for both until the window is full."""
        self._last.append(value)
        if len(self._last) < ROLLING_POINTS:
            return math.nan, math.nan
        mean = sum(self._last) / ROLLING_POINTS
        if mean > self._best:
            self._best = mean
        return mean, self._best

    def rewind(self, update: int) -> None:
        """The trainer went back; its best stays its best."""
        self._last.clear()

    def state(self) -> list[Any]:
        """Everything it remembers."""
        return [list(self._last), self._best]

    @classmethod
    def restored(cls, state: list[Any]) -> RollingBest:
        """The one that gave this `state`."""
        rolling = cls()
        last, rolling._best = state
        rolling._last.extend(last)
        return rolling


class Standing(NamedTuple):
    """A window of episodes against the run: its mean, the best and the first window's, and the drop.

    `drop` is a share of the range from first to best, 0 where chance explains it, NaN where no range is learned.
    """

    mean: float
    best: float
    drop: float


UNKNOWN = Standing(math.nan, math.nan, math.nan)


class EpisodeWindow:
    """Means over the least number of updates that hold `EPISODES_LEAST` episodes."""

    TAG = "episodes"

    __slots__ = ("_best", "_best_error", "_first", "_latest", "_parts", "_windows")

    def __init__(self) -> None:
        self._parts: deque[tuple[float, float, float]] = deque()
        self._windows = 0
        self._first = self._best = self._best_error = math.nan
        self._latest = UNKNOWN

    @property
    def windows(self) -> int:
        """Full windows seen, at most `WINDOWS_LEARNED`."""
        return self._windows

    @property
    def latest(self) -> Standing:
        """How the run stood when episodes last ended."""
        return self._latest

    def step(self, count: float, mean: float, std: float) -> Standing:
        """Take an update's finished episodes: how many (0 for none), their mean return and its standard deviation."""
        if count <= 0:
            return self._latest
        parts = self._parts
        parts.append((count, mean, std))
        episodes = sum(part[0] for part in parts)
        while episodes - parts[0][0] >= EPISODES_LEAST:
            episodes -= parts.popleft()[0]
        if episodes < EPISODES_LEAST:
            return self._latest
        centre = sum(n * m for n, m, _ in parts) / episodes
        squares = sum(n * (s * s + (m - centre) * (m - centre)) for n, m, s in parts)
        error = math.sqrt(squares / episodes / episodes)
        self._latest = self._judge(centre, error)
        return self._latest

    def _judge(self, mean: float, error: float) -> Standing:
        if not self._windows:
            self._first = self._best = mean
            self._best_error = error
        elif mean > self._best:
            self._best, self._best_error = mean, error
        self._windows = min(self._windows + 1, WINDOWS_LEARNED)
        span = self._best - self._first
        noise = NOISES * math.sqrt(error * error + self._best_error * self._best_error)
        if self._windows < WINDOWS_LEARNED or span <= noise or span <= 0.0:
            return Standing(mean, self._best, math.nan)
        fall = self._best - mean
        return Standing(mean, self._best, fall / span if fall > noise else 0.0)

    def rewind(self, update: int) -> None:
        """The trainer went back; its first and its best stay."""
        self._parts.clear()

    def state(self) -> list[Any]:
        """Everything it remembers."""
        parts = [list(part) for part in self._parts]
        return [parts, self._windows, self._first, self._best, self._best_error, list(self._latest)]

    @classmethod
    def restored(cls, state: list[Any]) -> EpisodeWindow:
        """The one that gave this `state`."""
        window = cls()
        parts, window._windows, window._first, window._best, window._best_error, latest = state
        window._parts.extend((n, m, s) for n, m, s in parts)
        window._latest = Standing(*latest)
        return window
