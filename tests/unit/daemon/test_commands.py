"""Commands of one run: forward only, one of a verb at a time, each rank with its own word, bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradwatch_contracts import limits
from gradwatch_contracts.control import ControlState as State
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.escalate.commands import CLOSED_MAX, Commands, check_same, is_taken_back
from gradwatch_daemon.records.commands import CommandRecord, RequestCommand

RULE = "anomaly:abc"


def ask(id_: str = "c1", verb: str = "dump", **changes: object) -> RequestCommand:
    """A request that expires after 10 s."""
    return replace(RequestCommand("run", id_, verb, {"n": 3}, "look", None, 10.0), **changes)  # type: ignore[arg-type]


def opened(*ranks: int, origin: str = "operator") -> Commands:
    """One requested command for these ranks."""
    commands = Commands("run")
    commands.request(ask(), origin, 5, ranks or (0,))
    return commands


def only(records: list[CommandRecord]) -> CommandRecord:
    """The one that changed."""
    (record,) = records
    return record


def test_command_while_one_of_its_verb_is_open_is_refused_naming_it() -> None:
    """Two operators at once: the second is told of the first, and nothing changes."""
    commands = opened()
    before = commands.records()
    with pytest.raises(GradwatchError, match="c1, asked for by operator and requested") as error:
        commands.request(ask("c2"), "operator", 6, [0])
    assert error.value.code.slug == "command-under-way"
    with pytest.raises(GradwatchError):
        commands.request(ask("c3"), RULE, 6, [0])
    assert commands.records() == before
    assert commands.request(ask("c4", "stop"), "operator", 6, [0])[0].state is State.REQUESTED


def test_command_of_a_person_takes_the_place_of_a_rules_that_waits_and_not_of_one_that_runs() -> None:
    """A person does not queue behind a rule."""
    commands = opened(origin=RULE)
    commands.delivered("c1", 0)
    old, new = commands.request(ask("c2"), "operator", 6, [0])
    assert (old.id, old.state, old.ended_why) == ("c1", State.SUPERSEDED, "superseded by c2")
    assert new.state is State.REQUESTED
    assert is_taken_back(old)
    commands = opened(origin=RULE)
    commands.result("c1", 0, "applied", 3, "")
    with pytest.raises(GradwatchError, match="asked for by anomaly:abc and applied"):
        commands.request(ask("c2"), "operator", 6, [0])


def test_commands_beyond_the_bound_are_refused() -> None:
    """One of each verb, and not every word there is."""
    commands = Commands("run")
    for number in range(limits.COMMANDS_OPEN_MAX):
        commands.request(ask(f"c{number}", f"verb{number}"), "operator", 0, [0])
    with pytest.raises(GradwatchError, match="at most 16 open commands"):
        commands.request(ask("more", "other"), "operator", 0, [0])


@pytest.mark.parametrize("other", [ask(verb="stop"), ask(args={"n": 4}), ask(reason="else"), ask(rank=1)])
def test_command_same_id_other_content_is_refused(other: RequestCommand) -> None:
    """An id names one request for ever."""
    known = only(Commands("run").request(ask(), "operator", 5, [0]))
    check_same(known, ask(expires_s=99.0), "operator")
    with pytest.raises(GradwatchError) as error:
        check_same(known, other, "operator")
    assert error.value.code.slug == "idempotency-mismatch"


def test_command_lives_from_requested_to_ended_by_the_trainers_word() -> None:
    """Delivered by us; the rest only by RESULT; repeats change nothing, and no state goes back."""
    commands = opened()
    assert commands.records()[0].expires_ns == 5 + 10_000_000_000
    assert only(commands.delivered("c1", 0)).state is State.DELIVERED
    assert commands.delivered("c1", 0) == []
    applied = only(commands.result("c1", 0, "applied", 120, ""))
    assert (applied.state, applied.update_applied, applied.update_ended) == (State.APPLIED, 120, None)
    ended = only(commands.result("c1", 0, "ended", 123, "64 updates"))
    assert (ended.state, ended.update_applied, ended.update_ended) == (State.ENDED, 120, 123)
    assert (ended.ended_why, ended.ranks[0].reason) == ("64 updates", "64 updates")
    for state in ("applied", "ended", "rejected"):
        assert commands.result("c1", 0, state, 130, "") == []
    assert commands.result("unknown", 0, "ended", 1, "") == []
    assert commands.result("c1", 7, "ended", 1, "") == []


def test_command_that_fails_after_it_began_is_rejected_with_the_reason() -> None:
    """An empty trace is a failed capture, though it was begun."""
    commands = opened()
    commands.result("c1", 0, "applied", 3, "")
    failed = only(commands.result("c1", 0, "rejected", 7, "failed: the trace is empty"))
    assert (failed.state, failed.update_applied, failed.ended_why) == (State.REJECTED, 3, "failed: the trace is empty")


def test_command_of_several_ranks_is_applied_when_all_have_begun_and_shows_each() -> None:
    """Partial application is visible, and one rank's failure is the whole's."""
    commands = opened(0, 1, 2)
    for rank in (0, 1, 2):
        commands.delivered("c1", rank)
    first = only(commands.result("c1", 1, "applied", 7, ""))
    assert (first.state, first.update_applied) == (State.DELIVERED, None)
    assert [one.state for one in first.ranks] == [State.DELIVERED, State.APPLIED, State.DELIVERED]
    commands.result("c1", 0, "applied", 9, "")
    both = only(commands.result("c1", 2, "applied", 8, ""))
    assert (both.state, both.update_applied) == (State.APPLIED, 9)
    commands.result("c1", 0, "ended", 9, "done")
    commands.result("c1", 1, "rejected", 8, "failed: disk full")
    last = only(commands.result("c1", 2, "ended", 8, "done"))
    assert (last.state, last.update_applied, last.ended_why) == (State.REJECTED, 9, "rank 1: failed: disk full")


def test_command_waits_for_no_rank_that_died() -> None:
    """The others' word counts; where nobody is left it is lost."""
    commands = opened(0, 1)
    commands.result("c1", 0, "ended", 9, "done")
    died = only(commands.lose_rank(1, "its process ended"))
    assert (died.state, died.ended_why) == (State.ENDED, "rank 0: done")
    assert (died.ranks[1].state, died.ranks[1].reason) == (State.LOST, "its process ended")
    alone = opened(0)
    assert only(alone.lose_rank(0, "its process ended")).state is State.LOST


