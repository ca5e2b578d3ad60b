"""Named cases of the desired state; the general law is in tests/property/test_desired_state.py."""

from __future__ import annotations

from gradwatch_agent.desired import ENDED_MAX, DesiredState, ResultNote
from gradwatch_contracts import limits
from gradwatch_contracts.control import Active, Desired, Level


def _raised(revision: int, *active: Active, pin: Level | None = None) -> Desired:
    return Desired(revision, Level.NORMAL, pin, active)


def test_escalation_of_three_updates_covers_exactly_three() -> None:
    """Applied at 10 means 10, 11 and 12 are collected at DEBUG, and 13 is the first without."""
    state = DesiredState(Level.NORMAL)
    state.boundary(9)
    state.receive(_raised(1, Active("e1", Level.DEBUG, 3)))

    seen = [state.boundary(update) for update in range(10, 15)]

    assert [level for level, _ in seen] == [Level.DEBUG] * 3 + [Level.NORMAL] * 2
    assert seen[0][1] == [ResultNote("e1", "applied", 10)]
    assert seen[3][1] == [ResultNote("e1", "ended", 13, "done")]
    assert [notes for _, notes in (seen[1], seen[2], seen[4])] == [[], [], []]


def test_escalation_whose_daemon_vanished_ends_by_itself() -> None:
    """Nothing but boundaries is needed to end it."""
    state = DesiredState(Level.MINIMAL)
    state.receive(_raised(1, Active("e1", Level.DEBUG, 2)))
    levels = [state.boundary(update)[0] for update in range(4)]

    assert levels == [Level.DEBUG, Level.DEBUG, Level.NORMAL, Level.NORMAL]


def test_escalation_ended_and_still_listed_is_not_applied_again() -> None:
    """The daemon lists it until our RESULT is committed, and a restarted one may list it anew."""
    state = DesiredState(Level.NORMAL)
    listed = Active("e1", Level.DEBUG, 1)
    for revision, update in enumerate(range(5), 1):
        state.receive(_raised(revision, listed))
        level, notes = state.boundary(update)
        assert (level is Level.DEBUG, bool(notes)) == ((True, True) if update == 0 else (False, update == 1))
    state.receive(_raised(1, listed), welcome=True)
    assert state.boundary(5) == (Level.NORMAL, [])


def test_escalation_cancelled_ends_at_the_next_boundary() -> None:
    """With the reason that tells it from one that ran out."""
    state = DesiredState(Level.NORMAL)
    state.receive(_raised(1, Active("e1", Level.DEBUG, 100)))
    state.boundary(0)
    state.receive(_raised(2))

    assert state.level is Level.DEBUG
    assert state.boundary(1) == (Level.NORMAL, [ResultNote("e1", "ended", 1, "cancelled")])


def test_base_and_pin_wait_for_their_update_and_what_held_goes_on_until_then() -> None:
    """So all ranks change at one update; a rank that is past it changes at once, and a pin that waits holds nothing back."""
    state = DesiredState(Level.NORMAL)
    state.receive(Desired(1, Level.MINIMAL, Level.OFF, (Active("e1", Level.DEBUG, 1),), not_before=6))
    assert [state.boundary(update)[0] for update in (4, 5, 6, 7)] == [Level.DEBUG, Level.NORMAL, Level.OFF, Level.OFF]
    state.receive(Desired(2, Level.MINIMAL, None, not_before=6))
    assert state.boundary(8)[0] is Level.MINIMAL


def test_pin_below_an_escalation_holds_it_back() -> None:
    """It is not called applied while it could not hold; without the pin it gets all its updates."""
    state = DesiredState(Level.NORMAL)
    listed = Active("e1", Level.DEBUG, 2)
    state.receive(_raised(1, listed, pin=Level.MINIMAL))
    assert state.boundary(0) == (Level.MINIMAL, [])
    state.receive(_raised(2, listed))

    assert state.boundary(1) == (Level.DEBUG, [ResultNote("e1", "applied", 1)])
    assert state.boundary(2) == (Level.DEBUG, [])
    assert state.boundary(3) == (Level.NORMAL, [ResultNote("e1", "ended", 3, "done")])


def test_two_escalations_each_last_their_own_time() -> None:
    """The higher one holds while both run."""
    state = DesiredState(Level.OFF)
    state.receive(Desired(1, Level.OFF, None, (Active("a", Level.NORMAL, 3), Active("b", Level.DEBUG, 1))))

    assert [state.boundary(update)[0] for update in range(4)] == [Level.DEBUG, Level.NORMAL, Level.NORMAL, Level.OFF]


def test_revision_zero_says_nothing_of_the_base() -> None:
    """A run that nobody touched keeps the level its trainer chose."""
    state = DesiredState(Level.DEBUG)
    state.receive(Desired(0, Level.NORMAL), welcome=True)

    assert state.boundary(0) == (Level.DEBUG, [])


def test_older_revision_is_ignored_but_for_a_welcome() -> None:
    """A message that overtook another must not undo it; a wiped store counts from the start again."""
    state = DesiredState(Level.NORMAL)
    state.receive(Desired(7, Level.DEBUG))
    state.receive(Desired(6, Level.OFF))
    assert state.boundary(0)[0] is Level.DEBUG
    state.receive(Desired(1, Level.OFF), welcome=True)
    assert state.boundary(1)[0] is Level.OFF
    state.receive(Desired(2, Level.MINIMAL))
    assert state.boundary(2)[0] is Level.MINIMAL


def test_ids_of_ended_escalations_are_bounded() -> None:
    """A run of months does not grow."""
    state = DesiredState(Level.NORMAL)
    for update in range(ENDED_MAX + 100):
        state.receive(_raised(update + 1, Active(f"e{update}", Level.DEBUG, 1)))
        state.boundary(update)

    assert len(state._ended) == ENDED_MAX


def test_escalation_for_a_later_update_begins_at_it_and_on_a_rank_that_is_past_it_at_once() -> None:
    """So ranks that hear of it at different moments begin together; the countdown is that of each."""
    early, late = DesiredState(Level.NORMAL), DesiredState(Level.NORMAL)
    asked = _raised(1, Active("e1", Level.DEBUG, 2, 12))
    early.receive(asked)
    assert [early.boundary(update)[0] for update in (10, 11, 12, 13, 14)] == [Level.NORMAL] * 2 + [Level.DEBUG] * 2 + [
        Level.NORMAL
    ]
    late.receive(asked)
    level, notes = late.boundary(13)
    assert (level, [(note.state, note.update) for note in notes]) == (Level.DEBUG, [("applied", 13)])


def test_escalations_of_a_daemon_gone_wild_are_cut_and_what_is_cut_is_refused_once() -> None:
    """A boundary is the trainer's time: it looks at no more than may be open, and answers for no more than that."""
    state, most = DesiredState(Level.NORMAL), limits.ESCALATIONS_ACTIVE_MAX
    flood = tuple(Active(f"e{number}", Level.DEBUG, 5) for number in range(8_000))
    state.receive(_raised(1, *flood))
    _, notes = state.boundary(0)
    applied, rejected = ([note.id for note in notes if note.state == state_] for state_ in ("applied", "rejected"))

    assert applied == [f"e{number}" for number in range(most)]
    assert rejected == [f"e{number}" for number in range(most, 2 * most)]
    assert len(notes) == 2 * most
    state.receive(_raised(2, *flood))
    assert state.boundary(1) == (Level.DEBUG, [])
    state.receive(_raised(3, *flood[most : most + 2]))
    assert {note.reason for note in state.boundary(2)[1]} == {"cancelled"}
