"""The pipeline over a real store and a socket of one list: what is acked, told, raised, lost and restored."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_contracts.control import ControlState, Level, Severity
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.derive.derive import Deriver
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.detect.engine import Engine
from gradwatch_daemon.ingest.session import LiveSession
from gradwatch_daemon.records import ALL_RANKS, Commit, Session, SignalBlock, SignalKey, Stream
from gradwatch_daemon.records.commands import CancelEscalation, RequestEscalation
from gradwatch_daemon.store.protocol import AnomalyFilter
from harness.rows import FULL, T0_NS, RowMaker, hello
from harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAN = float("nan")
BROKEN = {"loss.total": (16.0, NAN, NAN), "loss.total.nonfinite": (16.0,), "loss.total.nonfinite_mb": (0.0,)}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def _want(id_: str = "e1", updates: int = 10, level: Level = Level.DEBUG) -> RequestEscalation:
    return RequestEscalation("ant-ppo", id_, level, updates, "look")


def test_hello_with_a_wrong_secret_is_refused_and_makes_no_run(tmp_path: Path) -> None:
    """Over TCP anybody on this machine can connect."""
    world = World(tmp_path, secret="right")
    world.tick(hello(secret="wrong"))
    assert world.socket.of(m.Refuse) == [m.Refuse("secret-wrong", "HELLO.secret")]
    assert not world.pipeline.snapshots
    world.tick(hello(secret="right"))
    assert world.socket.of(m.Welcome)
    world.close()


def test_hello_with_a_bad_run_name_is_refused_with_the_pattern(world: World) -> None:
    """The agent checks it too; a foreign client may not."""
    world.tick(hello("Ant PPO"))
    (refusal,) = world.socket.of(m.Refuse)
    assert isinstance(refusal, m.Refuse)
    assert (refusal.code, "HELLO.run: expected" in refusal.detail) == ("invalid-argument", True)


@pytest.mark.promise("ack-after-commit")
def test_rows_are_acked_only_after_their_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that fails is tried again with the same rows; until then no ack, and the daemon is not ready."""
    world.greet()
    commit, troubles = world.store.commit, []

    def fail_twice(batch: Commit) -> None:
        if len(troubles) < 2:
            troubles.append((world.pipeline.trouble, len(world.socket.of(m.Ack))))
            raise GradwatchError("data-dir-unusable", where="disk", expected="room", got="none")
        troubles.append((world.pipeline.trouble, len(world.socket.of(m.Ack))))
        commit(batch)

    monkeypatch.setattr(world.store, "commit", fail_twice)
    monkeypatch.setattr("gradwatch_daemon.pipeline.pipeline.COMMIT_RETRY_S", 0.0)
    world.tick(world.rows.samples(3))
    assert troubles[0] == ("", 0)
    assert all("cannot be written" in trouble and acks == 0 for trouble, acks in troubles[1:])
    assert world.socket.of(m.Ack) == [m.Ack(2)]
    assert world.pipeline.trouble == ""
    assert world.store.row_counts()["ant-ppo", 1, 0] == (3, 2)


def test_repeated_hello_of_a_connection_does_not_refuse_the_rows_behind_it(world: World) -> None:
    """A daemon that is slow to answer is greeted twice; rows were on their way by then."""
    world.greet()
    world.tick(world.rows.samples(3))
    world.tick(hello(), world.rows.samples(2))
    world.tick(world.rows.samples(2))

    assert world.socket.of(m.Refuse) == []
    assert world.socket.of(m.Ack)[-1] == m.Ack(6)


def test_snapshot_holds_the_newest_row_of_rank_0_and_the_agent_version(world: World) -> None:
    """What /metrics and the doctor show of a run: its last values, when they were made and when they came."""
    world.greet(agent_version="0.9")
    world.tick(world.rows.samples(2), world.rows.samples(1, changed={"opt.lr": (0.125,)}))
    view = world.view()
    values = dict(zip(view.newest.signals, view.newest.values.tolist(), strict=True))

    assert values[SignalKey("opt.lr")] == 0.125
    assert (view.newest.t_ns, view.newest.received_ns) == (T0_NS + 2_000_000, T0_NS + 100_000_000_000)
    assert view.newest.status[view.newest.signals.index(SignalKey("opt.lr"))] == 0
    assert view.agent_version == "0.9"
    world.tick(hello(session="s2", launch_id="another"))
    assert world.view().newest is None


