"""Commands through the pipeline: who may be asked, when it is told, and what a restart, a reconnect and a death leave of it."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts import messages as m
from gradwatch_contracts.control import CANCEL, Level
from gradwatch_contracts.control import ControlState as State
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.limits import UPDATE_MAX
from gradwatch_daemon.escalate.actions import Action
from gradwatch_daemon.escalate.policy import Policy, Response
from gradwatch_daemon.records.commands import (
    Allowance,
    Calm,
    CancelCommand,
    CommandRecord,
    RequestCommand,
    RequestEscalation,
    SetLevel,
)
from harness.rows import hello
from harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERBS = ("checkpoint", "dump", "stop")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def want(id_: str = "c1", verb: str = "dump", rank: int | None = None, expires_s: float = 3600.0) -> RequestCommand:
    """A request of a person."""
    return RequestCommand("ant-ppo", id_, verb, {"n": 1}, "look", rank, expires_s)


def told(world: World, peer: bytes = b"p") -> list[tuple[str, str, int]]:
    """The commands that went out to a peer."""
    return [(c.id, c.verb, c.not_before_update) for c in world.socket.of(m.Command, peer) if isinstance(c, m.Command)]


def kept(world: World, id_: str = "c1") -> CommandRecord:
    """As the store has it."""
    record = world.store.command("ant-ppo", id_)
    assert record is not None
    return record


def two_ranks(world: World) -> None:
    """Two processes of one run, on peers p and q."""
    world.greet(world=2, verbs=VERBS, launch_id="both")
    world.tick(hello(session="s2", rank=1, world=2, verbs=VERBS, launch_id="both"), peer=b"q")


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
    """Two after the newest of any rank."""
    two_ranks(world)
    world.tick(world.rows.samples(10))
    world.ask(want(verb="checkpoint"))
    of_mine = [[one for one in told(world, peer) if one[0] == "c1"] for peer in (b"p", b"q")]
    assert of_mine == [[("c1", "checkpoint", 11)]] * 2  # the rank that sent nothing is missing: a dump was asked for as well
    world.tick(m.Result(0, "c1", "applied", 11), peer=b"q")
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


BROKEN = {"loss.total": (16.0, math.nan, math.nan), "loss.total.nonfinite": (16.0,), "loss.total.nonfinite_mb": (0.0,)}


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


def test_level_of_a_run_that_is_over_is_not_changed_but_a_pin_is_let_go(world: World) -> None:
    """A pin outlives an attempt, so it must not outlive the wish to be rid of it."""
    world.greet()
    world.ask(SetLevel("ant-ppo", pin=Level.DEBUG))
    world.tick(m.Bye(-1, "closed"))
    for request in (SetLevel("ant-ppo", base=Level.OFF), SetLevel("ant-ppo", pin=Level.OFF)):
        with pytest.raises(GradwatchError) as error:
            world.ask(request)
        assert error.value.code.slug == "run-not-live"
    assert world.view().run.pin is Level.DEBUG
    world.ask(SetLevel("ant-ppo", unpin=True))
    assert world.view().run.pin is None


def test_level_seen_before_another_changed_it_is_refused(world: World) -> None:
    """Two operators at once: the second is told, and asks again with what holds now."""
    world.greet()
    seen = world.view().run.revision
    world.ask(SetLevel("ant-ppo", base=Level.MINIMAL, revision=seen))
    with pytest.raises(GradwatchError) as error:
        world.ask(SetLevel("ant-ppo", base=Level.DEBUG, revision=seen))
    assert error.value.code.slug == "level-changed"
    assert world.view().run.base is Level.MINIMAL
    world.ask(SetLevel("ant-ppo", base=Level.DEBUG, revision=world.view().run.revision))
    assert world.view().run.base is Level.DEBUG


def test_level_changed_is_told_to_the_trainer_and_kept_over_a_restart(world: World) -> None:
    """Base and pin, each alone; a change to the same says nothing new."""
    world.greet()
    world.ask(SetLevel("ant-ppo", base=Level.MINIMAL))
    world.ask(SetLevel("ant-ppo", pin=Level.OFF))
    desired = world.socket.of(m.LevelMessage)[-1].desired
    assert (desired.base, desired.pin) == (Level.MINIMAL, Level.OFF)
    world.ask(SetLevel("ant-ppo", pin=Level.OFF))
    assert world.socket.of(m.LevelMessage)[-1].desired == desired
    world.restart()
    world.greet()
    (welcome,) = world.socket.of(m.Welcome)
    assert (welcome.desired.base, welcome.desired.pin) == (Level.MINIMAL, Level.OFF)
    assert world.view().run.revision == desired.revision


def test_calm_ends_all_escalations_and_the_pin_of_one_run(world: World) -> None:
    """Those of rules too; the base stays."""
    world.greet()
    world.ask(RequestEscalation("ant-ppo", "e1", Level.DEBUG, 5, ""))
    world.ask(RequestEscalation("ant-ppo", "e2", Level.DEBUG, 5, ""))
    world.ask(SetLevel("ant-ppo", Level.MINIMAL, Level.DEBUG))
    view = world.ask(Calm("ant-ppo"))
    desired = world.socket.of(m.LevelMessage)[-1].desired
    assert (desired.base, desired.pin, desired.active) == (Level.MINIMAL, None, ())
    assert (view.run.pin, view.run.revision) == (None, desired.revision)
    assert {world.stored(id_).state for id_ in ("e1", "e2")} == {State.CANCELLED}


def test_escalation_that_expires_is_taken_from_its_trainer(world: World) -> None:
    """It must not raise the level tomorrow."""
    world.greet()
    world.ask(RequestEscalation("ant-ppo", "e1", Level.DEBUG, 5, "", 5.0))
    world.now_s += 5.0
    world.tick(m.Ping(1))
    assert world.stored("e1").state is State.EXPIRED
    assert world.socket.of(m.LevelMessage)[-1].desired.active == ()


def test_escalation_of_two_ranks_shows_the_word_of_each(world: World) -> None:
    """Applied when both have begun; a rank that died does not hold it up."""
    two_ranks(world)
    world.ask(RequestEscalation("ant-ppo", "e1", Level.DEBUG, 5, ""))
    assert [one.rank for one in world.stored("e1").ranks] == [0, 1]
    world.tick(m.Result(0, "e1", "applied", 7))
    assert [one.state for one in world.stored("e1").ranks] == [State.APPLIED, State.DELIVERED]
    assert world.stored("e1").state is State.DELIVERED
    world.tick(m.Bye(-1, "closed"), peer=b"q")
    assert (world.stored("e1").state, world.stored("e1").update_applied) == (State.APPLIED, 7)


def shadows(world: World) -> list[tuple[str, str]]:
    """What would have been done: verb and anomaly."""
    events = world.reader.events("ant-ppo", 100)
    return [(str(e.detail["verb"]), str(e.detail["anomaly"])) for e in events if e.kind == "shadow"]


def test_action_that_nobody_enabled_is_only_written_down_once(world: World) -> None:
    """The trainer hears nothing of it; over updates and a restart it stays one."""
    world.greet(verbs=("checkpoint", "stop"))
    world.tick(world.rows.samples(20))
    for _ in range(3):
        world.tick(world.rows.samples(1, changed=BROKEN))
    ((verb, id_), (other, same)) = shadows(world)
    assert {verb, other} == {"checkpoint", "stop"}
    assert id_ == same
    world.restart()
    world.greet(verbs=("checkpoint", "stop"))
    world.tick(world.rows.samples(1, changed=BROKEN))
    assert len(shadows(world)) == 2
    assert told(world) == []
    assert [item.verb for item in world.reader.commands("ant-ppo")] == []


def test_action_that_is_enabled_asks_the_trainer_in_the_anomalys_name(tmp_path: Path) -> None:
    """Once; of a trainer that does not take it nothing becomes, and detection goes on."""
    world = World(tmp_path, actions=(Action("stop", enabled=True), Action("checkpoint", enabled=True)))
    world.greet(verbs=("stop",))
    world.tick(world.rows.samples(20))
    world.tick(world.rows.samples(1, changed=BROKEN))
    world.tick(world.rows.samples(1, changed=BROKEN))
    ((id_, verb, _),) = told(world)
    assert verb == "stop"
    assert kept(world, id_).origin.startswith("anomaly:")
    assert kept(world, id_).reason.startswith("critical nonfinite: ")
    assert shadows(world) == []
    world.close()


def test_action_of_other_kinds_or_severities_is_not_due(tmp_path: Path) -> None:
    """Neither done nor written down."""
    world = World(tmp_path, actions=(Action("stop", kinds=("kl_spike",), enabled=True), Action("checkpoint", kinds=("x",))))
    world.greet(verbs=("stop",))
    world.tick(world.rows.samples(20))
    world.tick(world.rows.samples(1, changed=BROKEN))
    assert told(world) == []
    assert shadows(world) == []
    world.close()


def test_anomaly_that_is_spared_says_why_and_when_there_is_room(tmp_path: Path) -> None:
    """Once an anomaly; the run shows it too."""
    world = World(tmp_path, policy=Policy(Response(updates=6)))
    world.greet()
    world.tick(world.rows.samples(20))
    world.tick(world.rows.samples(1, changed=BROKEN))
    world.tick(world.rows.samples(1, changed=BROKEN))
    ((text, refill),) = [(e.text, e.detail["refill_update"]) for e in world.reader.events("ant-ppo", 100) if e.kind == "spared"]
    assert "0 of the 5 updates allowed" in text
    assert refill == 59
    assert world.view().allowance == Allowance(0, 5, 500, 59)


def test_escalation_in_an_anomalys_name_is_held_to_the_budget_and_a_persons_is_not(world: World) -> None:
    """A program that reacts to anomalies must not do what no rule may; nothing changes, and the hint names the update."""
    world.greet()
    world.tick(world.rows.samples(20))
    world.ask(RequestEscalation("ant-ppo", "e1", Level.DEBUG, 5, "", origin="anomaly:a1"))
    with pytest.raises(GradwatchError) as error:
        world.ask(RequestEscalation("ant-ppo", "e2", Level.DEBUG, 5, "", origin="anomaly:a2"))
    assert error.value.code.slug == "budget-spent"
    assert "room for 5 again at update 99" in error.value.next_step
    assert world.stored("e2") is None
    world.ask(RequestEscalation("ant-ppo", "e3", Level.DEBUG, 400, ""))
    assert world.stored("e3").origin == "operator"
