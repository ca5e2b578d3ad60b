"""Commands through the pipeline: who may be asked, when it is told, and what a restart, a reconnect and a death leave of it."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts import messages as m
from gradwatch_contracts.control import CANCEL, Level
from gradwatch_contracts.control import ControlState as State
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.limits import UPDATE_MAX
from gradwatch_daemon.records.commands import (
    CancelCommand,
    CommandRecord,
    RequestCommand,
    RequestEscalation,
)
from harness.commanded import VERBS, kept, told, two_ranks
from harness.rows import BROKEN, hello

if TYPE_CHECKING:
    from harness.world import World


def want(id_: str = "c1", verb: str = "dump", rank: int | None = None, expires_s: float = 3600.0) -> RequestCommand:
    """A request of a person."""
    return RequestCommand("ant-ppo", id_, verb, {"n": 1}, "look", rank, expires_s)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (RequestCommand("no-run", "c1", "dump"), "run-not-found"),
        (want(verb="profile"), "unsupported-by-run"),
        (want(rank=1), "rank-not-live"),
        (CancelCommand("ant-ppo", "c1"), "command-not-found"),
    ],
)
def test_command_that_cannot_be_is_refused_and_leaves_no_trace(world: World, request_: RequestCommand, code: str) -> None:
    """The trainer hears nothing, the store keeps nothing."""
    world.greet(verbs=VERBS)
    with pytest.raises(GradwatchError) as error:
        world.ask(request_)
    assert error.value.code.slug == code
    assert error.value.next_step
    assert told(world) == []
    assert world.reader.commands("ant-ppo") == []


def test_trainer_at_the_largest_update_can_still_be_asked(world: World) -> None:
    """All ranks begin two updates on, and there are none: neither the store nor the wire may end the daemon over that."""
    two_ranks(world)
    world.tick(replace(world.rows.samples(), update=struct.pack("<q", UPDATE_MAX)))
    world.ask(want())
    world.ask(RequestEscalation("ant-ppo", "e1", Level.DEBUG, 5, "look"))
    assert kept(world).not_before == UPDATE_MAX
    assert told(world, b"q") == [("c1", "dump", UPDATE_MAX)]


def test_command_to_a_trainer_without_it_names_what_declares_it(world: World) -> None:
    """The line to add, or the word that was meant."""
    world.greet(verbs=())
    with pytest.raises(GradwatchError, match="should_stop"):
        world.ask(want(verb="stop"))
    with pytest.raises(GradwatchError, match='on_command\\("save"'):
        world.ask(want(verb="save"))
    world.tick(hello(verbs=("checkpoint",)))
    with pytest.raises(GradwatchError, match="Did you mean checkpoint"):
        world.ask(want(verb="checkpiont"))


def test_command_to_a_run_that_is_over_or_only_replayed_is_refused(world: World) -> None:
    """Nobody is there."""
    world.greet(verbs=VERBS)
    world.tick(m.Bye(-1, "closed"))
    with pytest.raises(GradwatchError, match="a run that is finished"):
        world.ask(want())
    world.tick(hello(session="s9", launch_id="l9", replay=True, verbs=VERBS))
    with pytest.raises(GradwatchError) as error:
        world.ask(want())
    assert error.value.code.slug == "run-not-live"


def test_command_is_told_once_after_its_commit_and_its_words_are_stored(world: World) -> None:
    """requested → delivered → applied → ended, published each time."""
    world.greet(verbs=VERBS)
    record = world.ask(want())
    assert isinstance(record, CommandRecord)
    assert record.state is State.DELIVERED
    assert told(world) == [("c1", "dump", 0)]
    assert kept(world) == record
    world.tick(m.Result(0, "c1", "applied", 7), m.Result(1, "c1", "ended", 7, "64 updates"))
    assert (kept(world).state, kept(world).update_applied, kept(world).ended_why) == (State.ENDED, 7, "64 updates")
    assert told(world) == [("c1", "dump", 0)]
    published = [p.payload.state for p in world.published if isinstance(p.payload, CommandRecord)]
    assert published == [State.DELIVERED, State.ENDED]


def test_command_asked_for_again_under_its_id_is_the_same_also_after_a_restart(world: World) -> None:
    """A client that got no answer asks again; the trainer hears of it once a connection."""
    world.greet(verbs=VERBS)
    first = world.ask(want())
    assert world.ask(want()) == first
    world.tick(m.Result(0, "c1", "ended", 7, "done"))
    world.restart()
    world.greet(verbs=VERBS)
    again = world.ask(want())
    assert isinstance(again, CommandRecord)
    assert again.state is State.ENDED
    assert told(world) == []
    with pytest.raises(GradwatchError, match="used before for another request"):
        world.ask(want(verb="stop"))


def test_command_not_answered_is_told_again_to_a_trainer_that_greets(world: World) -> None:
    """Also by a daemon that was restarted in between; what was answered is not."""
    world.greet(verbs=VERBS)
    world.ask(want("c1", "dump"))
    world.ask(want("c2", "checkpoint"))
    world.tick(m.Result(0, "c2", "applied", 3))
    world.restart()
    world.greet(verbs=VERBS)
    assert told(world) == [("c1", "dump", 0)]
    assert kept(world).state is State.DELIVERED


def test_command_that_could_not_be_handed_over_stays_requested_until_the_next_greeting(world: World) -> None:
    """Delivered means: given to a connection."""
    world.greet(verbs=VERBS)
    world.socket.gone.add(b"p")
    record = world.ask(want())
    assert isinstance(record, CommandRecord)
    assert record.state is State.REQUESTED
    world.socket.gone.clear()
    world.greet(verbs=VERBS)
    assert told(world) == [("c1", "dump", 0)]
    assert kept(world).state is State.DELIVERED


def test_command_taken_back_is_told_to_its_trainer(world: World) -> None:
    """Before it began it is cancelled at once."""
    world.greet(verbs=VERBS)
    world.ask(want())
    record = world.ask(CancelCommand("ant-ppo", "c1"))
    assert isinstance(record, CommandRecord)
    assert (record.state, record.ended_why) == (State.CANCELLED, "cancelled by an operator")
    assert told(world) == [("c1", "dump", 0), ("c1", CANCEL, 0)]
    assert world.ask(CancelCommand("ant-ppo", "c1")) == record
    assert len(told(world)) == 2


def test_command_expires_in_the_daemon_and_its_trainer_hears_of_it(world: World) -> None:
    """It must not be done tomorrow."""
    world.greet(verbs=VERBS)
    world.ask(want(expires_s=5.0))
    world.now_s += 4.9
    world.tick(m.Ping(1))
    assert kept(world).state is State.DELIVERED
    world.now_s += 1.1
    world.tick(m.Ping(1))
    assert kept(world).state is State.EXPIRED
    assert told(world)[-1] == ("c1", CANCEL, 0)


def test_command_for_all_ranks_has_one_update_for_them_and_each_ones_word(world: World) -> None:
    """As far after the newest of any rank as the wish may need, at a millisecond an update."""
    two_ranks(world)
    world.tick(world.rows.samples(10))
    world.ask(want(verb="checkpoint"))
    of_mine = [[one for one in told(world, peer) if one[0] == "c1"] for peer in (b"p", b"q")]
    assert of_mine == [[("c1", "checkpoint", 259)]] * 2  # the rank that sent nothing is missing: a dump was asked for as well
    world.tick(m.Result(0, "c1", "applied", 259), peer=b"q")
    assert [one.state for one in kept(world).ranks] == [State.DELIVERED, State.APPLIED]
    assert kept(world).state is State.DELIVERED


def test_command_for_one_rank_is_told_to_no_other(world: World) -> None:
    """A profile of rank 1."""
    two_ranks(world)
    world.ask(want(rank=1))
    assert told(world, b"p") == []
    assert [one.rank for one in kept(world).ranks] == [1]


def test_command_for_a_rank_that_died_is_refused_and_one_it_had_is_lost(world: World) -> None:
    """The other rank's word decides; a new command for the dead one is a 409."""
    two_ranks(world)
    world.ask(want())
    world.tick(m.Bye(-1, "closed"), peer=b"q")
    assert [one.state for one in kept(world).ranks] == [State.DELIVERED, State.LOST]
    with pytest.raises(GradwatchError) as error:
        world.ask(want("c2", "stop", rank=1))
    assert error.value.code.slug == "rank-not-live"
    world.tick(m.Result(0, "c1", "ended", 5, "done"))
    assert kept(world).state is State.ENDED


