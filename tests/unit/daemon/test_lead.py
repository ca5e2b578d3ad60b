"""From which update on ranks begin together: far enough ahead for a wish to reach all of them, and no further."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts import messages as m
from gradwatch_contracts.control import ControlState, Level, RankState
from gradwatch_contracts.limits import UPDATE_MAX
from gradwatch_daemon.api.runs import rank_items
from gradwatch_daemon.api.sentences import escalation_sentence
from gradwatch_daemon.escalate.lead import LEAD_UPDATES_MAX, WISH_S, common_update
from gradwatch_daemon.records.commands import RequestEscalation
from harness.commanded import VERBS, two_ranks
from harness.fake_records import make_escalation
from harness.rows import hello

if TYPE_CHECKING:
    from harness.world import World

BOTH = {"world": 2, "verbs": VERBS, "launch_id": "both"}


@pytest.mark.parametrize(
    ("usual_s", "lead"),
    [
        (None, 2),
        (60.0, 2),
        (WISH_S, 2),
        (WISH_S / 2, 2),
        (WISH_S / 2.5, 3),
        (0.01, 25),
        (0.001, 250),
        (0.0001, LEAD_UPDATES_MAX),
        (0.0, LEAD_UPDATES_MAX),
    ],
)
def test_lead_covers_the_time_of_a_wish_within_its_bounds(usual_s: float | None, lead: int) -> None:
    """Slow updates need only the next but one, fast ones as many as the wish takes; a clock that stands still is bounded."""
    assert common_update(40, usual_s) == 40 + lead
    assert common_update(UPDATE_MAX - 1, usual_s) == UPDATE_MAX


def told(world: World, peer: bytes) -> int:
    """From which update on this peer may begin with e1, as it was told last."""
    said = [x.desired for to, x in world.socket.sent if to == peer and isinstance(x, (m.LevelMessage, m.Welcome))]
    return next(one.not_before for one in said[-1].active if one.id == "e1")


def ask(world: World) -> None:
    """Debug for five updates."""
    world.ask(RequestEscalation("ant-ppo", "e1", Level.DEBUG, 5, "look"))


def test_ranks_that_went_on_without_a_daemon_get_a_common_update_ahead_of_them(world: World) -> None:
    """The store ends at update 9, and they greet in 400 and 401: both are told the same one, which neither has begun."""
    two_ranks(world)
    world.tick(world.rows.samples(10))
    ask(world)
    world.restart()
    world.tick(hello(update_next=400, **BOTH), peer=b"p")
    world.tick(hello(session="s2", rank=1, update_next=401, **BOTH), peer=b"q")
    assert told(world, b"p") == told(world, b"q") > 401


def test_rank_past_the_common_update_moves_it_for_the_one_that_was_told_before(world: World) -> None:
    """The second is so far ahead that it could not begin with the first: the first is told anew, and heeds it."""
    two_ranks(world)
    ask(world)
    world.restart()
    world.tick(hello(update_next=40, **BOTH), peer=b"p")
    before = world.socket.of(m.Welcome)[-1].desired.revision  # type: ignore[attr-defined]
    assert told(world, b"p") == 41
    world.tick(hello(session="s2", rank=1, update_next=90, **BOTH), peer=b"q")
    assert told(world, b"p") == told(world, b"q") == 91
    assert world.socket.of(m.LevelMessage)[-1].desired.revision > before  # type: ignore[attr-defined]


def test_rank_that_greets_late_moves_nothing_that_another_has_begun(world: World) -> None:
    """It begins at once, as late as it is, which `late` will say."""
    two_ranks(world)
    ask(world)
    world.restart()
    world.tick(hello(update_next=40, **BOTH), peer=b"p")
    world.tick(m.Result(0, "e1", "applied", 41), peer=b"p")
    world.tick(hello(session="s2", rank=1, update_next=90, **BOTH), peer=b"q")
    assert told(world, b"q") == 41


def test_ranks_that_began_apart_are_shown_as_that() -> None:
    """Each with the updates it was late by, and the worst in the sentence; one that has not begun says nothing."""
    ranks = (
        RankState(0, ControlState.APPLIED, 17, "", 17),
        RankState(1, ControlState.ENDED, 29, "done", 19),
        RankState(2, ControlState.DELIVERED),
    )
    assert [(one.applied, one.late) for one in rank_items(ranks)] == [(17, 0), (19, 2), (None, None)]
    apart = "Ranks began apart: rank 1 2 updates after the first."
    assert escalation_sentence(make_escalation(ranks=ranks)).endswith(apart)
    assert "apart" not in escalation_sentence(make_escalation(ranks=ranks[:1]))