def test_snapshot_holds_no_row_of_another_rank(world: World) -> None:
    """Ranks send in any order; a figure that jumps between them would be none."""
    world.greet(rank=1, world=2)
    world.tick(world.rows.samples())

    assert (world.view().update_last, world.view().newest) == (0, None)


@pytest.mark.promise("same-transaction")
def test_resent_rows_are_stored_once_and_acked_again(world: World) -> None:
    """Also over a restart of the daemon: the last sequence number is part of the transaction."""
    world.greet()
    first = world.rows.samples(3)
    world.tick(first)
    world.restart()
    world.greet()
    (welcome,) = world.socket.of(m.Welcome)
    assert isinstance(welcome, m.Welcome)
    assert (welcome.attempt, welcome.last_seq) == (1, 2)
    world.tick(first, world.rows.samples(2))
    assert world.socket.of(m.Ack) == [m.Ack(4)]
    assert world.store.row_counts()["ant-ppo", 1, 0] == (5, 4)


def test_nonfinite_row_fires_raises_the_level_and_is_told_after_the_commit(world: World) -> None:
    """Anomaly, escalation and the LEVEL message of one tick."""
    world.greet()
    world.tick(world.rows.samples(30))
    world.tick(world.rows.samples(1, changed=BROKEN))
    (anomaly,) = world.reader.anomalies(AnomalyFilter(run="ant-ppo"))
    assert (anomaly.kind, anomaly.severity, anomaly.state, anomaly.stage) == ("nonfinite", Severity.CRITICAL, "firing", "loss")
    assert anomaly.update_onset == anomaly.update_fired == 30
    (escalation,) = world.reader.escalations("ant-ppo")
    assert (escalation.level, escalation.updates, escalation.state) == (Level.DEBUG, 5, ControlState.DELIVERED)
    assert escalation.origin == f"anomaly:{anomaly.id}"
    level = world.socket.of(m.LevelMessage)[-1]
    assert isinstance(level, m.LevelMessage)
    assert [(a.id, a.level, a.updates) for a in level.desired.active] == [(escalation.id, Level.DEBUG, 5)]
    topics = [published.topic for published in world.published]
    assert {"rows", "anomaly", "escalation", "run"} <= set(topics)


def test_only_a_result_makes_an_escalation_applied_and_ended(world: World) -> None:
    """With the agent's update numbers; the desired state follows."""
    world.greet()
    record = world.ask(_want())
    assert record.state in (ControlState.REQUESTED, ControlState.DELIVERED)  # type: ignore[attr-defined]
    world.tick(world.rows.samples(5))
    assert world.stored("e1").state is ControlState.DELIVERED  # type: ignore[attr-defined]
    world.tick(m.Result(5, "e1", "applied", 3))
    assert (world.stored("e1").state, world.stored("e1").update_applied) == (ControlState.APPLIED, 3)  # type: ignore[attr-defined]
    world.tick(m.Result(6, "e1", "ended", 13, "done"))
    ended = world.stored("e1")
    assert (ended.state, ended.update_ended, ended.ended_why) == (ControlState.ENDED, 13, "done")  # type: ignore[attr-defined]
    world.greet()
    (*_, welcome) = world.socket.of(m.Welcome)
    assert isinstance(welcome, m.Welcome)
    assert welcome.desired.active == ()


def test_request_is_refused_for_unknown_and_for_dead_runs(world: World) -> None:
    """Nothing can be applied to a run without a trainer."""
    with pytest.raises(GradwatchError, match="No run has this name"):
        world.ask(replace(_want(), run="nobody"))
    world.greet()
    world.tick(m.Bye(-1, "closed"))
    with pytest.raises(GradwatchError, match="no live session"):
        world.ask(_want())


