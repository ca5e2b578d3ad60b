"""Detectors that cannot judge an update because the agent left something out of it to save time: they rest, and are not blind.

A collector that is thinned runs in every 2nd, 4th … 64th update, and what reads it can judge those. Between them it stands as
it stood in the last of them, which is said; when that is too long ago it is blind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradwatch_contracts.columns import STATUS_REASON, RowFlag, Status
from gradwatch_daemon.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gradwatch_daemon.records import SignalBlock, Verdicts

BLIND, PARTIAL = int(Verdict.BLIND), int(RowFlag.PARTIAL)

RESTS_MAX = 128
"""Updates without a judgement after which a detector is blind, whatever the reason: twice the slowest pace of the agent."""

THINNED = STATUS_REASON[Status.THINNED]


Standing = tuple[str, str, int, str]
"""Kind and subject of a detector, the code of its last verdict and the reason for it."""


class Resting:
    """When each detector that is blind now was last able to judge, and how it stood then. Equal however rows are batched."""

    __slots__ = ("_blind", "_held", "_update")

    def __init__(self) -> None:
        self._blind: list[tuple[str, str]] = []
        self._held: dict[tuple[str, str], tuple[int, int]] = {}
        self._update = -1

    def step(self, block: SignalBlock, verdicts: Sequence[Verdicts], before: Callable[[], list[Standing]]) -> None:
        """Take a block whose last row is whole; `before` says how detectors stood after the one before. Mostly the same are
        blind as ever, and nothing is to be done."""
        blind = [(v.kind, v.subject) for v in verdicts if v.code[-1] == BLIND]
        last, self._update = self._update, int(block.update[-1])
        if len(block) == 1 and blind == self._blind:
            return
        earlier = {(kind, subject): (code, last) for kind, subject, code, _ in before() if code != BLIND} | self._held
        flags = block.flags.tolist()
        held = {}
        for v in verdicts:
            if v.code[-1] != BLIND:
                continue
            row = None
            if v.code.count(BLIND) < len(v.code):  # most that are blind never saw anything
                judged = (row for row in reversed(range(len(flags))) if v.code[row] != BLIND and not flags[row] & PARTIAL)
                row = next(judged, None)
            found = earlier.get((v.kind, v.subject)) if row is None else (v.code[row], int(block.update[row]))
            if found is not None:
                held[v.kind, v.subject] = found
        self._blind, self._held = blind, held

    def go_on(self, update: int) -> None:
        """Take an update that leaves every detector as it stood."""
        self._update = update

    @property
    def any(self) -> bool:
        """Whether one of those that are blind could judge before."""
        return bool(self._held)

    def standing(self, kind: str, subject: str, code: int, reason: str) -> Standing:
        """How a detector stands by its last verdict, or by the one before it rests from; and why."""
        found = self._held.get((kind, subject)) if code == BLIND and THINNED in reason else None
        if found is None or self._update - found[1] > RESTS_MAX:
            return kind, subject, code, reason
        return kind, subject, found[0], f"rests, judged last in update {found[1]}: {reason}"

    def state(self) -> list[Any]:
        """Everything it remembers."""
        return [self._update, sorted([*key, *held] for key, held in self._held.items())]

    @classmethod
    def restored(cls, state: list[Any]) -> Resting:
        """The one that gave this `state`. Who is blind is found out with the next row."""
        resting = cls()
        resting._update = state[0]
        resting._held = {(kind, subject): (code, update) for kind, subject, code, update in state[1]}
        return resting
