"""How runs, attempts and sessions end: goodbyes, silence, an older life, and what each leaves behind."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_contracts.control import ControlState, Level
from gradwatch_daemon.ingest.session import LiveSession
from gradwatch_daemon.records import Session
from gradwatch_daemon.records.commands import RequestEscalation
from gradwatch_daemon.records.run import AWAY_S, is_over
from gradwatch_daemon.store.protocol import AnomalyFilter
from harness.rows import BROKEN, FULL, T0_NS, RowMaker, hello

if TYPE_CHECKING:
    from harness.world import World

NAN = float("nan")


def _want(id_: str = "e1", updates: int = 10, level: Level = Level.DEBUG) -> RequestEscalation:
    return RequestEscalation("ant-ppo", id_, level, updates, "look")


@pytest.mark.parametrize(("reason", "state"), [("closed", "finished"), ("exception", "crashed"), ("interrupted", "stopped")])
def test_bye_ends_the_run_and_loses_what_was_open(world: World, reason: str, state: str) -> None:
    """A crash is told apart from an end."""
    world.greet()
    world.ask(_want())
    world.tick(world.rows.samples(), m.Bye(0, reason))
    view = world.view()
    assert (view.run.state, view.live) == (state, False)  # type: ignore[attr-defined]
    assert world.stored("e1").state is ControlState.LOST  # type: ignore[attr-defined]


def test_silence_makes_a_run_lost_but_keeps_what_was_asked(world: World) -> None:
    """Lost is not crashed: it may come back and apply what is wanted."""
    world.greet()
    world.socket.gone.add(b"p")
    world.ask(_want())
    world.now_s += limits.HEARTBEAT_S * limits.HEARTBEATS_MISSED_MAX + 1
    world.tick()
    assert world.view().run.state == "lost"  # type: ignore[attr-defined]
    assert world.stored("e1").state is ControlState.REQUESTED  # type: ignore[attr-defined]
    world.socket.gone.clear()
    world.greet()
    assert world.view().run.state == "live"  # type: ignore[attr-defined]
    assert world.stored("e1").state is ControlState.DELIVERED  # type: ignore[attr-defined]


def test_another_launch_is_another_attempt_with_its_own_base_and_updates(world: World) -> None:
    """Open escalations of the old attempt are lost; its rows stay."""
    world.greet()
    world.tick(world.rows.samples(5))
    world.ask(_want())
    world.greet(session="s2", level=1)
    view = world.view()
    assert (view.run.attempt, view.run.base, view.update_last) == (2, Level.MINIMAL, None)  # type: ignore[attr-defined]
    assert world.stored("e1").state is ControlState.LOST  # type: ignore[attr-defined]
    world.tick(RowMaker().samples(2))
    assert world.store.row_counts() == {("ant-ppo", 1, 0): (5, 4), ("ant-ppo", 2, 0): (2, 1)}


def test_sessions_that_ended_are_not_kept_in_memory(world: World) -> None:
    """A daemon beside a cluster meets millions; the store has them all."""

    def held() -> int:
        gc.collect()
        return sum(type(thing) in {Session, LiveSession} for thing in gc.get_objects())

    before = held()
    for number in range(40):
        world.greet(session=f"s{number}")
        world.tick(m.Bye(-1, "closed"))
    assert held() == before
    assert world.store.session("s0") is not None


def test_bye_of_an_old_connection_leaves_the_new_one_of_the_same_process(world: World) -> None:
    """A trainer that reconnected in the same tick in which its last words of before arrived."""
    world.greet()
    world.pipeline.tick([(b"q", encode(hello())), (b"p", encode(m.Bye(-1, "closed")))])
    world.tick(m.SchemaMessage(FULL.columns), world.rows.samples(2), peer=b"q")
    assert world.store.row_counts()["ant-ppo", 1, 0] == (2, 1)
    assert world.view().sessions == 1  # type: ignore[attr-defined]


@pytest.mark.promise("loss-told")
def test_loss_is_counted_and_stored(world: World) -> None:
    """It stands wherever data is shown."""
    world.greet()
    world.tick(m.Loss(0, 3, "outbox full"), RowMaker(seq=4, update=4).samples(2))
    assert (world.view().rows, world.view().lost) == (2, 4)  # type: ignore[attr-defined]
    (loss,) = world.reader.losses("ant-ppo")
    assert (loss.first_seq, loss.last_seq, loss.reason) == (0, 3, "outbox full")
    world.restart()
    assert (world.view().rows, world.view().lost) == (2, 4)  # type: ignore[attr-defined]


def test_bye_before_everything_was_sent_records_the_rest_as_lost(world: World) -> None:
    """The trainer ended before its link had sent all: a gap at the end is a gap too."""
    world.greet()
    world.tick(world.rows.samples(2), m.Bye(9, "closed"))
    (loss,) = world.reader.losses("ant-ppo")
    assert (loss.first_seq, loss.last_seq, loss.reason) == (2, 9, "not sent before the end")
    assert world.view().lost == 8  # type: ignore[attr-defined]


def test_process_of_an_older_attempt_neither_hears_nor_decides(world: World) -> None:
    """It may live on for a while beside its successor."""
    world.greet()
    world.tick(hello(session="s2"), peer=b"q")
    world.ask(_want())
    assert not any(a.id == "e1" for level in world.socket.of(m.LevelMessage) for a in level.desired.active)  # type: ignore[attr-defined]
    assert any(a.id == "e1" for level in world.socket.of(m.LevelMessage, b"q") for a in level.desired.active)  # type: ignore[attr-defined]
    world.tick(m.Result(0, "e1", "applied", 777))
    assert world.stored("e1").update_applied is None  # type: ignore[attr-defined]
    world.tick(world.rows.samples(1, changed=BROKEN))
    assert [e.id for e in world.reader.escalations("ant-ppo")] == ["e1"]


def test_end_of_the_present_attempt_ends_the_run_though_an_older_process_lingers(world: World) -> None:
    """The old one falls silent later and must not turn finished into lost."""
    world.greet()
    world.tick(hello(session="s2"), peer=b"q")
    world.tick(m.Bye(-1, "closed"), peer=b"q")
    assert world.view().run.state == "finished"  # type: ignore[attr-defined]
    world.now_s += 60
    world.tick()
    assert world.view().run.state == "finished"  # type: ignore[attr-defined]


def test_run_ends_as_badly_as_the_worst_of_its_ranks(world: World) -> None:
    """Rank 0 crashed, rank 1 was told to stop."""
    world.greet(launch_id="L", session="r0", world=2)
    world.tick(hello(launch_id="L", session="r1", rank=1, world=2), peer=b"q")
    world.tick(m.Bye(-1, "exception"))
    assert world.view().live  # type: ignore[attr-defined]
    world.tick(m.Bye(-1, "closed"), peer=b"q")
    assert world.view().run.state == "crashed"  # type: ignore[attr-defined]


def test_anomalies_of_an_older_attempt_are_closed_with_the_reason(world: World) -> None:
    """Nothing can be said of them any more."""
    world.greet()
    world.tick(world.rows.samples(1, changed=BROKEN), m.Bye(0, "exception"))
    assert len(world.view().open_anomalies) == 1  # type: ignore[attr-defined]
    world.greet(session="s2")
    assert world.view().open_anomalies == ()  # type: ignore[attr-defined]
    (anomaly,) = world.reader.anomalies(AnomalyFilter(run="ant-ppo"))
    assert (anomaly.state, anomaly.update_resolved) == ("resolved", 0)
    assert anomaly.sentence.endswith("Closed: another attempt began.")


def test_what_stood_when_the_run_ended_is_told_again_and_its_record_stays(world: World) -> None:
    """Who follows learns that it is not going on; what is stored says what detection left."""
    world.greet()
    world.tick(world.rows.samples(1, changed=BROKEN))
    world.published.clear()
    world.tick(m.Bye(0, "closed"))
    (told,) = [one.payload for one in world.published if one.topic == "anomaly"]
    (stored,) = world.reader.anomalies(AnomalyFilter(run="ant-ppo"))
    assert told == stored
    assert stored.state == "firing"
    assert is_over(world.view(), 0)  # type: ignore[arg-type]


def test_what_stands_in_a_lost_run_is_told_again_once_it_is_over_and_when_it_is_back(world: World) -> None:
    """Who follows sees `ended` after the 60 s that the API waits, not at the loss, and `firing` where it comes back."""
    world.greet()
    world.tick(world.rows.samples(1, changed=BROKEN))

    def told(seconds: float, *messages: m.Message) -> list[bool]:
        world.published.clear()
        world.now_s += seconds
        world.tick(*messages)
        now_ns = T0_NS + int(world.now_s * 1e9)
        return [is_over(world.view(), now_ns) for one in world.published if one.topic == "anomaly"]  # type: ignore[arg-type]

    assert told(limits.HEARTBEAT_S * limits.HEARTBEATS_MISSED_MAX + 1) == []
    assert world.view().state == "lost"  # type: ignore[attr-defined]
    assert told(AWAY_S - 1) == []
    assert told(1) == [True]
    assert told(1) == []
    world.restart()
    assert told(1) == []
    assert told(1, hello()) == [False]
    assert told(1) == []


def test_detection_of_an_ended_run_is_put_away(world: World) -> None:
    """A daemon that lives for months sees thousands of runs."""
    world.greet()
    world.tick(world.rows.samples(5))
    assert len(world.pipeline._detection._streams) == 1
    world.tick(m.Bye(4, "closed"))
    assert len(world.pipeline._detection._streams) == 0
    assert world.view().detectors  # type: ignore[attr-defined]


def _anomalies(world: World, kind: str) -> list[tuple[str, str, str]]:
    found = world.reader.anomalies(AnomalyFilter(run="ant-ppo", kind=kind))
    return [(a.subject, a.severity.value, a.state) for a in found]


def _beat(world: World, seconds: float) -> None:
    """Time passes while the trainer answers."""
    for _ in range(int(seconds)):
        world.now_s += 1.0
        world.tick(m.Ping(0))


def test_stall_fires_while_the_trainer_answers_and_ends_with_its_next_row(world: World) -> None:
    """Rows came every millisecond; after five silent but answered seconds it stands still, once, and the level is raised."""
    world.greet()
    world.tick(world.rows.samples(20))
    _beat(world, 5)
    assert _anomalies(world, "stall") == []
    _beat(world, 20)
    assert _anomalies(world, "stall") == [("", "warning", "firing")]
    (tick,) = [event for event in world.reader.events("ant-ppo", 10) if event.kind == "tick"]
    assert (tick.update, tick.seq) == (19, -1)
    assert [e.origin.split(":")[0] for e in world.reader.escalations("ant-ppo")] == ["anomaly"]
    assert {d.kind for d in world.view().detectors if d.state == "firing"} == {"stall"}  # type: ignore[attr-defined]
    world.restart()
    world.greet()
    _beat(world, 20)
    assert _anomalies(world, "stall") == [("", "warning", "firing")]
    world.tick(world.rows.samples(1))
    assert _anomalies(world, "stall") == [("", "warning", "resolved")]


@pytest.mark.promise("spool-past")
def test_rows_recorded_earlier_neither_stall_nor_escalate_and_their_end_is_imported(world: World) -> None:
    """Nobody is there who could look closer, or who stands still; the same rows of a trainer would do both."""
    world.greet(replay=True)
    world.tick(world.rows.samples(20), world.rows.samples(2, changed=BROKEN))
    _beat(world, 30)
    assert _anomalies(world, "nonfinite") == [("", "critical", "firing")]
    assert _anomalies(world, "stall") == []
    assert world.reader.escalations("ant-ppo") == []
    world.tick(m.Bye(21, "imported"))
    assert world.view().run.state == "imported"  # type: ignore[attr-defined]


def test_trainer_that_does_not_answer_is_lost_and_not_stalled(world: World) -> None:
    """kill -9 is no stall; nor is a trainer that has just come back."""
    world.greet()
    world.tick(world.rows.samples(20))
    for _ in range(30):
        world.now_s += 1.0
        world.tick()
    assert world.view().run.state == "lost"  # type: ignore[attr-defined]
    world.greet()
    _beat(world, 4)
    assert _anomalies(world, "stall") == []


def test_bye_with_records_unsent_is_a_gap_of_its_own(world: World) -> None:
    """What was not sent before the end is told like any other loss."""
    world.greet()
    world.tick(world.rows.samples(30), m.Bye(40, "closed"))
    assert _anomalies(world, "telemetry_gap") == [("not sent before the end", "warning", "firing")]
