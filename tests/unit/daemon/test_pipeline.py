"""The pipeline over a real store and a socket of one list: what is acked, told, raised, lost and restored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_contracts.control import ControlState, Level, Severity
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.derive.derive import Deriver
from gradwatch_daemon.detect.engine import Engine
from gradwatch_daemon.records import ALL_RANKS, Commit, SignalKey, Stream
from gradwatch_daemon.records.commands import CancelEscalation, RequestEscalation
from gradwatch_daemon.store.protocol import AnomalyFilter
from harness.rows import BROKEN, FULL, T0_NS, RowMaker, hello
from harness.world import World

if TYPE_CHECKING:
    from pathlib import Path


NAN = float("nan")


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


def test_ranks_of_one_launch_share_the_attempt(world: World) -> None:
    """And the same rank of the same launch in a new process does not: two lives must not mix."""
    world.greet(launch_id="L", session="r0", world=2)
    world.tick(hello(launch_id="L", session="r1", rank=1, world=2), peer=b"q")
    assert world.view().run.attempt == 1  # type: ignore[attr-defined]
    assert world.view().sessions == 2  # type: ignore[attr-defined]
    world.tick(hello(launch_id="L", session="r1b", rank=1, world=2), peer=b"r")
    assert world.view().run.attempt == 2  # type: ignore[attr-defined]


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
