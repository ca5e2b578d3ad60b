"""For how many updates an agent call has sent exactly the same numbers: telemetry of a buffer that nobody fills any more."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gradwatch_contracts.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gradwatch_daemon.records import I64, SignalKey

CALLS = ("rollout", "ppo", "recurrent", "clip")
"""Calls whose numbers come from samples or weights: no two updates of a live run agree in all of them."""

MEASURED_LEAST = 3
"""Measured signals without which a call says too little."""

VARIED = 8
"""Changes seen before standing still means something: what never varied may be made that way."""


@dataclass(frozen=True, slots=True)
class Group:
    """The signals of one call in a layout: their rows, and both as pickers of a row's values and statuses."""

    call: str
    rows: I64
    pick: Callable[[Sequence[Any]], tuple[Any, ...]]


def groups_of(signals: tuple[SignalKey, ...]) -> tuple[Group, ...]:
    """Work them out once for a layout."""
    found = []
    for call in CALLS:
        rows = [row for row, key in enumerate(signals) if SIGNALS[key.name].spec.call == call]
        if len(rows) >= MEASURED_LEAST:
            found.append(Group(call, np.array(rows, np.int64), itemgetter(*rows)))
    return tuple(found)


class Frozen:
    """The last numbers of each call, how often they changed (up to `VARIED`), and for how many updates they have not."""

    TAG: ClassVar[str] = "frozen"

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, tuple[tuple[float, ...], bytes, int, int]] = {}
        """Call → (values, statuses, changes, updates with the same)."""

    @property
    def calls(self) -> tuple[str, ...]:
        """Those that ever came."""
        return tuple(sorted(self._held))

    def step(self, call: str, values: tuple[float, ...], status: bytes) -> int:
        """Take a whole update; for how many updates its numbers stand still, 0 while that means nothing."""
        if status.count(0) < MEASURED_LEAST:
            return 0
        before = self._held.get(call)
        if before is None:
            self._held[call] = (values, status, 0, 0)
            return 0
        old, old_status, changes, still = before
        if old == values and old_status == status:
            still += 1
        else:
            changes, still = min(changes + 1, VARIED), 0
        self._held[call] = (values, status, changes, still)
        return still if changes >= VARIED else 0

    def rewind(self, update: int) -> None:
        """The trainer went back; what it sends did not change by that."""

    def state(self) -> list[Any]:
        """Everything it remembers."""
        return [[call, list(values), *rest] for call, (values, *rest) in sorted(self._held.items())]

    @classmethod
    def restored(cls, state: list[Any]) -> Frozen:
        """The one that gave this `state`."""
        frozen = cls()
        for call, values, status, changes, still in state:
            frozen._held[call] = (tuple(values), status, changes, still)
        return frozen