def test_request_with_a_known_id_gives_the_same_record_or_refuses_other_content(world: World) -> None:
    """Idempotent by the client's id, also after it ended and over a restart."""
    world.greet()
    world.ask(_want())
    revision = world.view().run.revision  # type: ignore[attr-defined]
    world.ask(_want())
    assert world.view().run.revision == revision  # type: ignore[attr-defined]
    with pytest.raises(GradwatchError, match="used before"):
        world.ask(_want(updates=11))
    world.tick(m.Result(0, "e1", "applied", 1), m.Result(1, "e1", "ended", 11, "done"))
    world.restart()
    world.greet()
    again = world.ask(_want())
    assert again.state is ControlState.ENDED  # type: ignore[attr-defined]


def test_cancel_takes_it_out_of_the_desired_state(world: World) -> None:
    """One not applied is cancelled at once; an unknown id is an error."""
    world.greet()
    world.ask(_want())
    world.ask(CancelEscalation("ant-ppo", "e1"))
    assert world.stored("e1").state is ControlState.CANCELLED  # type: ignore[attr-defined]
    level = world.socket.of(m.LevelMessage)[-1]
    assert isinstance(level, m.LevelMessage)
    assert level.desired.active == ()
    with pytest.raises(GradwatchError, match="No escalation"):
        world.ask(CancelEscalation("ant-ppo", "nothing"))


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


def test_ranks_of_one_launch_share_the_attempt(world: World) -> None:
    """And the same rank of the same launch in a new process does not: two lives must not mix."""
    world.greet(launch_id="L", session="r0", world=2)
    world.tick(hello(launch_id="L", session="r1", rank=1, world=2), peer=b"q")
    assert world.view().run.attempt == 1  # type: ignore[attr-defined]
    assert world.view().sessions == 2  # type: ignore[attr-defined]
    world.tick(hello(launch_id="L", session="r1b", rank=1, world=2), peer=b"r")
    assert world.view().run.attempt == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("restarted", [False, True])
def test_session_that_left_and_comes_back_goes_on_where_it_was(world: World, restarted: bool) -> None:
    """Its last sequence number is read from the store: a trainer that was away for a night loses and repeats nothing."""
    world.greet()
    world.tick(world.rows.samples(3), m.Bye(2, "closed"))
    if restarted:
        world.restart()
    world.socket.sent.clear()
    world.greet()
    assert [(w.attempt, w.last_seq) for w in world.socket.of(m.Welcome)] == [(1, 2)]  # type: ignore[attr-defined]


def test_rank_that_lived_in_the_attempt_is_another_life_after_a_restart_too(world: World) -> None:
    """Who has lived is read from the streams."""
    world.greet(launch_id="L", session="r0")
    world.restart()
    world.greet(launch_id="L", session="r0b")
    assert world.view().run.attempt == 2  # type: ignore[attr-defined]


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


def test_rules_budget_survives_a_restart(world: World) -> None:
    """Otherwise every restart of the daemon would buy a run more DEBUG."""
    world.greet()
    world.tick(world.rows.samples(30), world.rows.samples(1, changed=BROKEN))
    (escalation,) = world.reader.escalations("ant-ppo")
    world.tick(m.Result(31, escalation.id, "applied", 32), m.Result(32, escalation.id, "ended", 37, "done"))
    world.restart()
    world.greet()
    kl = {"policy.kl.k3": (1024.0, 3.0, 0.1)}
    world.rows.seq = 33
    world.tick(world.rows.samples(21), world.rows.samples(1, changed=kl))
    found = world.reader.anomalies(AnomalyFilter(run="ant-ppo"))
    assert {a.kind for a in found} | {f.kind for a in found for f in a.attached} >= {"nonfinite", "kl_extreme"}
    assert [e.id for e in world.reader.escalations("ant-ppo")] == [escalation.id]


