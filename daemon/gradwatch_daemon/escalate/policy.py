"""When an anomaly raises the level by itself, and how much of that a run is spared. Operators are not bound by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from gradwatch_contracts.control import ControlState, Level, Severity
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records.commands import ANOMALY_ORIGIN, Allowance, RequestEscalation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gradwatch_daemon.records import Anomaly, Escalation

BUDGET_WINDOW_UPDATES = 500
BUDGET_SHARE = 0.1
"""At most this share of the last `BUDGET_WINDOW_UPDATES` updates at the rules' wish: 0.5 % of the time at a cost of 5 %."""

BUDGET_UPDATES_LEAST = 5
"""Always allowed: a fault in the first updates, when a tenth of what has passed is nothing yet."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a rule asks for when it fires.

    `level` OFF: nothing. `updates`: how long; 5 are enough to see a fault twice on either side of its onset. `extension`: how
    long from then on, when another fires while one holds; 0: it is not extended. `cooldown`: updates after a raise for this
    rule in which it asks for none. `share`: of the last 500 updates, that this rule may hold the level for.
    """

    level: Level = Level.DEBUG
    updates: int = 5
    extension: int = 5
    cooldown: int = 0
    share: float = BUDGET_SHARE


@dataclass(frozen=True, slots=True)
class Decision:
    """What comes of an anomaly: a request, in the place of escalation `extends` where that is named; or why it is `spared`,
    and from which update on it would not be."""

    request: RequestEscalation | None = None
    extends: str = ""
    spared: str = ""
    refill: int | None = None


NOTHING = Decision()


@dataclass(frozen=True, slots=True)
class Policy:
    """The responses by kind of anomaly, and the one for all others, whose share bounds all rules together."""

    default: Response = Response()
    by_kind: Mapping[str, Response] = field(default_factory=dict)

    def decide(
        self, anomaly: Anomaly, history: Iterable[Escalation], *, precursor: bool = False, explain: bool = True
    ) -> Decision:
        """The escalation an anomaly asks for, or why it gets none.

        It must fire (not be over already) with severity warning or worse, or be a `precursor`, which says nothing to anybody
        and only looks closer; and not have asked before; and no rule's request may still be on its way, for that one will
        cover this anomaly too. Then cooldown and budgets decide; why not is only said to `explain`. `history` is the
        escalations of the run's present attempt, ended ones included. Applied updates count in full while any of them lies in
        the window, which errs on the side of the trainer.
        """
        if (anomaly.severity.rank < Severity.WARNING.rank and not precursor) or anomaly.state != "firing":
            return NOTHING
        response = self.by_kind.get(anomaly.kind, self.default)
        id_, now = f"a-{anomaly.id}", anomaly.update_last
        ours = [one for one in history if one.origin.startswith(ANOMALY_ORIGIN)]
        waiting = (ControlState.REQUESTED, ControlState.DELIVERED)
        if response.level is Level.OFF or any(one.id == id_ or one.state in waiting for one in ours):
            return NOTHING
        held = next((one for one in reversed(ours) if one.state is ControlState.APPLIED and not one.ended_why), None)
        if held is not None and not response.extension:
            return NOTHING
        updates = response.updates if held is None else response.extension
        refusal = self._refusal(anomaly.kind, updates, ours, now, again=held is None)
        if refusal is not None:
            return refusal() if explain else NOTHING
        level = response.level if held is None else max(held.level, response.level)
        reason = f"{anomaly.severity.value} {anomaly.kind}: {anomaly.sentence}"
        request = RequestEscalation(anomaly.run, id_, level, updates, reason)
        return Decision(request, held.id if held is not None else "")

    def _refusal(
        self, kind: str, updates: int, ours: Sequence[Escalation], now: int, *, again: bool
    ) -> Callable[[], Decision] | None:
        """What says why a rule is not granted `updates` now, None where it is. `again`: not while another of the rules holds,
        which it would extend."""
        response = self.by_kind.get(kind, self.default)
        own = [one for one in ours if one.kind == kind]
        ended = max((one.update_ended or 0 for one in own), default=None)
        if again and ended is not None and now < ended + response.cooldown:
            until = ended + response.cooldown
            return lambda: Decision(spared=f"{kind or 'it'} rests until update {until}", refill=until)
        for spenders, share, whose in ((ours, self.default.share, "the rules"), (own, response.share, kind)):
            room = Budget(spenders, share)
            if room.spent(now) + updates > room.of(now):
                return partial(room.refuse, whose or "it", now, updates)
        return None

    def check(self, request: RequestEscalation, kind: str, history: Iterable[Escalation], now: int) -> None:
        """Hold whoever asks in the name of an anomaly of `kind` to what its rule may: level, cooldown and budgets.

        Raises:
            GradwatchError: `budget-spent`, with the update from which on it would be granted.
        """
        ours = [one for one in history if one.origin.startswith(ANOMALY_ORIGIN)]
        held = any(one.state is ControlState.APPLIED and not one.ended_why for one in ours)
        may = self.by_kind.get(kind, self.default).level
        if request.level > may:
            expected, why = (
                f"at most {may.name.lower()}",
                f"{kind or 'A rule'} asks for no more: its level is {may.name.lower()}",
            )
        else:
            refusal = self._refusal(kind, request.updates, ours, now, again=not held)
            if refusal is None:
                return
            expected, why = "what the rules may", refusal().spared
        raise GradwatchError(
            "budget-spent",
            where=f"escalation {request.id}",
            expected=expected,
            got=f"{request.level.name.lower()} for {request.updates} updates",
            next_step=f"{why[:1].upper()}{why[1:]}.",
        )

    def allowance(self, history: Iterable[Escalation], now: int, refill: int | None) -> Allowance:
        """How the budget of all rules stands at update `now`."""
        room = Budget([one for one in history if one.origin.startswith(ANOMALY_ORIGIN)], self.default.share)
        later = refill if refill is not None and refill > now else None
        return Allowance(room.spent(now), room.of(now), BUDGET_WINDOW_UPDATES, later)


