"""Level, escalations and actions through the pipeline: what is told, what a restart keeps, and what the budget spares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts import messages as m
from gradwatch_contracts.control import ControlState as State
from gradwatch_contracts.control import Level
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.escalate.actions import Action
from gradwatch_daemon.escalate.policy import Policy, Response
from gradwatch_daemon.escalate.ranks import NOT_HEARD
from gradwatch_daemon.records.commands import (
    Allowance,
    Calm,
    RequestCommand,
    RequestEscalation,
    SetLevel,
)
from harness.commanded import VERBS, kept, told, two_ranks
from harness.rows import BROKEN, hello
from harness.world import World

if TYPE_CHECKING:
    from pathlib import Path


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


def test_escalation_of_a_trainer_that_is_never_heard_of_again_is_lost_at_its_deadline(world: World) -> None:
    """Begun or not: it is not shown as applied for ever. Before the deadline the trainer may yet come back."""
    world.greet()
    world.ask(RequestEscalation("ant-ppo", "e1", Level.DEBUG, 5, "", 60.0))
    world.tick(m.Result(0, "e1", "applied", 7))
    world.now_s += 30.0
    world.tick()
    assert world.stored("e1").state is State.APPLIED
    world.now_s += 31.0
    world.tick()
    assert (world.stored("e1").state, world.stored("e1").ended_why) == (State.LOST, NOT_HEARD)


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


def test_rank_of_another_machine_that_falls_silent_holds_nothing_up_and_rejoins(world: World) -> None:
    """Its process cannot be seen: after its patience the others decide, or no rule could ever raise again. When it greets again
    it is told the desired state and the command anew."""
    two_ranks(world)
    world.tick(world.rows.samples(1))
    world.ask(RequestEscalation("ant-ppo", "e1", Level.DEBUG, 5, ""))
    world.ask(RequestCommand("ant-ppo", "c1", "checkpoint"))
    world.tick(m.Result(1, "e1", "applied", 7), m.Result(2, "c1", "applied", 7))
    assert (world.stored("e1").state, kept(world, "c1").state) == (State.DELIVERED, State.DELIVERED)
    for _ in range(7):
        world.now_s += 1.0
        world.tick(m.Ping(1))
    assert (world.stored("e1").state, kept(world, "c1").state) == (State.APPLIED, State.APPLIED)
    assert [one.state for one in world.stored("e1").ranks] == [State.APPLIED, State.LOST]
    sent = len(world.socket.sent)
    world.tick(hello(session="s2", rank=1, world=2, verbs=VERBS, launch_id="both"), peer=b"q")
    assert [one.state for one in world.stored("e1").ranks] == [State.APPLIED, State.DELIVERED]
    told_again = [message for peer, message in world.socket.sent[sent:] if peer == b"q"]
    assert [one.id for one in told_again if isinstance(one, m.Command)] == ["c1"]
    assert ["e1"] in [[e.id for e in one.desired.active] for one in told_again if isinstance(one, m.LevelMessage)]
    world.tick(m.Result(0, "e1", "applied", 9), peer=b"q")
    assert (world.stored("e1").state, world.stored("e1").update_applied) == (State.APPLIED, 9)


def test_ranks_that_all_fall_silent_at_once_are_waited_for_until_the_deadline(world: World) -> None:
    """Their network broke, or the daemon's did: they may yet do what they were asked for."""
    two_ranks(world)
    world.ask(RequestEscalation("ant-ppo", "e1", Level.DEBUG, 5, "", 60.0))
    world.now_s += 7.0
    world.tick()
    assert [one.state for one in world.stored("e1").ranks] == [State.DELIVERED, State.DELIVERED]
    world.now_s += 60.0
    world.tick()
    assert world.stored("e1").state is State.EXPIRED


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
    """Once; of a trainer that does not take it an event says so, and detection goes on."""
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


def unmet(world: World) -> list[tuple[str, str]]:
    """What could not be asked for: verb and sentence."""
    return [(str(e.detail["verb"]), e.text) for e in world.reader.events("ant-ppo", 100) if e.kind == "unmet"]


def test_action_of_a_trainer_that_does_not_declare_it_is_told_once_and_asked_for_when_it_does(tmp_path: Path) -> None:
    """It does not vanish, neither over updates nor over a restart of the daemon."""
    world = World(tmp_path, actions=(Action("checkpoint", enabled=True),))
    world.greet(verbs=("dump",))
    world.tick(world.rows.samples(20))
    for _ in range(3):
        world.tick(world.rows.samples(1, changed=BROKEN))
    ((verb, said),) = unmet(world)
    assert verb == "checkpoint"
    assert 'Add `mon.on_command("checkpoint", save)` to the trainer.' in said
    world.restart()
    world.greet(verbs=("dump",))
    assert "checkpoint" not in [verb for _, verb, _ in told(world)]
    world.greet(verbs=("dump", "checkpoint"))
    assert len({id_ for id_, verb, _ in told(world) if verb == "checkpoint"}) == 1
    assert len(unmet(world)) == 1
    world.close()


def test_action_whose_verb_is_under_way_is_asked_for_when_that_is_over(tmp_path: Path) -> None:
    """Somebody asked before us; what they get may be older than the fault."""
    world = World(tmp_path, actions=(Action("checkpoint", enabled=True),))
    world.greet(verbs=("checkpoint",))
    world.tick(world.rows.samples(20))
    world.ask(RequestCommand("ant-ppo", "c1", "checkpoint"))
    world.tick(m.Result(world.rows.seq, "c1", "applied", 20))
    world.rows.seq += 1
    world.tick(world.rows.samples(2, changed=BROKEN))
    assert [id_ for id_, _, _ in told(world)] == ["c1"]
    assert "c1, asked for by operator and applied" in unmet(world)[0][1]
    world.tick(m.Result(world.rows.seq, "c1", "ended", 22, "saved"))
    assert [verb for _, verb, _ in told(world)] == ["checkpoint", "checkpoint"]
    assert kept(world, told(world)[1][0]).origin.startswith("anomaly:")
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


def test_escalation_in_an_anomalys_name_is_held_to_what_its_own_rule_may(tmp_path: Path) -> None:
    """Level off, and a cooldown whatever the reason says in words: the kind is the anomaly's own, also after a restart."""
    rules = {"nonfinite": Response(level=Level.OFF)}
    world = World(tmp_path, policy=Policy(by_kind=rules))
    world.greet()
    world.tick(world.rows.samples(60))
    world.tick(world.rows.samples(2, changed=BROKEN))
    (anomaly,) = [one for one in world.view().open_anomalies if one.kind == "nonfinite"]

    def ask(id_: str) -> str:
        try:
            world.ask(RequestEscalation("ant-ppo", id_, Level.DEBUG, 2, "because", origin=f"anomaly:{anomaly.id}"))
        except GradwatchError as error:
            return f"{error.code.slug}: {error.next_step}"
        return world.stored(id_).kind

    assert ask("e1") == "budget-spent: Nonfinite asks for no more: its level is off."
    rules["nonfinite"] = Response(level=Level.DEBUG, updates=1, cooldown=40)
    assert ask("e2") == "nonfinite"
    world.tick(m.Result(world.rows.seq, "e2", "applied", 62), m.Result(world.rows.seq + 1, "e2", "ended", 64, "done"))
    world.restart()
    world.greet()
    assert world.pipeline._runs.states["ant-ppo"].escalations.get("e2").kind == "nonfinite"
    assert ask("e3") == "budget-spent: Nonfinite rests until update 104."
    world.close()
