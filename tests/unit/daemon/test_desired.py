"""Escalations of one run: forward only, idempotent, bounded; the desired state that follows."""

from __future__ import annotations

import pytest

from gradwatch_contracts import limits
from gradwatch_contracts.control import Active, ControlState, Desired, Level
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.escalate.desired import CLOSED_MAX, Escalations
from gradwatch_daemon.records.commands import RequestEscalation

STATE = ControlState


def ask(id_: str = "e1", level: Level = Level.DEBUG, updates: int = 50, reason: str = "look") -> RequestEscalation:
    """An operator's request."""
    return RequestEscalation("run", id_, level, updates, reason)


def opened(*ids: str) -> Escalations:
    """A run with requested escalations."""
    escalations = Escalations("run")
    for id_ in ids:
        escalations.request(ask(id_), "operator", 5)
    return escalations


@pytest.mark.parametrize("other", [ask(level=Level.MINIMAL), ask(updates=51), ask(reason="else")])
def test_escalation_same_id_other_content_is_refused(other: RequestEscalation) -> None:
    """An id names one request for ever; also against what only the store remembers."""
    escalations = opened("e1")
    with pytest.raises(GradwatchError, match="used before for another request") as error:
        escalations.request(other, "operator", 9)
    assert error.value.code.slug == "idempotency-mismatch"
    stored = escalations.get("e1")
    with pytest.raises(GradwatchError):
        Escalations("run").request(other, "operator", 9, stored)


def test_escalation_same_id_same_content_is_the_same_record() -> None:
    """Asking twice changes nothing, not even the revision; an ended one is not begun again."""
    escalations = opened("e1")
    revision = escalations.desired().revision
    assert escalations.request(ask(), "operator", 999).requested_ns == 5
    assert escalations.desired().revision == revision
    escalations.result("e1", "applied", 3, "")
    (ended,) = escalations.result("e1", "ended", 53, "done")
    assert escalations.request(ask(), "operator", 999) == ended
    fresh = Escalations("run")
    assert fresh.request(ask(), "operator", 999, ended) == ended
    assert fresh.records() == ()


@pytest.mark.parametrize("updates", [0, -1, limits.ESCALATION_UPDATES_MAX + 1])
def test_escalation_duration_out_of_range_is_refused(updates: int) -> None:
    """At least one update, at most the limit."""
    with pytest.raises(GradwatchError, match="updates: expected 1 to"):
        Escalations("run").request(ask(updates=updates), "operator", 0)


def test_escalation_beyond_the_cap_is_refused_until_one_ends() -> None:
    """Refused, not queued."""
    escalations = opened(*(f"e{i}" for i in range(limits.ESCALATIONS_ACTIVE_MAX)))
    with pytest.raises(GradwatchError, match="too many open escalations"):
        escalations.request(ask("more"), "operator", 0)
    escalations.cancel("e0")
    assert escalations.request(ask("more"), "operator", 0).state is STATE.REQUESTED


def test_escalation_lives_from_requested_to_ended_by_the_agents_word() -> None:
    """Delivered by us; applied and ended only by RESULT; the desired state holds it until then."""
    escalations = Escalations("run", Level.MINIMAL, Level.NORMAL, 7)
    assert escalations.desired() == Desired(7, Level.MINIMAL, Level.NORMAL, ())
    record = escalations.request(ask(), "anomaly:abc", 5)
    assert (record.state, record.requested_ns, record.origin) == (STATE.REQUESTED, 5, "anomaly:abc")
    assert escalations.desired() == Desired(8, Level.MINIMAL, Level.NORMAL, (Active("e1", Level.DEBUG, 50),))
    assert [r.state for r in escalations.delivered()] == [STATE.DELIVERED]
    assert escalations.delivered() == []
    (applied,) = escalations.result("e1", "applied", 130, "")
    assert (applied.state, applied.update_applied) == (STATE.APPLIED, 130)
    assert escalations.desired().revision == 8
    (ended,) = escalations.result("e1", "ended", 180, "done")
    assert (ended.state, ended.update_ended, ended.ended_why) == (STATE.ENDED, 180, "done")
    assert escalations.desired() == Desired(9, Level.MINIMAL, Level.NORMAL, ())
    assert escalations.result("e1", "ended", 180, "done") == []
    assert escalations.result("e1", "applied", 130, "") == []


def test_escalation_cancelled_before_it_applied_ends_at_once() -> None:
    """Requested and delivered ones; the agent's late word is noted, and does not bring it back."""
    escalations = opened("e1", "e2")
    (one,) = escalations.cancel("e1", "changed my mind")
    assert (one.state, one.ended_why) == (STATE.CANCELLED, "changed my mind")
    escalations.delivered()
    (two,) = escalations.cancel("e2")
    assert two.state is STATE.CANCELLED
    assert escalations.desired().active == ()
    (late,) = escalations.result("e2", "applied", 9, "")
    assert (late.state, late.update_applied) == (STATE.CANCELLED, 9)
    assert escalations.cancel("e1") == []
    assert escalations.cancel("unknown") == []


def test_escalation_cancelled_while_applied_ends_when_the_agent_says_so() -> None:
    """Taken out of the desired state at once; it stays applied until RESULT; why is the canceller's reason."""
    escalations = opened("e1")
    escalations.result("e1", "applied", 3, "")
    (waiting,) = escalations.cancel("e1", "enough")
    assert waiting.state is STATE.APPLIED
    assert escalations.desired().active == ()
    assert escalations.cancel("e1") == []
    restarted = Escalations("run", revision=escalations.desired().revision)
    restarted.load([waiting])
    assert restarted.desired().active == ()
    (ended,) = restarted.result("e1", "ended", 8, "cancelled")
    assert (ended.state, ended.ended_why, ended.update_ended) == (STATE.ENDED, "enough", 8)


