"""Which signals always came, and for how many updates they have not: absence that nobody chose.

A signal counts as present where it was measured or not defined, as absent where its call did not come or failed; what the
level, thinning or a capture left out says nothing. Rows are compared as patterns of these three, and only where the pattern
changes is every signal looked at: that is rare, and a run of equal rows costs one comparison each.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gradwatch_contracts.columns import Status
from gradwatch_contracts.signals import SIGNALS, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradwatch_daemon.records import I64, U8, SignalKey

STEADY = 20
"""Updates in a row with a signal before its absence means something."""

IRREGULAR = frozenset({Stage.EPISODE, Stage.SYS, Stage.USER})
"""Come when an episode ends, or when the trainer likes."""

PATTERNS_MAX = 256
"""Rows of statuses remembered for one layout."""

PRESENT, ABSENT, NEITHER = 1, 0, 2
_CLASSES = {
    Status.MEASURED: PRESENT,
    Status.UNDEFINED: PRESENT,
    Status.LEVEL: NEITHER,
    Status.THINNED: NEITHER,
    Status.CAPTURING: NEITHER,
    Status.INCOMPLETE: NEITHER,
}
CLASS_OF = bytes(_CLASSES.get(code, ABSENT) for code in range(256))  # type: ignore[call-overload]
"""Class of each status byte, as a table for `bytes.translate`."""

CLASS_ARRAY: U8 = np.frombuffer(CLASS_OF, np.uint8)


@dataclass(frozen=True, slots=True)
class Watched:
    """The signals of a layout whose absence means something: their rows, names and the agent call that feeds each."""

    rows: I64
    names: tuple[str, ...]
    calls: tuple[str, ...]
    pick: Callable[[bytes], tuple[int, ...]]
    patterns: dict[bytes, bytes]

    def pattern(self, status: bytes) -> bytes:
        """Class of each watched signal in a row with these statuses. Rows repeat, so the answers are kept (a bounded few)."""
        found = self.patterns.get(status)
        if found is None:
            if len(self.patterns) >= PATTERNS_MAX:
                self.patterns.clear()
            found = self.patterns[status] = bytes(self.pick(status)).translate(CLASS_OF)
        return found

    @classmethod
    def of(cls, signals: tuple[SignalKey, ...]) -> Watched:
        """Work it out once for a layout."""
        kept = [(row, key) for row, key in enumerate(signals) if SIGNALS[key.name].stage not in IRREGULAR]
        rows = [row for row, _ in kept]
        return cls(
            np.array(rows, np.int64),
            tuple(f"{key.name} {key.subject}" for _, key in kept),
            tuple(SIGNALS[key.name].spec.call for _, key in kept),
            # Two or more: `itemgetter` of one gives no tuple, of none nothing at all.
            itemgetter(*rows) if len(rows) > 1 else lambda status: tuple(status[row] for row in rows),
            {},
        )


class Presence:
    """How long each signal has come or been missing. The present run of equal rows is folded in when it ends."""

    TAG: ClassVar[str] = "presence"

    __slots__ = ("_came", "_missing", "_names", "_pattern", "_run")

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._pattern = b""
        self._run = 0
        self._came: dict[str, int] = {}
        self._missing: dict[str, tuple[int, str]] = {}

    def step(self, watched: Watched, pattern: bytes, rows: int) -> None:
        """Take `rows` equal whole rows; `pattern` is the class of each watched signal."""
        if pattern == self._pattern and (watched.names is self._names or watched.names == self._names):
            self._run += rows
            return
        self._fold()
        self._names, self._pattern, self._run = watched.names, pattern, rows
        for name in (self._came.keys() | self._missing.keys()).difference(watched.names):
            self._came.pop(name, None)  # another schema: what it does not list was not dropped by a call
            self._missing.pop(name, None)
        for name, kind, call in zip(watched.names, pattern, watched.calls, strict=True):
            if kind == ABSENT and self._came.get(name, 0) >= STEADY:
                self._missing.setdefault(name, (0, call))
            elif kind == PRESENT:
                self._missing.pop(name, None)

    def missing(self) -> dict[str, int]:
        """Agent call → updates for which a signal of it that always came has been missing."""
        worst: dict[str, int] = {}
        for name, (before, call) in self._missing.items():
            now = self._run if self._pattern[self._names.index(name)] == ABSENT else 0
            worst[call] = max(worst.get(call, 0), before + now)
        return worst

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self._missing

    @property
    def watching(self) -> bool:
        """Whether any signal came, so that it could stop coming."""
        return PRESENT in self._pattern or any(self._came.values())

    def _fold(self) -> None:
        for name, kind in zip(self._names, self._pattern, strict=True):
            if kind == PRESENT:
                self._came[name] = min(self._came.get(name, 0) + self._run, STEADY)
            elif kind == ABSENT and name in self._missing:
                before, call = self._missing[name]
                self._missing[name] = (before + self._run, call)
            elif kind == ABSENT:
                self._came[name] = 0

    def rewind(self, update: int) -> None:
        """The trainer went back; what it sends did not change by that."""

    def state(self) -> list[Any]:
        """Everything it remembers."""
        missing = [[name, *held] for name, held in sorted(self._missing.items())]
        return [list(self._names), self._pattern, self._run, sorted(self._came.items()), missing]

    @classmethod
    def restored(cls, state: list[Any]) -> Presence:
        """The one that gave this `state`."""
        presence = cls()
        names, presence._pattern, presence._run, came, missing = state
        presence._names = tuple(names)
        presence._came = dict(came)
        presence._missing = {name: (updates, call) for name, updates, call in missing}
        return presence
