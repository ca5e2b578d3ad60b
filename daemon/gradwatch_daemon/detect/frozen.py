"""For how many updates an agent call has sent exactly the same numbers: telemetry of a buffer that nobody fills any more."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gradwatch_contracts.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from gradwatch_daemon.records import F32, I64, U8, SignalKey

CALLS = ("rollout", "ppo", "recurrent", "clip")
"""Calls whose numbers come from samples or weights: no two updates of a live run agree in all of them."""

MEASURED_LEAST = 3
"""Measured signals without which a call says too little."""

PATTERNS_MAX = 256
"""Rows of statuses remembered for one layout."""

VARIED = 8
"""Changes seen before standing still means something: what never varied may be made that way."""


@dataclass(frozen=True, slots=True)
class Group:
    """The signals of one call in a layout: their rows, and both as pickers of a row's values and statuses."""

    call: str
    rows: I64
    pick: Callable[[Sequence[Any]], tuple[Any, ...]]
    patterns: dict[bytes, bytes]

    def pattern(self, status: bytes) -> bytes:
        """Its statuses in a row with these. Rows repeat, so the answers are kept (a bounded few)."""
        found = self.patterns.get(status)
        if found is None:
            if len(self.patterns) >= PATTERNS_MAX:
                self.patterns.clear()
            found = self.patterns[status] = bytes(self.pick(status))
        return found


def came(status: U8) -> NDArray[np.bool_]:
    """Updates, of statuses u8[signals, n] of a call, in which enough of it was measured."""
    enough: NDArray[np.bool_] = np.count_nonzero(status == 0, axis=0) >= MEASURED_LEAST
    return enough


def groups_of(signals: tuple[SignalKey, ...]) -> tuple[Group, ...]:
    """Work them out once for a layout."""
    found = []
    for call in CALLS:
        rows = [row for row, key in enumerate(signals) if SIGNALS[key.name].spec.call == call]
        if len(rows) >= MEASURED_LEAST:
            found.append(Group(call, np.array(rows, np.int64), itemgetter(*rows), {}))
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

    def knows(self, call: str) -> bool:
        """Whether it ever came."""
        return call in self._held

    @property
    def watching(self) -> bool:
        """Whether any call ever came."""
        return bool(self._held)

    def steps(self, call: str, values: F32, status: U8, whole: NDArray[np.bool_]) -> list[int]:
        """`step` for each `whole` row of values [signals, n], 0 elsewhere."""
        rows = np.flatnonzero(whole & came(status))
        still = [0] * len(whole)
        if not len(rows):
            return still
        if len(rows) < len(whole):
            values, status = values[:, rows], status[:, rows]
        first = self.step(call, tuple(values[:, 0].tolist()), status[:, 0].tobytes())
        still[int(rows[0])] = first
        _, _, changes, lasting = self._held[call]
        same = values[0, 1:] == values[0, :-1]
        if same.any():  # of a live run the first signal alone differs nearly everywhere
            same = (values[:, 1:] == values[:, :-1]).all(axis=0) & (status[:, 1:] == status[:, :-1]).all(axis=0)
        if same.any():
            for row, alike in zip(rows[1:].tolist(), same.tolist(), strict=True):
                changes, lasting = (changes, lasting + 1) if alike else (min(changes + 1, VARIED), 0)
                still[row] = lasting if changes >= VARIED else 0
        elif len(rows) > 1:
            changes, lasting = min(changes + len(rows) - 1, VARIED), 0
        self._held[call] = (tuple(values[:, -1].tolist()), status[:, -1].tobytes(), changes, lasting)
        return still

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
