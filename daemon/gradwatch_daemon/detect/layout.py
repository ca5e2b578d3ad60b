"""What is worked out once and shared: where signals stand in the rows of a schema, and arrays that never change."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from gradwatch_contracts.needs import STAND_INS
from gradwatch_contracts.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gradwatch_daemon.records import F64, I64, SignalKey, Verdicts

T = TypeVar("T")
D = TypeVar("D", bound=np.generic)

PER_SUBJECT = frozenset(name for name, signal in SIGNALS.items() if signal.spec.per)

EARLY = -1
"""Minibatch index for before the first one, or for not known where."""


class Constants:
    """Read-only arrays of one length that every block of that length shares."""

    __slots__ = ("_ints", "_numbers", "early", "never")

    def __init__(self, n: int) -> None:
        self.early: I64 = _frozen(np.full(n, EARLY, np.int64))
        self.never: NDArray[np.bool_] = _frozen(np.zeros(n, np.bool_))
        self._numbers: dict[float, F64] = {}
        self._ints: dict[int, I64] = {}

    def number(self, value: float) -> F64:
        """One number for every row. NaN is one key, as long as it is `math.nan`."""
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = _frozen(np.full(len(self.never), value))
        return found

    def integer(self, value: int) -> I64:
        """One whole number for every row."""
        found = self._ints.get(value)
        if found is None:
            found = self._ints[value] = _frozen(np.full(len(self.never), value, np.int64))
        return found


def _frozen(array: NDArray[D]) -> NDArray[D]:
    array.setflags(write=False)
    return array


class Layout:
    """Where each signal of a tuple of signals stands, and what detectors worked out from it. One per tuple."""

    __slots__ = ("calm", "index", "places", "plans", "reasons", "signals", "stands_in", "subjects")

    def __init__(self, signals: tuple[SignalKey, ...]) -> None:
        self.signals = signals
        self.index: dict[tuple[str, str], int] = {key: place for place, key in enumerate(signals)}
        self.places: dict[str, int] = {key.name: place for place, key in enumerate(signals) if not key.subject}
        """Place of a signal of the whole; the same as in `index`, at half of the cost."""
        self.stands_in: dict[str, str] = {}
        """Signal that these rows do not list → the one that is judged in its place."""
        for name, other in STAND_INS.items():
            if name not in self.places and other in self.places:
                self.stands_in[name] = other
                self.places[name] = self.index[name, ""] = self.places[other]
        self.subjects: dict[str, tuple[str, ...]] = {}
        for name, subject in signals:
            self.subjects[name] = (*self.subjects.get(name, ()), subject)
        self.plans: dict[str, object] = {}
        self.calm: dict[tuple[str, str, int, str], Verdicts] = {}
        self.reasons: dict[tuple[str, str, int, bool], str] = {}

    @staticmethod
    def per_subject(name: str) -> bool:
        """Whether the registry takes a signal for each head, layer, phase or key."""
        return name in PER_SUBJECT

    def plan(self, name: str, build: Callable[[tuple[SignalKey, ...]], T]) -> T:
        """What `build` makes of the signals, once."""
        found = self.plans.get(name)
        if found is None:
            found = self.plans[name] = build(self.signals)
        return found  # type: ignore[return-value]
