"""When rows came and which records did not: what the detectors of the telemetry itself remember."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

import numpy as np

RECORDS = 200
"""Records over which a share of lost ones is taken."""

GAPS = 64
"""Times between updates of which the median is usual."""

GAPS_LEARNED = 8
"""Gaps before anything is usual: the first updates compile and warm caches."""

NS = 1_000_000_000


class Arrivals:
    """Rows and losses of one stream in the order they were taken, on the trainer's clock."""

    TAG: ClassVar[str] = "arrivals"

    __slots__ = ("_lost", "_records", "_times", "stalled")

    def __init__(self) -> None:
        self._records = 0
        self._lost: list[list[int]] = []
        self._times: deque[int] = deque(maxlen=GAPS + 1)
        self.stalled = False
        """Whether a tick has found that updates stopped, and none came since."""

    def took(self, count: int, t_ns: list[int]) -> None:
        """`count` more rows came; `t_ns` are the times of the last of them."""
        self._records += count
        self._times.extend(t_ns)
        self.stalled = False

    def lost(self, count: int) -> float:
        """`count` records never came; the share of lost ones among the last `RECORDS` records."""
        self._lost.append([self._records, self._records + count])
        self._records += count
        begin = self._records - RECORDS
        self._lost = [span for span in self._lost if span[1] > begin]
        return sum(last - max(first, begin) for first, last in self._lost) / RECORDS

    @property
    def gaps(self) -> int:
        """Gaps learned from, at most `GAPS`."""
        return max(len(self._times) - 1, 0)

    @property
    def last_ns(self) -> int:
        """Time of the newest row; 0 before the first."""
        return self._times[-1] if self._times else 0

    def usual_gap_ns(self) -> float | None:
        """Median time between updates; None while learning. A clock that was set back counts as no time."""
        if self.gaps < GAPS_LEARNED:
            return None
        times = np.array(self._times, np.int64)
        return float(np.median(np.maximum(np.diff(times), 0)))

    def rewind(self, update: int) -> None:
        """The trainer went back; time did not."""

    def state(self) -> list[Any]:
        """Everything it remembers."""
        # Losses that have left the window may still be listed until the next loss; what is saved must not tell.
        begin = self._records - RECORDS
        return [self._records, [span for span in self._lost if span[1] > begin], list(self._times), self.stalled]

    @classmethod
    def restored(cls, state: list[Any]) -> Arrivals:
        """The one that gave this `state`."""
        arrivals = cls()
        arrivals._records, arrivals._lost, times, arrivals.stalled = state
        arrivals._times.extend(times)
        return arrivals
