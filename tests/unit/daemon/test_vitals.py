"""States of runs through the pipeline on a clock that stands still: what is shown, when it is told, and what is kept."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts import messages as m
from gradwatch_contracts.control import ControlState as State
from gradwatch_contracts.control import Level
from gradwatch_daemon.records import RunView
from gradwatch_daemon.records.commands import RequestEscalation
from gradwatch_daemon.store.protocol import AnomalyFilter
from harness.router import eventually
from harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A run with an update every 2 s, twelve of them."""
    world = World(tmp_path)
    world.greet()
    for _ in range(12):
        train(world)
    yield world
    world.close()


def train(world: World) -> None:
    """One update of 2 s: the rows' own clock says the same."""
    world.now_s += 2.0
    world.rows.t_ns += 2_000_000_000 - 1_000_000
    world.tick(world.rows.samples(1))


def shown(world: World) -> tuple[str, str]:
    """State and evidence as HTTP shows them."""
    view = world.pipeline.snapshots["ant-ppo"]
    return view.state, view.evidence


def wait(world: World, seconds: float) -> None:
    """Time passes; the trainer answers to the end of it."""
    world.now_s += seconds
    world.tick(m.Ping(1))


def pause(world: World, over: bool, seconds: float) -> None:
    """What the agent says of an evaluation."""
    detail = {"phase": "eval", "n": 1, "over": over, "seconds": seconds}
    event = m.Event(world.rows.seq, "phase", world.rows.update, world.rows.t_ns, "eval", detail)
    world.rows.seq += 1
    world.tick(event)


def test_run_becomes_slow_then_stalled_and_is_live_with_its_next_update(world: World) -> None:
    """Each change is published once, without any update in between."""
    assert shown(world)[0] == "live"
    assert "every 2 s" in shown(world)[1]
    told = len(world.published)
    wait(world, 6.0)
    assert shown(world)[0] == "live"
    wait(world, 0.1)
    assert shown(world)[0] == "slow"
    wait(world, 14.0)
    assert shown(world)[0] == "stalled"
    wait(world, 10.0)
    states = [p.payload.state for p in world.published[told:] if isinstance(p.payload, RunView)]
    assert states == ["slow", "stalled"]
    train(world)
    assert shown(world)[0] == "slow"
    assert "took" in shown(world)[1]
    train(world)
    assert shown(world)[0] == "live"


def test_evaluation_of_ten_times_the_rhythm_is_no_stall_and_one_without_a_word_is(world: World) -> None:
    """Nor is its end late; the rule `stall` agrees, and so does a replay of what was stored."""
    pause(world, False, 1.0)
    wait(world, 60.0)
    assert shown(world) == ("live", shown(world)[1])
    assert shown(world)[1].startswith("In eval since")
    pause(world, True, 60.0)
    wait(world, 5.0)
    assert shown(world)[0] == "live"
    assert world.reader.anomalies(AnomalyFilter()) == []
    wait(world, 20.0)
    assert shown(world)[0] == "stalled"
    assert [a.kind for a in world.reader.anomalies(AnomalyFilter())] == ["stall"]


def test_process_that_does_not_answer_is_lost_and_the_sentence_survives_a_restart(world: World) -> None:
    """From another machine nothing more can be known."""
    world.now_s += 7.0
    world.tick()
    assert shown(world)[0] == "lost"
    assert "whether it still trains is not known" in shown(world)[1]
    before = shown(world)
    world.restart()
    assert shown(world) == before
    world.greet()
    assert shown(world)[0] == "live"


def test_killed_process_of_this_machine_is_found_at_once(tmp_path: Path) -> None:
    """A quarter of a second after its last word, not after three heartbeats: lost, not crashed, and so is what it was asked."""
    world = World(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        world.greet(host=socket.gethostname(), pid=child.pid, started_unix_ns=time.time_ns())
        world.tick(world.rows.samples(3))
        world.ask(RequestEscalation("ant-ppo", "e1", Level.DEBUG, 50, ""))
        world.tick(m.Result(world.rows.seq, "e1", "applied", 3))
        child.kill()
    eventually(lambda: world.pipeline._processes.gone() == ["s1"], "it to be gone")
    world.tick()
    assert shown(world)[0] == "live"
    world.now_s += 0.3
    world.tick()
    assert shown(world)[0] == "lost"
    assert f"Process {child.pid} is gone" in shown(world)[1]
    assert (world.stored("e1").state, world.stored("e1").update_applied) == (State.LOST, 3)
    world.pipeline._processes.close()
    world.close()


def test_silent_process_that_still_exists_is_stalled_until_it_is_gone(tmp_path: Path) -> None:
    """Lost would say that we do not know; when it goes, it is lost."""
    world = World(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        world.greet(host=socket.gethostname(), pid=child.pid, started_unix_ns=time.time_ns())
        world.tick(world.rows.samples(3))
        world.ask(RequestEscalation("ant-ppo", "e1", Level.DEBUG, 50, ""))
        world.now_s += 7.0
        world.tick()
        assert shown(world)[0] == "stalled"
        assert world.stored("e1").state is State.DELIVERED
        assert f"process {child.pid} still exists" in shown(world)[1]
        child.kill()
    eventually(lambda: world.pipeline._processes.gone() == ["s1"], "it to be gone")
    world.tick()
    assert shown(world)[0] == "lost"
    assert world.stored("e1").state is State.LOST
    world.pipeline._processes.close()
    world.close()


@pytest.mark.parametrize(
    ("reason", "state", "said"),
    [
        ("exception", "crashed", "It raised ValueError: bad logits"),
        ("interrupted", "stopped", "It was interrupted"),
        ("closed", "finished", "It said goodbye"),
    ],
)
def test_last_words_decide_how_it_ended_and_are_kept(world: World, reason: str, state: str, said: str) -> None:
    """The exception of the event; the same over a restart."""
    if reason == "exception":
        detail = {"type": "ValueError", "message": "bad\n logits"}
        world.tick(m.Event(world.rows.seq, "exception", 12, world.rows.t_ns, "Traceback", detail))
        world.rows.seq += 1
    world.tick(m.Bye(world.rows.seq - 1, reason))
    for _ in range(2):
        assert shown(world)[0] == state
        assert shown(world)[1].startswith(said)
        assert "in update 11" in shown(world)[1]
        world.restart()