@pytest.mark.parametrize("failing", ["derive", "detect"])
def test_row_that_we_fail_on_costs_its_run_only_that(world: World, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """A bug of ours in one run: the others are detected on, the record says what is missing, the daemon lives."""
    world.greet()
    world.tick(hello("other", "s9"), peer=b"q")
    world.tick(m.SchemaMessage(FULL.columns), peer=b"q")
    other = RowMaker()

    def fail(*_: object) -> None:
        raise KeyError("bug")

    owner = Deriver if failing == "derive" else Engine
    with monkeypatch.context() as patch:
        patch.setattr(owner, failing.replace("detect", "check"), fail)
        world.tick(world.rows.samples(3))
    assert world.socket.of(m.Ack) == [m.Ack(2)]
    world.tick(world.rows.samples(2, changed=BROKEN))
    world.tick(other.samples(1, changed=BROKEN), peer=b"q")
    view, losses = world.view(), world.reader.losses("ant-ppo")
    assert [a.run for a in world.reader.anomalies(AnomalyFilter(run="other"))] == ["other"]
    if failing == "derive":
        assert [(loss.first_seq, loss.last_seq, loss.reason) for loss in losses] == [(0, 2, "the daemon failed on them")]
        assert (view.rows, view.lost) == (2, 3)  # type: ignore[attr-defined]
    else:
        assert (view.rows, losses) == (5, [])  # type: ignore[attr-defined]
        assert {(d.state, "failed on update 2" in d.reason) for d in view.detectors} == {("blind", True)}  # type: ignore[attr-defined]


def test_pipeline_failing_on_rows_of_many_runs_together_tries_each_by_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of all runs are derived at once: what one of them breaks, the others do not lose."""
    world.greet()
    world.tick(hello("other", "s9"), peer=b"q")
    world.tick(m.SchemaMessage(FULL.columns), peer=b"q")
    together: list[int] = []

    def fail(_: object, blocks: list[object]) -> None:
        together.append(len(blocks))
        raise KeyError("bug")

    monkeypatch.setattr(Deriver, "_derive_joined", fail)
    world.pipeline.tick([(b"p", encode(world.rows.samples(2))), (b"q", encode(RowMaker().samples(3)))])
    assert together == [2]
    assert [world.view(run).rows for run in ("ant-ppo", "other")] == [2, 3]  # type: ignore[attr-defined]
    assert world.reader.losses("ant-ppo") == world.reader.losses("other") == []


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


def test_anomalies_under_other_rules_are_closed_at_the_start(world: World) -> None:
    """Their detector is judged anew; the old verdict must not stay for ever."""
    world.greet()
    world.tick(world.rows.samples(1, changed=BROKEN))
    world.profile = load_profile("classic")
    world.restart()
    (anomaly,) = world.reader.anomalies(AnomalyFilter(run="ant-ppo"))
    assert (anomaly.state, anomaly.sentence.endswith("Closed: the rules changed.")) == ("resolved", True)
    assert world.view().open_anomalies == ()  # type: ignore[attr-defined]


def test_revision_survives_a_restart(world: World) -> None:
    """Were it to fall back, a connected agent would ignore what is wanted until its next WELCOME."""
    world.greet()
    world.ask(_want())
    before = world.view().run.revision  # type: ignore[attr-defined]
    assert before > 0
    world.restart()
    assert world.view().run.revision == before  # type: ignore[attr-defined]
    world.greet()
    world.ask(_want("e2"))
    level = world.socket.of(m.LevelMessage)[-1]
    assert isinstance(level, m.LevelMessage)
    assert level.desired.revision == before + 1


def test_checkpoint_bounds_what_a_restart_replays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one in a format that is not read makes it replay everything, to the same picture."""
    world.greet()
    for _ in range(5):
        world.tick(world.rows.samples(100))
    shown, replayed = world.view().detectors, []  # type: ignore[attr-defined]
    check = Engine.check

    def count(self: Engine, state: object, block: SignalBlock, total: int | None) -> object:
        replayed.append(len(block))
        return check(self, state, block, total)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "check", count)
    world.restart()
    assert (0 < sum(replayed) < 300, world.view().detectors) == (True, shown)  # type: ignore[attr-defined]
    replayed.clear()
    monkeypatch.setattr("gradwatch_daemon.detect.state.FORMAT", 99)
    world.restart()
    assert (sum(replayed), world.view().detectors) == (500, shown)  # type: ignore[attr-defined]


