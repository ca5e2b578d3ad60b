"""How the return of a run stands against the best it had: by update, and weighted by episodes."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gradwatch_daemon.records import F64

ROLLING_POINTS = 10
"""Updates with a return that the rolling mean of `classic` covers."""

EPISODES_LEAST = 10
"""Episodes of a window: the mean of fewer says little about a policy."""

WINDOWS_LEARNED = 20
"""Full windows before a range is believed: by then a run has shown where it started."""

NOISES = 4.0
"""Standard deviations by which a gain and a drop must exceed noise: for a normal mean, 1 in 30,000."""


MEDIAN_POINTS = 5
"""Windows whose median counts: the best of many noisy means is mostly noise."""


class RollingBest:
    """Rolling mean over the last `ROLLING_POINTS` returns, and the highest it was."""

    TAG: ClassVar[str] = "rolling"

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
        self._best = max(self._best, mean)
        return mean, self._best

    def steps(self, values: F64) -> tuple[F64, F64]:
        """`step` for many values: sums are taken in the same order, so the bits are the same."""
        series = np.concatenate((np.array(self._last, np.float64), values))
        self._last.extend(values[-ROLLING_POINTS:].tolist())
        means, bests = np.full(len(values), math.nan), np.full(len(values), math.nan)
        count = len(series) - ROLLING_POINTS + 1
        # The kept values make one window more than there are new ones where it was full: that one is known already.
        if count > 0:
            total = np.zeros(count)
            for place in range(ROLLING_POINTS):
                total = total + series[place : place + count]
            fresh = min(count, len(values))
            rolling = (total / ROLLING_POINTS)[count - fresh :]
            best = np.maximum(np.maximum.accumulate(rolling), self._best)
            if fresh:
                means[len(values) - fresh :], bests[len(values) - fresh :] = rolling, best
                self._best = float(best[-1])
        return means, bests

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
    """How a run stands: the median of its last windows' means, the best such median, and the drop.

    `drop` is a share of the gain from first to best, 0 where noise explains it, NaN where no range is learned.
    """

    mean: float
    best: float
    drop: float


UNKNOWN = Standing(math.nan, math.nan, math.nan)


class Held:
    """For how many updates and episodes on end something has held."""

    TAG: ClassVar[str] = "held"

    __slots__ = ("_episodes", "_updates")

    def __init__(self) -> None:
        self._updates = 0
        self._episodes = 0.0

    def step(self, held: bool, count: float) -> tuple[float, float]:
        """Take an update in which `count` episodes ended; (updates, episodes), 0 where it does not hold."""
        if held:
            self._updates += 1
            self._episodes += count
        else:
            self._updates, self._episodes = 0, 0.0
        return self.latest

    def steps(self, held: NDArray[np.bool_], counts: F64, ended: NDArray[np.bool_]) -> tuple[F64, F64]:
        """`step` for each row that `ended` says, the latest elsewhere."""
        if (held & ended).any():
            rows = zip(held.tolist(), counts.tolist(), ended.tolist(), strict=True)
            updates, episodes = np.array([self.step(low, n) if takes else self.latest for low, n, takes in rows], np.float64).T
            return updates, episodes
        over = np.maximum.accumulate(ended)
        updates, episodes = np.where(over, 0.0, self._updates), np.where(over, 0.0, self._episodes)
        if over[-1]:
            self._updates, self._episodes = 0, 0.0
        return updates, episodes

    @property
    def latest(self) -> tuple[float, float]:
        """(updates, episodes) of now."""
        return float(self._updates), self._episodes

    def rewind(self, update: int) -> None:
        """The trainer went back: what held since then did not happen."""
        self._updates, self._episodes = 0, 0.0

    def state(self) -> list[Any]:
        """Everything it remembers."""
        return [self._updates, self._episodes]

    @classmethod
    def restored(cls, state: list[Any]) -> Held:
        """The one that gave this `state`."""
        held = cls()
        held._updates, held._episodes = state
        return held


class EpisodeWindow:
    """Means over the least number of updates that hold `EPISODES_LEAST` episodes."""

    TAG: ClassVar[str] = "episodes"

    __slots__ = ("_best", "_best_error", "_first", "_latest", "_means", "_moved", "_parts", "_windows")

    def __init__(self) -> None:
        self._parts: deque[tuple[float, float, float]] = deque()
        self._windows = 0
        self._moved = 0.0
        self._means: deque[float] = deque(maxlen=MEDIAN_POINTS)
        self._first = self._best = self._best_error = math.nan
        self._latest = UNKNOWN

    @property
    def windows(self) -> int:
        """Full windows seen."""
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
        if count >= EPISODES_LEAST:  # a window of its own
            parts.clear()
            parts.append((count, mean, std))
            self._latest = self._judge(mean, std / math.sqrt(count))
            return self._latest
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

    def steps(self, counts: F64, means: F64, stds: F64, ended: NDArray[np.bool_]) -> NDArray[np.float64]:
        """`step` for each row that `ended` says, the latest elsewhere: f64[3, n]."""
        every = np.flatnonzero(ended)
        taken = counts[every]
        if not len(every) or taken.min() < EPISODES_LEAST:
            rows = zip(counts.tolist(), means.tolist(), stds.tolist(), ended.tolist(), strict=True)
            every_row = [self.step(n, mean, std) if takes else self._latest for n, mean, std, takes in rows]
            stood: NDArray[np.float64] = np.array(every_row, np.float64).T
            return stood
        standing = np.empty((3, len(every) + 1))
        standing[:, 0] = self._latest
        standing[:, 1:] = self._judge_all(means[every], stds[every] / np.sqrt(taken))
        last = every[-1]
        self._parts.clear()
        self._parts.append((float(counts[last]), float(means[last]), float(stds[last])))
        self._latest = Standing(*standing[:, -1].tolist())
        found: NDArray[np.float64] = standing[:, np.cumsum(ended)]
        return found

    def _judge_all(self, means: F64, errors: F64) -> NDArray[np.float64]:
        """`_judge` for many windows of their own: sums are taken in the same order, so the bits are the same."""
        known, n = len(self._means), len(means)
        series = np.concatenate((np.array(self._means, np.float64), means))
        found = np.full((3, n), math.nan)
        moves = np.abs(series[1:] - series[:-1])[max(known - 1, 0) :]
        moved = np.add.accumulate(np.concatenate(((self._moved,), moves)))[-n:]
        windows = np.arange(self._windows + 1, self._windows + n + 1)
        self._means.extend(means[-MEDIAN_POINTS:].tolist())
        self._moved, self._windows = float(moved[-1]), self._windows + n
        if len(series) < MEDIAN_POINTS:
            return found
        middle = np.sort(sliding_window_view(series, MEDIAN_POINTS), axis=1)[:, MEDIAN_POINTS // 2][-n:]
        first = n - len(middle)
        moved, windows, errors = moved[first:], windows[first:], errors[first:]
        if not self._best_error >= 0.0:
            self._first = self._best = float(middle[0])
            self._best_error = float(errors[0])
        best = np.maximum.accumulate(np.concatenate(((self._best,), middle)))
        rose = np.maximum.accumulate(np.where(middle > best[:-1], np.arange(1, len(middle) + 1), 0))
        best, best_error = best[1:], np.concatenate(((self._best_error,), errors))[rose]
        self._best, self._best_error = float(best[-1]), float(best_error[-1])
        span, fall = best - self._first, best - middle
        noise = NOISES * np.maximum(np.sqrt(errors * errors + best_error * best_error), 1.25 * moved / windows)
        unknown = (windows < WINDOWS_LEARNED) | (span <= noise) | (span <= 0.0)
        with np.errstate(all="ignore"):
            drop = np.where(fall > noise, fall / span, 0.0)
        drop[unknown] = math.nan
        found[0, first:], found[1, first:], found[2, first:] = middle, best, drop
        return found

    def _judge(self, mean: float, error: float) -> Standing:
        means = self._means
        if means:
            self._moved += abs(mean - means[-1])
        means.append(mean)
        self._windows += 1
        if len(means) < MEDIAN_POINTS:
            return UNKNOWN
        middle = sorted(means)[MEDIAN_POINTS // 2]
        if not self._best_error >= 0.0:
            self._first = self._best = middle
            self._best_error = error
        elif middle > self._best:
            self._best, self._best_error = middle, error
        span = self._best - self._first
        # Of one policy's episodes, and of the policy from update to update: two independent values differ by 1.13 deviations
        # in the mean, and the difference itself has 1.41 of them.
        sampled = math.sqrt(error * error + self._best_error * self._best_error)
        noise = NOISES * max(sampled, 1.25 * self._moved / self._windows)
        if self._windows < WINDOWS_LEARNED or span <= noise or span <= 0.0:
            return Standing(middle, self._best, math.nan)
        fall = self._best - middle
        return Standing(middle, self._best, fall / span if fall > noise else 0.0)

    def rewind(self, update: int) -> None:
        """The trainer went back; its first and its best stay."""
        self._parts.clear()
        self._means.clear()

    def state(self) -> list[Any]:
        """Everything it remembers."""
        parts = [list(part) for part in self._parts]
        return [
            parts,
            list(self._means),
            self._windows,
            self._moved,
            self._first,
            self._best,
            self._best_error,
            list(self._latest),
        ]

    @classmethod
    def restored(cls, state: list[Any]) -> EpisodeWindow:
        """The one that gave this `state`."""
        window = cls()
        parts, means, window._windows, window._moved, window._first, window._best, window._best_error, latest = state
        window._parts.extend((n, m, s) for n, m, s in parts)
        window._means.extend(means)
        window._latest = Standing(*latest)
        return window