def test_escalation_rejected_by_the_agent_is_over() -> None:
    """With the agent's reason."""
    escalations = opened("e1")
    (rejected,) = escalations.result("e1", "rejected", 4, "capability missing")
    assert (rejected.state, rejected.ended_why) == (STATE.REJECTED, "capability missing")
    assert escalations.desired().active == ()


def test_escalation_unknown_id_or_state_changes_nothing() -> None:
    """A RESULT for something we never heard of is no error."""
    escalations = opened("e1")
    assert escalations.result("e9", "applied", 1, "") == []
    assert escalations.result("e1", "exploded", 1, "") == []


def test_escalation_attempt_over_loses_the_open_ones_and_forgets_the_rest() -> None:
    """Nothing can become of them; the next attempt counts its updates anew."""
    escalations = opened("e1", "e2")
    escalations.result("e1", "rejected", 0, "")
    (lost,) = escalations.lose_all("another attempt began")
    assert (lost.id, lost.state, lost.ended_why) == ("e2", STATE.LOST, "another attempt began")
    assert escalations.get("e1") is None
    assert escalations.desired().active == ()
    assert escalations.lose_all("again") == []


def test_escalation_loaded_open_ones_are_desired_again() -> None:
    """After a restart the agent is told the same."""
    before = opened("e1", "e2")
    before.delivered()
    after = Escalations("run", revision=before.desired().revision)
    after.load(before.records())
    assert after.desired() == before.desired()


def test_escalation_base_and_pin_change_the_desired_state_once() -> None:
    """The revision grows with a change and only then."""
    escalations = Escalations("run")
    escalations.set_base(Level.MINIMAL)
    escalations.set_base(Level.MINIMAL)
    escalations.set_pin(Level.OFF)
    assert escalations.desired() == Desired(2, Level.MINIMAL, Level.OFF, ())


def test_base_and_pin_hold_from_the_update_that_all_ranks_reach_and_in_a_new_attempt_from_its_first() -> None:
    """Two after the newest of any rank; what is set to what it is moves nothing."""
    escalations = Escalations("run")
    escalations.set_pin(Level.OFF, 12)
    escalations.set_pin(Level.OFF, 90)
    assert escalations.desired() == Desired(1, Level.NORMAL, Level.OFF, (), not_before=12)
    escalations.calm("calm", 40)
    assert escalations.desired() == Desired(2, Level.NORMAL, None, (), not_before=40)
    escalations.resume(60)
    assert escalations.desired().not_before == 60
    escalations.begin_attempt(Level.NORMAL)
    assert escalations.desired() == Desired(2, Level.NORMAL, None, ())


def test_escalation_ended_ones_are_kept_up_to_a_bound_operators_going_first() -> None:
    """Memory is bounded, and what the rules spent outlives it."""
    escalations = Escalations("run")
    escalations.request(ask("a-1"), "anomaly:1", 0)
    escalations.result("a-1", "rejected", 0, "")
    for i in range(CLOSED_MAX + 5):
        escalations.request(ask(f"e{i}"), "operator", i)
        escalations.cancel(f"e{i}")
    assert len(escalations.records()) == CLOSED_MAX
    assert escalations.get("a-1") is not None
    assert escalations.get("e0") is None


def test_escalation_of_several_ranks_is_applied_when_all_have_begun_and_shows_each() -> None:
    """Partial application is visible by rank; a rank that joins later does not take the state back."""
    escalations = opened("e1")
    (told,) = escalations.delivered((1, 0))
    assert [(one.rank, one.state) for one in told.ranks] == [(0, STATE.DELIVERED), (1, STATE.DELIVERED)]
    (partial,) = escalations.result("e1", "applied", 9, "", rank=1)
    assert (partial.state, partial.update_applied) == (STATE.DELIVERED, None)
    (both,) = escalations.result("e1", "applied", 7, "", rank=0)
    assert (both.state, both.update_applied) == (STATE.APPLIED, 9)
    (joined,) = escalations.delivered((2,))
    assert (joined.state, joined.ranks[2].state) == (STATE.APPLIED, STATE.DELIVERED)
    escalations.result("e1", "ended", 57, "done", rank=0)
    escalations.result("e1", "ended", 59, "done", rank=1)
    (gone,) = escalations.lose_rank(2, "its process ended")
    assert (gone.state, gone.update_ended) == (STATE.ENDED, 59)
    assert gone.ranks[2].state is STATE.LOST


def test_escalation_nobody_begins_expires_at_its_deadline_and_is_wanted_no_longer() -> None:
    """Not a moment before; one that a rank has begun goes on."""
    escalations = opened("e1")
    escalations.delivered()
    deadline = escalations.records()[0].expires_ns
    revision = escalations.desired().revision
    assert escalations.expire(deadline - 1, {0}) == []
    (expired,) = escalations.expire(deadline, {0})
    assert (expired.state, escalations.desired().active) == (STATE.EXPIRED, ())
    assert escalations.desired().revision > revision
    begun = opened("e1")
    begun.result("e1", "applied", 3, "")
    assert begun.expire(deadline, {0}) == []


def test_escalations_calmed_are_all_taken_back_and_the_pin_is_let_go() -> None:
    """One that runs ends by the agent's word; again changes nothing."""
    escalations = opened("e1", "e2")
    escalations.result("e1", "applied", 3, "")
    escalations.set_pin(Level.DEBUG)
    changed = escalations.calm("enough")
    assert [record.state for record in changed] == [STATE.APPLIED, STATE.CANCELLED]
    desired = escalations.desired()
    assert (desired.pin, desired.active) == (None, ())
    assert escalations.calm("enough") == []
    assert escalations.desired() == desired
