"""Wall time by phase of an update: `with mon.phase("rollout"): …`, and word of the phases that updates wait for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradwatch_agent.collect.host import Tally

TIMED = ("rollout", "update", "eval", "checkpoint")
"""What an update is made of. "eval" and "checkpoint" make an update slow for a good reason."""

PAUSES = ("eval", "checkpoint")
"""While one of these goes on, no update is to be expected."""

PROFILE = "profile"
"""The pause of a profiler's capture: updates go on in it, slowly, and writing the trace holds the trainer up."""

TOLD_AFTER_NS = 1_000_000_000
"""A pause as short as that is a part of its update: telling of it would double the records of a trainer that saves often."""


class Phase:
    """One timed block; `name` is None for one that is not measured. Re-entering it adds another block."""

    __slots__ = ("_begin_ns", "_name", "_times")

    def __init__(self, times: PhaseTimes, name: str | None) -> None:
        self._times, self._name = times, name
        self._begin_ns = 0

    def __enter__(self) -> None:
        """Begin."""
        self._begin_ns = time.perf_counter_ns()
        if self._name in PAUSES:
            try:
                self._times.pause(self._name or "", self._begin_ns, self)
            except BaseException:  # Ctrl-C here: nobody calls __exit__, and the pause would never end
                self._times.resume(self._begin_ns, self)
                raise

    def __exit__(self, *exception: object) -> None:
        """End; an exception goes on, and what it cut short counts too."""
        if self._name is not None:
            now_ns = time.perf_counter_ns()
            if self._name in PAUSES:
                self._times.resume(now_ns, self)
            self._times.add(self._name, now_ns - self._begin_ns)


@dataclass(slots=True)
class Pause:
    """A phase that updates wait for: the `n`-th of its process. `holders` are the blocks that are open in it; `told` is the
    connection on which its begin was told last, `early` whether it is told of however short."""

    name: str
    n: int
    begin_ns: int
    holders: list[object]
    told: int = 0
    early: bool = False


class PhaseTimes:
    """Nanoseconds by phase of the running update. A block that spans `step` counts in the update in which it ends; one inside
    another counts in both.

    `tell` is called with a pause, whether it is over, and how long it took so far in ns: on the link thread for one that goes
    on, on the trainer's for its end. No lock: the two may come in either order, and `n` says which end is of which begin.
    """

    __slots__ = ("_count", "_pause", "_tell", "spent")

    def __init__(self, tell: Callable[[Pause, bool, int], None]) -> None:
        self.spent: dict[str, int] = {}
        self._pause: Pause | None = None
        self._count = 0
        self._tell = tell

    def pause(self, name: str, now_ns: int, holder: object, *, early: bool = False) -> None:
        """A phase begins that updates wait for. One inside another is a part of it. `early` tells at once, before the link
        thread may be held up too."""
        if self._pause is not None:
            self._pause.holders.append(holder)
            return
        self._count += 1
        self._pause = pause = Pause(name, self._count, now_ns, [holder], early=early)
        if early:
            self._tell(pause, False, 0)

    def resume(self, now_ns: int, holder: object) -> None:
        """It ends; nothing for a holder whose begin was cut short."""
        pause = self._pause
        if pause is None or holder not in pause.holders:
            return
        if len(pause.holders) > 1:
            pause.holders.remove(holder)
            return
        self._pause = None
        if pause.early or now_ns - pause.begin_ns >= TOLD_AFTER_NS:
            self._tell(pause, True, now_ns - pause.begin_ns)

    def tell_pause(self, connection: int, now_ns: int) -> None:
        """Tell of a pause that lasts, once on each connection: a daemon that restarted meanwhile hears of it too."""
        pause = self._pause
        if pause is not None and pause.told != connection and now_ns - pause.begin_ns >= TOLD_AFTER_NS:
            pause.told = connection
            self._tell(pause, False, now_ns - pause.begin_ns)

    def add(self, name: str, spent_ns: int) -> None:
        """A block of this phase ended."""
        self.spent[name] = self.spent.get(name, 0) + spent_ns

    def tell(self, tally: Tally | None) -> None:
        """Add the columns of the update, unless its level has none, and begin anew."""
        spent, self.spent = self.spent, {}
        if tally is not None:
            for name, spent_ns in spent.items():
                tally.add("sys.phase_ms", (spent_ns / 1e6,), name)