def test_detection_of_an_ended_run_is_put_away(world: World) -> None:
    """A daemon that lives for months sees thousands of runs."""
    world.greet()
    world.tick(world.rows.samples(5))
    assert len(world.pipeline._detection._streams) == 1
    world.tick(m.Bye(4, "closed"))
    assert len(world.pipeline._detection._streams) == 0
    assert world.view().detectors  # type: ignore[attr-defined]


def test_restart_shows_what_was_shown_before(world: World) -> None:
    """Detectors, open anomalies, escalations and counts come back; nobody is live until he greets."""
    world.greet()
    world.tick(world.rows.samples(150), world.rows.samples(150))
    world.tick(world.rows.samples(2, changed=BROKEN))
    before = world.view()
    world.restart()
    after = world.view()
    assert after.detectors == before.detectors  # type: ignore[attr-defined]
    # By their text: an anomaly whose value is NaN does not equal itself.
    assert repr(after.open_anomalies) == repr(before.open_anomalies)  # type: ignore[attr-defined]
    assert (after.rows, after.update_last) == (before.rows, before.update_last)  # type: ignore[attr-defined]
    assert (after.live, after.run.state) == (False, "lost")  # type: ignore[attr-defined]
    world.greet()
    world.tick(world.rows.samples(1, changed=BROKEN))
    (anomaly,) = world.reader.anomalies(AnomalyFilter(run="ant-ppo"))
    assert (anomaly.update_onset, anomaly.update_last, anomaly.count) == (300, 302, 3)


def _play(home: Path, sizes: list[int]) -> str:
    """40 rows, three of them broken, in ticks of these sizes with a restart of the daemon after each."""
    home.mkdir()
    world = World(home)
    for size in sizes:
        world.greet()
        broken = [10 <= world.rows.update + i < 12 or world.rows.update + i == 30 for i in range(size)]
        world.tick(*[world.rows.samples(1, changed=BROKEN if bad else None) for bad in broken])
        world.restart()
    anomalies = world.reader.anomalies(AnomalyFilter(run="ant-ppo"))
    shown = repr((anomalies, world.view().detectors))  # type: ignore[attr-defined]
    world.close()
    return shown


@pytest.mark.parametrize("sizes", [[1] * 40, [40], [7, 1, 13, 19], [11, 1, 28]], ids=["singly", "whole", "mixed", "inside"])
def test_any_split_into_ticks_with_restarts_between_stores_the_same(tmp_path: Path, sizes: list[int]) -> None:
    """Anomalies and detector states are a function of the rows, not of how they came."""
    shown = _play(tmp_path / "a", sizes)
    assert "update_onset=10" in shown
    assert shown == _play(tmp_path / "b", [20, 20])


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


def test_loss_is_detected_where_it_happened_however_ticks_fall(tmp_path: Path) -> None:
    """Rows, a loss and more rows in one tick or in three: the same anomaly, the same mark."""
    shown = []
    for name, together in (("a", True), ("b", False)):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name)
        world.greet()
        messages = [world.rows.samples(30), m.Loss(30, 35, "outbox full")]
        world.rows.seq = 36
        messages.append(world.rows.samples(5))
        if together:
            world.tick(*messages)
        else:
            for message in messages:
                world.tick(message)
        world.restart()
        (anomaly,) = world.reader.anomalies(AnomalyFilter(run="ant-ppo", kind="telemetry_gap"))
        (mark,) = [event for event in world.reader.events("ant-ppo", 10) if event.kind == "gap"]
        assert (anomaly.update_onset, anomaly.value, mark.update, mark.detail["rows"]) == (29, 6 / 200, 29, 30)
        shown.append(repr((anomaly, mark, world.view().detectors)))  # type: ignore[attr-defined]
        world.close()
    assert shown[0] == shown[1]