@dataclass(frozen=True, slots=True)
class Budget:
    """What some escalations may hold the level for: a share of the last 500 updates, and `BUDGET_UPDATES_LEAST` at least."""

    spenders: Sequence[Escalation]
    share: float

    def of(self, now: int) -> int:
        """Updates allowed in the window that ends with update `now`."""
        return max(BUDGET_UPDATES_LEAST, int(self.share * min(BUDGET_WINDOW_UPDATES, now + 1)))

    def spent(self, now: int) -> int:
        """Updates held, or that may still be held, within that window."""
        return sum(held_updates(one, now) for one in self.spenders)

    def refill(self, now: int, wanted: int) -> int | None:
        """The first update from `now` on at which there is room for `wanted`, if nothing more is spent; None for never."""
        later = range(now, now + 2 * BUDGET_WINDOW_UPDATES)
        return next((update for update in later if self.spent(update) + wanted <= self.of(update)), None)

    def refuse(self, whose: str, now: int, wanted: int) -> Decision:
        """The decision that says so."""
        refill = self.refill(now, wanted)
        again = f"there is room for {wanted} again at update {refill}" if refill is not None else f"{wanted} are never allowed"
        held = f"{whose} held the level for {self.spent(now)} of the {self.of(now)} updates allowed"
        return Decision(spared=f"{held} in the last {BUDGET_WINDOW_UPDATES}; {again}", refill=refill)


def held_updates(escalation: Escalation, now: int) -> int:
    """Updates an escalation held or may still hold, 0 when it never applied or all of it lies before the window."""
    if escalation.state is ControlState.LOST:
        return 0  # of an attempt that is over, on another count of updates
    applied, ended = escalation.update_applied, escalation.update_ended
    if applied is None:
        return escalation.updates if escalation.state.open else 0
    held = escalation.updates if ended is None else min(escalation.updates, max(0, ended - applied))
    return held if applied + held > now + 1 - BUDGET_WINDOW_UPDATES else 0
