"""What a detector of another package may remember of a run: numbers and short series of them, which bytes can hold."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, ClassVar

NUMBERS_MAX = 256
"""Numbers and series a detector may keep for one stream: all of it goes into every checkpoint."""

RECENT_MAX = 4096
"""Values of one series that may be kept."""


class Memory:
    """What a detector remembers of one run, in numbers, so that it survives a restart of the daemon bit for bit."""

    TAG: ClassVar[str] = "own"

    __slots__ = ("_numbers", "_recent", "failure")

    def __init__(self) -> None:
        self._numbers: dict[str, float] = {}
        self._recent: dict[str, deque[float]] = {}
        self.failure = ""
        """Why the detector is not asked any more in this run."""

    def get(self, name: str, default: float = math.nan) -> float:
        """A number that was kept."""
        return self._numbers.get(name, default)

    def keep(self, name: str, value: float) -> None:
        """Keep a number under a name."""
        self._room(name)
        self._numbers[name] = float(value)

    def push(self, name: str, value: float, size: int) -> list[float]:
        """Append to a series of the last `size` values; all of them, oldest first."""
        if not 1 <= size <= RECENT_MAX:
            raise ValueError(f"size: expected 1 to {RECENT_MAX}, got {size}")
        self._room(name)
        series = deque(self._recent.get(name, ()), maxlen=size)
        series.append(float(value))
        self._recent[name] = series
        return list(series)

    def recent(self, name: str) -> list[float]:
        """A series, oldest first; empty where there is none."""
        return list(self._recent.get(name, ()))

    def _room(self, name: str) -> None:
        new = name not in self._numbers and name not in self._recent
        if new and len(self._numbers) + len(self._recent) >= NUMBERS_MAX:
            raise ValueError(f"a detector may keep {NUMBERS_MAX} numbers and series, this is one more: {name!r}")

    def rewind(self, update: int) -> None:
        """The trainer went back; what was measured was measured."""

    def state(self) -> list[Any]:
        """Everything it remembers."""
        recent = [[name, series.maxlen, list(series)] for name, series in sorted(self._recent.items())]
        return [sorted(self._numbers.items()), recent, self.failure]

    @classmethod
    def restored(cls, state: list[Any]) -> Memory:
        """The one that gave this `state`."""
        memory = cls()
        numbers, recent, memory.failure = state
        memory._numbers = dict(numbers)
        memory._recent = {name: deque(values, maxlen=size) for name, size, values in recent}
        return memory
