"""When an anomaly raises the level, and when the budget says no."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.control import ControlState, Level, Severity
from gradwatch_contracts.names import ID
from gradwatch_daemon.escalate.policy import Budget, Policy, Response, held_updates
from gradwatch_daemon.records import Anomaly, Escalation
from harness.blocks import Watch, signal_block

if TYPE_CHECKING:
    from gradwatch_daemon.records.commands import RequestEscalation

STATE = ControlState


def decide(anomaly: Anomaly, history: list[Escalation], *, precursor: bool = False) -> RequestEscalation | None:
    """What the default policy asks for."""
    return Policy().decide(anomaly, history, precursor=precursor).request


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


def rule(id_: str, kind: str, applied: int, ended: int | None = None, **changes: object) -> Escalation:
    """A raise that a rule of `kind` asked for."""
    state = STATE.ENDED if ended is not None else STATE.APPLIED
    return replace(held(id_, applied, ended, state), reason="it: did so", kind=kind, **changes)  # type: ignore[arg-type]


def test_policy_level_off_never_raises_and_is_no_refusal(anomaly: Anomaly) -> None:
    """Somebody wants nothing of this rule; others are as before."""
    policy = Policy(by_kind={anomaly.kind: Response(level=Level.OFF)})
    assert policy.decide(anomaly, []).request is None
    assert policy.decide(anomaly, []).spared == ""
    assert policy.decide(replace(anomaly, kind="other"), []).request is not None


def test_policy_rule_asks_for_its_own_level_and_duration(anomaly: Anomaly) -> None:
    """Per rule; within the same budgets."""
    policy = Policy(by_kind={anomaly.kind: Response(Level.NORMAL, updates=3)})
    request = policy.decide(anomaly, []).request
    assert request is not None
    assert (request.level, request.updates) == (Level.NORMAL, 3)


def test_policy_another_anomaly_extends_the_raise_that_holds(anomaly: Anomaly) -> None:
    """By its own extension, at no lower level; with none it is covered already."""
    running = rule("a-1", "kl_spike", 119)
    policy = Policy(Response(extension=4), {"quiet": Response(extension=0)})
    decision = policy.decide(anomaly, [running])
    assert decision.request is not None
    assert (decision.extends, decision.request.updates, decision.request.level) == ("a-1", 4, Level.DEBUG)
    assert policy.decide(replace(anomaly, kind="quiet"), [running]) == Policy().decide(replace(anomaly, state="resolved"), [])
    assert policy.decide(anomaly, [replace(running, ended_why="extended by a-2")]).extends == ""


def test_policy_rule_in_its_cooldown_asks_for_nothing_and_says_until_when(anomaly: Anomaly) -> None:
    """Of its own raises only; at the end it may again."""
    policy = Policy(by_kind={anomaly.kind: Response(cooldown=20)})
    spared = policy.decide(anomaly, [rule("a-1", anomaly.kind, 96, 101)])
    assert (spared.request, spared.refill) == (None, 121)
    assert "rests until update 121" in spared.spared
    assert policy.decide(anomaly, [rule("a-1", anomaly.kind, 95, 100)]).request is not None
    assert policy.decide(anomaly, [rule("a-1", "other", 96, 101)]).request is not None


def test_policy_budget_that_is_spent_says_when_there_is_room_again(anomaly: Anomaly) -> None:
    """The update it names is the first one at which the same anomaly would be granted."""
    history = [rule(f"a-{i}", "other", 10 * i, 10 * i + 5) for i in range(2)]
    spared = Policy().decide(anomaly, history)
    assert spared.request is None
    assert "10 of the 12 updates allowed" in spared.spared
    assert spared.refill is not None
    assert Policy().decide(replace(anomaly, update_last=spared.refill), history).request is not None
    assert Policy().decide(replace(anomaly, update_last=spared.refill - 1), history).request is None
    assert Policy().decide(anomaly, history, precursor=True, explain=False).spared == ""


def test_policy_rules_own_share_is_spent_before_that_of_all(anomaly: Anomaly) -> None:
    """One noisy rule does not take the others' part."""
    policy = Policy(Response(share=0.5), {anomaly.kind: Response(share=0.05)})
    own = [rule("a-1", anomaly.kind, 20, 25)]
    spared = policy.decide(anomaly, own)
    assert spared.request is None
    assert spared.spared.startswith(f"{anomaly.kind} held")
    assert policy.decide(replace(anomaly, kind="other"), own).request is not None


def test_budget_that_can_never_hold_what_is_wanted_says_never() -> None:
    """A duration beyond the share of a whole window."""
    assert Budget([], 0.1).refill(0, 51) is None
    assert "never allowed" in Budget([], 0.1).refuse("x", 0, 51).spared