def test_command_of_a_run_that_ended_or_began_anew_is_lost(world: World) -> None:
    """Nobody is left who could say what became of it."""
    world.greet(verbs=VERBS)
    world.ask(want("c1"))
    world.tick(hello(session="s2", launch_id="another", verbs=VERBS))
    assert kept(world, "c1").state is State.LOST
    world.ask(want("c2"))
    world.tick(m.Bye(-1, "closed"))
    assert kept(world, "c2").state is State.LOST


def test_run_that_stopped_because_it_was_asked_to_is_stopped(world: World) -> None:
    """And the stop has ended, not got lost."""
    world.greet(verbs=VERBS)
    world.ask(want(verb="stop"))
    world.tick(m.Result(0, "c1", "applied", 3), m.Result(1, "c1", "ended", 5, "the trainer stopped"), m.Bye(1, "stopped"))
    assert kept(world).state is State.ENDED
    assert world.view().run.state == "stopped"


def test_verbs_of_a_live_run_are_shown_and_follow_its_newest_greeting(world: World) -> None:
    """A trainer offers one more; when it is gone it takes none."""
    world.greet(verbs=())
    assert world.view().verbs == ()
    world.tick(hello(verbs=("stop",)))
    assert world.view().verbs == ("stop",)
    session = world.store.session("s1")
    assert session is not None
    assert session.verbs == ("stop",)
    world.tick(m.Bye(-1, "closed"))
    assert world.view().verbs == ()


def test_anomaly_that_fires_has_the_black_box_asked_for_once(world: World) -> None:
    """However many updates it goes on for, and over a restart; the origin says for which anomaly."""
    world.greet(verbs=VERBS)
    world.tick(world.rows.samples(20))
    world.tick(world.rows.samples(1, changed=BROKEN))
    world.tick(world.rows.samples(1, changed=BROKEN))
    ((id_, verb, _),) = told(world)
    (anomaly,) = (one for one in world.store.open_anomalies() if one.kind == "nonfinite")
    assert (id_, verb, kept(world, id_).origin) == (f"dump-{anomaly.id}", "dump", f"anomaly:{anomaly.id}")
    world.tick(m.Result(world.rows.seq, id_, "ended", 21, "64 updates of 12 tensors"))
    world.rows.seq += 1
    world.restart()
    world.greet(verbs=VERBS)
    world.tick(world.rows.samples(1, changed=BROKEN))
    assert told(world) == []


def test_anomaly_of_a_trainer_without_a_black_box_asks_for_nothing(world: World) -> None:
    """An agent that does not know the verb is not asked, and detection goes on."""
    world.greet(verbs=("stop",))
    world.tick(world.rows.samples(20))
    world.tick(world.rows.samples(1, changed=BROKEN))
    assert told(world) == []
    assert world.store.open_anomalies()
