"""When an anomaly raises the level, and when the budget says no."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradwatch_contracts.control import ControlState, Level, Severity
from gradwatch_contracts.names import ID
from gradwatch_daemon.escalate.policy import decide, held_updates
from gradwatch_daemon.records import Anomaly, Escalation
from harness.blocks import Watch, signal_block

STATE = ControlState


@pytest.fixture
def anomaly() -> Anomaly:
    """A critical anomaly that fired at update 120."""
    (found,) = Watch().feed(signal_block(1, start=120, policy__kl__k3=0.9))
    return found


def held(id_: str, applied: int | None, ended: int | None, state: STATE = STATE.ENDED, origin: str = "anomaly:x") -> Escalation:
    """An escalation of 5 updates."""
    return Escalation(id_, "run", Level.DEBUG, 5, origin, "", state, 0, applied, ended)


def test_policy_info_and_resolved_anomalies_ask_for_nothing(anomaly: Anomaly) -> None:
    """A note never escalates; what is over has nothing left to show."""
    assert decide(replace(anomaly, severity=Severity.INFO), []) is None
    assert decide(replace(anomaly, state="resolved"), []) is None


def test_policy_firing_warning_asks_for_debug_for_five_updates(anomaly: Anomaly) -> None:
    """Warning and critical ask; the id is made of the anomaly's, so asking again is the same request."""
    for severity in (Severity.WARNING, Severity.CRITICAL):
        request = decide(replace(anomaly, severity=severity), [])
        assert request is not None
        assert (request.run, request.level, request.updates) == ("run", Level.DEBUG, 5)
        assert request.id == f"a-{anomaly.id}"
        assert ID.fullmatch(request.id)
        assert anomaly.sentence in request.reason


def test_policy_asks_once_per_anomaly_and_not_while_one_is_on_its_way(anomaly: Anomaly) -> None:
    """The one that is requested or delivered will cover this anomaly too."""
    assert decide(anomaly, [held(f"a-{anomaly.id}", 120, 125)]) is None
    for state in (STATE.REQUESTED, STATE.DELIVERED):
        assert decide(anomaly, [held("a-other", None, None, state)]) is None
    assert decide(anomaly, [held("op", None, None, STATE.REQUESTED, origin="operator")]) is not None
    assert decide(anomaly, [held("a-other", 118, None, STATE.APPLIED)]) is not None


@pytest.mark.parametrize(
    ("update", "spent", "granted"), [(2, 0, True), (2, 1, False), (98, 1, False), (99, 1, True), (120, 2, False)]
)
def test_policy_budget_is_a_tenth_of_what_has_passed_and_five_at_least(
    anomaly: Anomaly, update: int, spent: int, granted: bool
) -> None:
    """At update 2 the first five are free; ten need a hundred updates."""
    history = [held(f"a-{i}", 0, 5) for i in range(spent)]
    assert (decide(replace(anomaly, update_last=update), history) is not None) is granted


def test_policy_operators_escalations_cost_no_budget(anomaly: Anomaly) -> None:
    """People are not bound, and do not bind the rules."""
    assert decide(anomaly, [held(f"op{i}", 0, 5, origin="operator") for i in range(50)]) is not None


def test_policy_counts_only_what_held_within_the_last_five_hundred() -> None:
    """Ended early counts as held; never applied, lost or long ago counts nothing."""
    assert held_updates(held("a", 10, 12), 20) == 2
    assert held_updates(held("a", 10, None, STATE.APPLIED), 20) == 5
    assert held_updates(held("a", None, None, STATE.REJECTED), 20) == 0
    assert held_updates(held("a", 10, None, STATE.LOST), 20) == 0
    assert held_updates(held("a", 10, 15), 513) == 5
    assert held_updates(held("a", 10, 15), 514) == 0


def test_policy_precursor_raises_though_it_is_info_and_other_info_does_not(anomaly: Anomaly) -> None:
    """A sign of what may come says nothing to anybody, and looks closer."""
    note = replace(anomaly, severity=Severity.INFO)
    assert decide(note, []) is None
    request = decide(note, [], precursor=True)
    assert request is not None
    assert request.level is Level.DEBUG
