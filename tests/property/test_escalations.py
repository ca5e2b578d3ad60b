"""Any history of requests, results and restarts: states go forward, the desired state is exact, the budget holds."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch_agent.desired import DesiredState
from gradwatch_contracts.control import ControlState, Level, Severity
from gradwatch_daemon.escalate.desired import Escalations
from gradwatch_daemon.escalate.policy import BUDGET_SHARE, BUDGET_UPDATES_LEAST, BUDGET_WINDOW_UPDATES, Policy, Response
from gradwatch_daemon.records.commands import RequestEscalation
from harness.blocks import Watch, signal_block

ORDER = {
    ControlState.REQUESTED: 0,
    ControlState.DELIVERED: 1,
    ControlState.APPLIED: 2,
    ControlState.ENDED: 3,
    ControlState.REJECTED: 3,
    ControlState.CANCELLED: 3,
    ControlState.EXPIRED: 3,
    ControlState.LOST: 3,
}
IDS = st.sampled_from(["a", "b", "c"])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("request"), IDS),
        st.tuples(st.just("deliver"), st.sampled_from(["0", "1", "01"])),
        st.tuples(st.just("cancel"), IDS),
        st.tuples(st.sampled_from(["applied 0", "ended 0", "rejected 0", "applied 1", "ended 1", "rejected 1"]), IDS),
        st.tuples(st.sampled_from(["lose_rank", "rejoin"]), st.sampled_from(["0", "1"])),
        st.tuples(st.just("expire"), st.sampled_from(["", "0", "1", "01"])),
        st.tuples(st.just("lose"), st.just("")),
        st.tuples(st.just("restart"), st.just("")),
    ),
    max_size=40,
)
DEADLINE_NS = 5
"""As many operations: each takes a nanosecond."""
(FIRED,) = Watch().feed(signal_block(1, policy__kl__k3=0.9))


@given(OPERATIONS)
def test_escalations_any_history_moves_forward_and_keeps_desired_exact(operations: list[tuple[str, str]]) -> None:
    """Two ranks that come, go and fall silent: no state goes back, no revision shrinks or repeats with other content, desired =
    open and not taken back; and past its deadline nothing waits for a rank that has not begun or is not there."""
    escalations = Escalations("run")
    taken_back: set[str] = set()
    seen = escalations.desired()
    for update, (what, id_) in enumerate(operations):
        before = {record.id: record for record in escalations.records()}
        if what == "request":
            escalations.request(RequestEscalation("run", id_, Level.DEBUG, 5, "", DEADLINE_NS / 1e9), "operator", update)
        elif what == "deliver":
            escalations.delivered(map(int, id_))
        elif what == "cancel":
            taken_back |= {record.id for record in escalations.cancel(id_)}
        elif what == "lose":
            escalations.lose_all("over")
        elif what == "restart":
            loaded = Escalations("run", revision=escalations.desired().revision)
            loaded.load(record for record in escalations.records() if record.state.open)
            escalations = loaded
        elif what == "lose_rank":
            escalations.lose_rank(int(id_), "it is gone")
        elif what == "rejoin":
            escalations.rejoin(int(id_))
        elif what == "expire":
            heard = {int(rank) for rank in id_}
            escalations.expire(update, heard)
            for late in [one for one in escalations.records() if one.state.open and one.expires_ns <= update]:
                left = [one for one in late.ranks if one.state.open]
                assert left, "open, and nobody is left who could end it"
                assert all(one.state is ControlState.APPLIED and one.rank in heard for one in left)
        else:
            word, _, rank = what.partition(" ")
            escalations.result(id_, word, update, "", int(rank))
        after = {record.id: record for record in escalations.records()}
        for known in before.keys() & after.keys():
            was, now = before[known], after[known]
            assert ORDER[was.state] < ORDER[now.state] or was.state is now.state
        taken_back &= {record.id for record in after.values() if record.state.open}
        desired = escalations.desired()
        wanted = {record.id for record in after.values() if record.state.open} - taken_back
        assert {active.id for active in desired.active} == wanted
        assert desired.revision >= seen.revision
        assert desired.revision > seen.revision or desired == seen
        seen = desired


def allowed(now: int) -> float:
    """Updates that rules may hold the level for in the window that ends with `now`."""
    return max(BUDGET_UPDATES_LEAST, BUDGET_SHARE * min(BUDGET_WINDOW_UPDATES, now + 1))


RESPONSES = st.builds(Response, updates=st.integers(1, 8), extension=st.integers(0, 6), cooldown=st.integers(0, 9))
MOMENTS = st.lists(
    st.tuples(
        st.integers(0, 25),  # updates without anything
        st.sampled_from(["a", "b", "c"]),  # which rule fires
        st.booleans(),  # whether the daemon's word reaches the trainer
        st.booleans(),  # whether the trainer's words reach the daemon
        st.sampled_from(["", "", "", "restart", "vanish"]),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(MOMENTS, RESPONSES, RESPONSES)
def test_rules_no_stream_of_anomalies_exceeds_the_budget_or_holds_a_run_above_its_base_for_ever(
    moments: list[tuple[int, str, bool, bool, str]], first: Response, second: Response
) -> None:
    """Daemon and trainer as they are, between them a connection that loses and delays what it likes: over any 500 updates the
    trainer collects at DEBUG in at most a tenth (five are always allowed), and once the rules are still, at its base."""
    policy, daemon, agent = Policy(by_kind={"a": first, "b": second}), Escalations("run"), DesiredState(Level.NORMAL)
    update, heard, number, gone = 0, [], 0, False
    raised: list[bool] = []

    def boundary() -> None:
        nonlocal update
        level, notes = agent.boundary(update)
        heard.extend(notes)
        raised.append(level > Level.NORMAL)
        window = raised[-BUDGET_WINDOW_UPDATES:]
        assert sum(window) <= allowed(update), f"above the budget at update {update}"
        update += 1

    for quiet, kind, tells, hears, event in moments:
        for _ in range(quiet + 1):
            boundary()
        if hears and not gone:
            for note in heard:
                daemon.result(note.id, note.state, note.update, note.reason)
            heard.clear()
        if event == "restart":
            fresh = Escalations("run", revision=daemon.desired().revision)
            fresh.load(daemon.records())
            daemon = fresh
        gone = gone or event == "vanish"
        if gone:
            continue
        number += 1
        anomaly = replace(FIRED, id=f"{number:016x}", kind=kind, severity=Severity.CRITICAL, update_last=update - 1)
        decision = policy.decide(anomaly, daemon.records())
        if decision.request is not None:
            daemon.request(decision.request, f"anomaly:{anomaly.id}", 0, kind=kind)
            if decision.extends:
                daemon.cancel(decision.extends)
        if tells:
            agent.receive(daemon.desired())
            daemon.delivered()
    for _ in range(20):
        boundary()
    assert not raised[-1], "still raised, long after the rules are still"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(0, 8), st.integers(0, 12))
def test_policy_no_stream_of_anomalies_exceeds_the_budget(gaps: list[int], delay: int, end_early: int) -> None:
    """Over every window of 500 updates the rules hold DEBUG for at most a tenth (five updates are always allowed)."""
    escalations = Escalations("run")
    held: list[tuple[int, int]] = []
    update = 0
    for number, gap in enumerate(gaps):
        update += gap
        for record in escalations.records():
            if record.state is ControlState.APPLIED and record.update_applied is not None:
                until = record.update_applied + min(record.updates, max(1, end_early))
                if until <= update:
                    escalations.result(record.id, "ended", until, "done")
        anomaly = replace(FIRED, id=f"{number:016x}", severity=Severity.CRITICAL, update_last=update)
        decision = Policy().decide(anomaly, escalations.records())
        request = decision.request
        if request is None:
            continue
        escalations.request(request, f"anomaly:{anomaly.id}", 0)
        if decision.extends:
            escalations.cancel(decision.extends)
        escalations.delivered()
        update += delay
        escalations.result(request.id, "applied", update, "")
        held.append((update, update + min(request.updates, max(1, end_early))))
    for now in range(update + BUDGET_WINDOW_UPDATES):
        first = now - BUDGET_WINDOW_UPDATES + 1
        spent = sum(max(0, min(last, now + 1) - max(start, first)) for start, last in held)
        assert spent <= max(BUDGET_UPDATES_LEAST, BUDGET_SHARE * min(BUDGET_WINDOW_UPDATES, now + 1))
