"""Optimizer steps that did not happen, over the last updates."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

WINDOW_UPDATES = 50
"""Updates over which the share of skipped steps is taken."""


class StepWindow:
    """Taken and skipped steps of the last `WINDOW_UPDATES` updates, and for how many in a row none was taken."""

    TAG: ClassVar[str] = "steps"

    __slots__ = ("_idle", "_parts", "_skipped", "_taken")

    def __init__(self) -> None:
        self._parts: deque[tuple[float, float]] = deque()
        self._taken = self._skipped = 0.0  # counts: sums of them are exact
        self._idle = 0

    @property
    def updates(self) -> int:
        """Updates in the window."""
        return len(self._parts)

    def step(self, taken: float, skipped: float) -> tuple[float, int]:
        """(share skipped in the window, updates in a row without a step but with one skipped)."""
        parts = self._parts
        parts.append(_shared(parts, taken, skipped))
        self._taken += taken
        self._skipped += skipped
        if len(parts) > WINDOW_UPDATES:
            old_taken, old_skipped = parts.popleft()
            self._taken -= old_taken
            self._skipped -= old_skipped
        self._idle = self._idle + 1 if skipped > 0 and taken <= 0 else 0
        return (self._skipped / (self._taken + self._skipped) if self._skipped > 0 else 0.0), self._idle

    def calm(self, taken: list[float]) -> bool:
        """Take updates without any skipped step, if there is none in the window either: then nothing has to be looked at."""
        if self._skipped > 0:
            return False
        for count in taken[-WINDOW_UPDATES:]:
            self._parts.append(_shared(self._parts, count, 0.0))
        while len(self._parts) > WINDOW_UPDATES:
            self._parts.popleft()
        self._taken = float(sum([count for count, _ in self._parts]))
        self._idle = 0
        return True

    def rewind(self, update: int) -> None:
        """The trainer went back; steps it skipped were skipped all the same."""

    def state(self) -> list[Any]:
        """Everything it remembers."""
        return [[list(part) for part in self._parts], self._idle]

    @classmethod
    def restored(cls, state: list[Any]) -> StepWindow:
        """The one that gave this `state`."""
        window = cls()
        parts, window._idle = state
        window._parts.extend((taken, skipped) for taken, skipped in parts)
        window._taken = float(sum(taken for taken, _ in parts))
        window._skipped = float(sum(skipped for _, skipped in parts))
        return window


def _shared(parts: deque[tuple[float, float]], taken: float, skipped: float) -> tuple[float, float]:
    """An update like the one before it is the same object: nearly all are, and a thousand runs have 64 each."""
    part = taken + 0.0, skipped + 0.0  # -0.0 is equal to 0.0: which of them is kept must not depend on the one before
    return parts[-1] if parts and parts[-1] == part else part