def test_command_cancelled_before_it_began_is_over_and_later_words_do_not_bring_it_back() -> None:
    """They are kept with their rank."""
    commands = opened()
    commands.delivered("c1", 0)
    cancelled = only(commands.cancel("c1", "no"))
    assert (cancelled.state, cancelled.ended_why) == (State.CANCELLED, "no")
    assert commands.taken_back_from(0) == [cancelled]
    assert commands.cancel("c1", "again") == []
    late = only(commands.result("c1", 0, "ended", 9, "done"))
    assert (late.state, late.ended_why, late.ranks[0].state) == (State.CANCELLED, "no", State.ENDED)
    assert commands.taken_back_from(0) == []


def test_command_cancelled_while_it_goes_on_ends_by_the_trainers_word() -> None:
    """Why is the canceller's reason."""
    commands = opened()
    commands.result("c1", 0, "applied", 3, "")
    waiting = only(commands.cancel("c1", "enough"))
    assert waiting.state is State.APPLIED
    assert is_taken_back(waiting)
    assert commands.taken_back_from(0) == [waiting]
    ended = only(commands.result("c1", 0, "ended", 4, "cancelled"))
    assert (ended.state, ended.ended_why) == (State.ENDED, "enough")


def test_command_expires_at_its_deadline_unless_it_began() -> None:
    """Just before it does not."""
    commands = opened()
    deadline = commands.records()[0].expires_ns
    assert commands.expire(deadline - 1, {0}) == []
    expired = only(commands.expire(deadline, {0}))
    assert expired.state is State.EXPIRED
    assert is_taken_back(expired)
    begun = opened()
    begun.result("c1", 0, "applied", 3, "")
    assert begun.expire(deadline, {0}) == []


def test_command_that_one_rank_did_goes_by_it_at_the_deadline_and_not_by_the_one_that_never_began() -> None:
    """Not expired: it was done. A rank that began and is not there any more is not waited for either."""
    commands = opened(0, 1)
    deadline = commands.records()[0].expires_ns
    commands.result("c1", 0, "applied", 3, "")
    commands.result("c1", 0, "ended", 4, "saved")
    done = only(commands.expire(deadline, {0, 1}))
    assert (done.state, done.update_ended, done.ranks[1].state) == (State.ENDED, 4, State.LOST)
    begun = opened(0, 1)
    begun.result("c1", 0, "applied", 3, "")
    begun.result("c1", 1, "applied", 3, "")
    assert [one.state for one in only(begun.expire(deadline, {0})).ranks] == [State.APPLIED, State.LOST]
    lost = only(begun.expire(deadline, ()))
    assert lost.state is State.LOST


def test_rank_that_was_given_up_and_greets_again_is_asked_again_and_takes_nothing_back() -> None:
    """One that had begun goes on; the state of all together stays where it was."""
    commands = opened(0, 1)
    commands.result("c1", 0, "applied", 3, "")
    assert only(commands.lose_rank(1, "it does not answer")).state is State.APPLIED
    (back,) = commands.rejoin(1)
    assert (back.state, back.ranks[1].state, back.ranks[1].reason) == (State.APPLIED, State.DELIVERED, "")
    assert commands.waiting_for(1) == [back]
    assert only(commands.result("c1", 0, "ended", 4, "saved")).state is State.APPLIED
    assert only(commands.result("c1", 1, "applied", 5, "")).state is State.APPLIED
    commands.lose_rank(1, "it does not answer")
    assert only(commands.result("c1", 1, "ended", 6, "saved")).ranks[1].state is State.ENDED


def test_commands_of_an_attempt_that_is_over_are_lost() -> None:
    """Also one that had begun: nobody will say what became of it."""
    commands = opened()
    commands.result("c1", 0, "applied", 3, "")
    lost = only(commands.lose_all("the run ended"))
    assert (lost.state, lost.ended_why) == (State.LOST, "the run ended")
    assert commands.lose_all("again") == []
    assert commands.waiting_for(0) == []


def test_commands_loaded_from_the_store_go_on_where_they_were() -> None:
    """A restart of the daemon: the undelivered is said again, the applied is not."""
    before = opened(0, 1)
    before.delivered("c1", 0)
    before.result("c1", 1, "applied", 4, "")
    after = Commands("run")
    after.load(before.records())
    assert [record.id for record in after.waiting_for(0)] == ["c1"]
    assert after.waiting_for(1) == []


def test_commands_that_are_over_are_kept_up_to_a_bound() -> None:
    """Memory is bounded; the store has the rest."""
    commands = Commands("run")
    for number in range(CLOSED_MAX + 5):
        commands.request(ask(f"c{number}"), "operator", number, [0])
        commands.cancel(f"c{number}", "")
    assert len(commands.records()) == CLOSED_MAX
    assert commands.get("c0") is None
