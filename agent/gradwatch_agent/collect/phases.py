"""Wall time by phase of an update: `with mon.phase("rollout"): …`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradwatch_agent.collect.host import Tally

TIMED = ("rollout", "update", "eval", "checkpoint")
"""What an update is made of. "eval" and "checkpoint" make an update slow for a good reason."""


class Phase:
    """One timed block; `name` is None for one that is not measured. Re-entering it adds another block."""

    __slots__ = ("_begin_ns", "_name", "_times")

    def __init__(self, times: PhaseTimes, name: str | None) -> None:
        self._times, self._name = times, name
        self._begin_ns = 0

    def __enter__(self) -> None:
        """Begin."""
        self._begin_ns = time.perf_counter_ns()

    def __exit__(self, *exception: object) -> None:
        """End; an exception goes on, and what it cut short counts too."""
        if self._name is not None:
            self._times.add(self._name, time.perf_counter_ns() - self._begin_ns)


class PhaseTimes:
    """Nanoseconds by phase of the running update. A block that spans `step` counts in the update in which it ends; one inside
    another counts in both."""

    __slots__ = ("_spent",)

    def __init__(self) -> None:
        self._spent: dict[str, int] = {}

    def add(self, name: str, spent_ns: int) -> None:
        """A block of this phase ended."""
        self._spent[name] = self._spent.get(name, 0) + spent_ns

    def tell(self, tally: Tally | None) -> None:
        """Add the columns of the update, unless its level has none, and begin anew."""
        spent, self._spent = self._spent, {}
        if tally is not None:
            for name, spent_ns in spent.items():
                tally.add("sys.phase_ms", (spent_ns / 1e6,), name)
