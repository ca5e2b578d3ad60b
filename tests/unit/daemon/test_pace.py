"""Since when a run waits, and the pauses that excuse it."""

from __future__ import annotations

import pytest

from gradwatch_daemon.pipeline.pace import PHASES_MAX, Pace
from gradwatch_daemon.pipeline.work import Now
from gradwatch_daemon.records import ALL_RANKS, EventRecord, Stream

RUN = Stream("ant-ppo", 1, ALL_RANKS)


def at(seconds: float) -> Now:
    """A moment."""
    return Now(int(seconds * 1e9), seconds)


def event(over: bool, n: int = 1, name: object = "eval", **detail: object) -> EventRecord:
    """What an agent says of a pause."""
    given = {"phase": name, "n": n, "over": over, **detail}
    return EventRecord(RUN, "s", 1, 3, 0, "phase", "", given)  # type: ignore[arg-type]


@pytest.mark.parametrize("detail", [{"phase": 7}, {"n": "x"}, {"n": None}])
def test_event_of_another_make_is_ignored(detail: dict[str, object]) -> None:
    """An event is what a trainer says; ours has all of it."""
    pace = Pace()
    broken = EventRecord(RUN, "s", 1, 3, 0, "phase", "", {**event(False).detail, **detail})  # type: ignore[arg-type]
    pace.hear(RUN, 0, broken, at(1))
    assert pace.pause(RUN) is None


def test_begin_that_comes_behind_its_end_is_over_all_the_same() -> None:
    """The link tells the begin, the trainer the end, and no lock is between."""
    pace = Pace()
    pace.hear(RUN, 0, event(True, n=2), at(5))
    pace.hear(RUN, 0, event(False, n=2), at(5))
    assert pace.pause(RUN) is None
    pace.hear(RUN, 0, event(False, n=3), at(6))
    assert pace.pause(RUN) is not None


def test_pause_excuses_until_it_is_far_longer_than_any_before_and_then_the_wait_begins_anew() -> None:
    """Ten minutes for the first; its end is not late; three times the longest for the next."""
    pace = Pace()
    pace.move(RUN, at(0))
    pace.hear(RUN, 0, event(False), at(1))
    assert pace.excused(RUN, at(601))
    assert not pace.excused(RUN, at(602))
    pace.hear(RUN, 0, event(True, seconds=700.0), at(701))
    assert not pace.excused(RUN, at(701))
    assert pace.waited(RUN, at(703))[0] == 2.0
    pace.hear(RUN, 0, event(False, n=2), at(1000))
    assert pace.excused(RUN, at(3099))
    assert not pace.excused(RUN, at(3101))


def test_longest_pause_is_known_again_after_a_restart() -> None:
    """Three times what it took before, and not ten minutes once more."""
    pace = Pace([event(True, seconds=700.0), event(True, n=2, seconds=30.0), event(True, n=3, name=7), event(True, n=4)])
    assert pace.longest_s(RUN, "eval") == 700.0
    pace.hear(RUN, 0, event(False), at(0))
    assert pace.excused(RUN, at(2100))
    assert not pace.excused(RUN, at(2101))


def test_kinds_of_pauses_that_a_trainer_makes_up_are_bounded() -> None:
    """Each costs memory for as long as the daemon lives."""
    pace = Pace()
    for number in range(PHASES_MAX + 1):
        pace.hear(RUN, 0, event(True, n=number, name=f"p{number}" + "x" * 100, seconds=1.0), at(number))
    pace.hear(RUN, 0, event(True, n=99, name="p0" + "x" * 100, seconds=float("inf")), at(99))
    assert pace.longest_s(RUN, ("p0" + "x" * 100)[:64]) == 1.0
    assert pace.longest_s(RUN, (f"p{PHASES_MAX}" + "x" * 100)[:64]) == 0.0


def test_one_rank_in_a_pause_excuses_all_until_it_leaves() -> None:
    """The others wait for it at a barrier; a rank that is gone excuses nobody."""
    pace = Pace()
    for rank in (0, 1):
        pace.greet(RUN, rank, at(0))
    pace.hear(RUN, 1, event(False), at(1))
    assert pace.excused(RUN, at(2))
    pace.leave(RUN, 1)
    assert not pace.excused(RUN, at(2))


def test_greeting_again_forgets_the_pause_which_is_then_told_anew() -> None:
    """The same number of the same process."""
    pace = Pace()
    pace.hear(RUN, 0, event(False), at(1))
    pace.greet(RUN, 0, at(50))
    assert pace.pause(RUN) is None
    pace.hear(RUN, 0, event(False), at(51))
    assert pace.excused(RUN, at(52))


def test_gap_is_between_updates_and_not_over_a_pause() -> None:
    """An update after an evaluation took no longer than usual."""
    pace = Pace()
    for second in (0, 2):
        pace.move(RUN, at(second))
    assert pace.gap_s(RUN) == 2.0
    pace.hear(RUN, 0, event(True), at(30))
    pace.move(RUN, at(31))
    assert pace.gap_s(RUN) == 1.0
    pace.forget(RUN)
    assert pace.gap_s(RUN) == 0.0
