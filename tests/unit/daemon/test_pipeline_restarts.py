"""A daemon that starts again over its store: what it shows, what it replays, and that no split of a stream changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts import messages as m
from gradwatch_contracts.control import Level
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.detect.engine import Engine
from gradwatch_daemon.records import ALL_RANKS, SignalBlock, SignalKey, Stream
from gradwatch_daemon.records.commands import RequestEscalation
from gradwatch_daemon.store.protocol import AnomalyFilter
from harness.rows import BROKEN, FULL, RowMaker, hello
from harness.world import World

if TYPE_CHECKING:
    from pathlib import Path


NAN = float("nan")


def _want(id_: str = "e1", updates: int = 10, level: Level = Level.DEBUG) -> RequestEscalation:
    return RequestEscalation("ant-ppo", id_, level, updates, "look")


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


RANKS = {"world": 2, "launch_id": "both"}


def _greet_ranks(world: World) -> list[RowMaker]:
    """Two ranks of one launch, on peers b"p" and b"q"."""
    makers = [RowMaker(), RowMaker()]
    for rank, peer in enumerate((b"p", b"q")):
        world.tick(hello(session=f"s{rank}", rank=rank, **RANKS), peer=peer)
        world.tick(m.SchemaMessage(FULL.columns), peer=peer)
    return makers


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
