"""When an anomaly raises the level by itself, and how much of that a run is spared. Operators are not bound by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts.control import ControlState, Level, Severity
from gradwatch_daemon.commands import RequestEscalation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gradwatch_daemon.records import Anomaly, Escalation

ANOMALY_ORIGIN = "anomaly:"
"""What the origin of a rule's escalation begins with; the anomaly's id follows."""

LEVEL = Level.DEBUG
UPDATES = 5
"""How long a rule raises: enough to see a fault twice on either side of its onset, at 5 % of an update each."""

BUDGET_WINDOW_UPDATES = 500
BUDGET_SHARE = 0.1
"""At most this share of the last `BUDGET_WINDOW_UPDATES` updates at the rules' wish: 0.5 % of the time at a cost of 5 %."""

BUDGET_UPDATES_LEAST = UPDATES
"""Always allowed: a fault in the first updates, when a tenth of what has passed is nothing yet."""


def decide(anomaly: Anomaly, history: Iterable[Escalation], *, precursor: bool = False) -> RequestEscalation | None:
    """The escalation an anomaly asks for, or None.

    It must fire (not be over already) with severity warning or worse, or be a `precursor`, which says nothing to anybody and
    only looks closer; and not have asked before; the rules' budget must
    hold; and no rule's request may still be on its way, for that one will cover this anomaly too. `history` is the
    escalations of the run's present attempt, ended ones included. Applied updates count in full while any of
    them lies in the window, which errs on the side of the trainer.
    """
    if (anomaly.severity.rank < Severity.WARNING.rank and not precursor) or anomaly.state != "firing":
        return None
    id_ = f"a-{anomaly.id}"
    spent, now = 0, anomaly.update_last
    for escalation in history:
        if not escalation.origin.startswith(ANOMALY_ORIGIN):
            continue
        if escalation.id == id_ or escalation.state in (ControlState.REQUESTED, ControlState.DELIVERED):
            return None
        spent += held_updates(escalation, now)
    budget = max(BUDGET_UPDATES_LEAST, int(BUDGET_SHARE * min(BUDGET_WINDOW_UPDATES, now + 1)))
    if spent + UPDATES > budget:
        return None
    return RequestEscalation(anomaly.run, id_, LEVEL, UPDATES, f"{anomaly.severity.value} {anomaly.kind}: {anomaly.sentence}")


def held_updates(escalation: Escalation, now: int) -> int:
    """Updates an escalation held or may still hold, 0 when it never applied or all of it lies before the window."""
    if escalation.state is ControlState.LOST:
        return 0  # of an attempt that is over, on another count of updates
    applied, ended = escalation.update_applied, escalation.update_ended
    if applied is None:
        return escalation.updates if escalation.state.open else 0
    held = escalation.updates if ended is None else min(escalation.updates, max(0, ended - applied))
    return held if applied + held > now + 1 - BUDGET_WINDOW_UPDATES else 0