def test_bye_with_records_unsent_is_a_gap_of_its_own(world: World) -> None:
    """What was not sent before the end is told like any other loss."""
    world.greet()
    world.tick(world.rows.samples(30), m.Bye(40, "closed"))
    assert _anomalies(world, "telemetry_gap") == [("not sent before the end", "warning", "firing")]


RANKS = {"world": 2, "launch_id": "both"}


def _greet_ranks(world: World) -> list[RowMaker]:
    """Two ranks of one launch, on peers b"p" and b"q"."""
    makers = [RowMaker(), RowMaker()]
    for rank, peer in enumerate((b"p", b"q")):
        world.tick(hello(session=f"s{rank}", rank=rank, **RANKS), peer=peer)
        world.tick(m.SchemaMessage(FULL.columns), peer=peer)
    return makers


def test_ranks_are_stored_apart_and_judged_together(world: World) -> None:
    """A NaN on one rank is one anomaly of the run; the mean is that of both; each rank's own rows stay readable."""
    first, second = _greet_ranks(world)
    world.tick(first.samples(3), peer=b"p")
    assert world.store.row_counts()[Stream("ant-ppo", 1, ALL_RANKS)] == (0, -1)
    world.tick(second.samples(2, changed={"policy.kl.k3": (3072.0, 0.02, 0.1)}), second.samples(1, changed=BROKEN), peer=b"q")

    counts = world.store.row_counts()
    assert {stream.rank: rows for stream, (rows, _) in counts.items()} == {0: 3, 1: 3, ALL_RANKS: 3}
    assert world.view().rows == 6
    kl = world.reader.series(Stream("ant-ppo", 1, ALL_RANKS), SignalKey("policy.kl.k3"), None, None, 10)
    assert kl.last[0] == np.float32((1024 * 0.004 + 3072 * 0.02) / 4096)
    (anomaly,) = world.view().open_anomalies
    assert (anomaly.kind, anomaly.rank, anomaly.update_onset) == ("nonfinite", ALL_RANKS, 2)


def test_rows_of_ranks_that_wait_survive_a_restart_and_are_combined_after_it(world: World) -> None:
    """They were acked: the trainer does not send them again."""
    first, second = _greet_ranks(world)
    world.tick(first.samples(2), peer=b"p")
    assert world.socket.of(m.Ack) == [m.Ack(1)]
    world.restart()
    world.tick(hello(session="s1", rank=1, **RANKS), peer=b"q")
    world.tick(m.SchemaMessage(FULL.columns), second.samples(2), peer=b"q")

    assert world.store.row_counts()[Stream("ant-ppo", 1, ALL_RANKS)] == (2, 1)
    assert world.reader.series(Stream("ant-ppo", 1, ALL_RANKS), SignalKey("opt.steps"), None, None, 10).rows == 2


def test_last_updates_are_combined_when_the_ranks_say_goodbye(world: World) -> None:
    """A rank that ended is not waited for; nothing of a finished run waits for ever."""
    first, second = _greet_ranks(world)
    world.tick(second.samples(3), peer=b"q")
    world.tick(first.samples(5), peer=b"p")
    assert world.store.row_counts()[Stream("ant-ppo", 1, ALL_RANKS)] == (3, 2)
    world.tick(m.Bye(2, "closed"), peer=b"q")
    assert world.store.row_counts()[Stream("ant-ppo", 1, ALL_RANKS)] == (5, 4)
    world.tick(m.Bye(4, "closed"), peer=b"p")
    told = [(e.kind, e.stream.rank, e.update, e.text) for e in world.reader.events("ant-ppo", 10) if e.kind == "ranks"]
    assert told == [("ranks", ALL_RANKS, 3, "rank 1 is missing")]
    world.restart()
    assert world.store.waiting() == []
    assert world.view().run.state == "finished"
