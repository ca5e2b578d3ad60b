"""Acknowledge and silence through the pipeline, its store and a restart: shown and kept, and never a part of detection."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import Stream
from gradwatch_daemon.records.attention import Acknowledge, Attention, CreateSilence, EndSilence, Silence
from gradwatch_daemon.store.protocol import AnomalyFilter
from harness.rows import T0_NS
from harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gradwatch_daemon.records import Anomaly

NAN = float("nan")
BROKEN = {"loss.total": (16.0, NAN, NAN), "loss.total.nonfinite": (16.0,), "loss.total.nonfinite_mb": (0.0,)}
HOUR = 3600 * 1_000_000_000
SILENCE = CreateSilence("s1", "ant-ppo", "nonfinite", None, "known", "owner", HOUR)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A run of 30 healthy updates."""
    world = World(tmp_path)
    world.greet()
    world.tick(world.rows.samples(30))
    yield world
    world.close()


def fire(world: World) -> Anomaly:
    """One update of NaN; the anomaly of it."""
    world.tick(world.rows.samples(1, changed=BROKEN))
    return newest(world)


def newest(world: World) -> Anomaly:
    """The newest anomaly of the store."""
    return world.reader.anomalies(AnomalyFilter())[0]


def attention(world: World, id_: str) -> Attention:
    """What is committed about an anomaly."""
    return world.reader.attention([id_]).get(id_, Attention(id_))


def told(world: World) -> list[tuple[str, str]]:
    """What was published of anomalies: state and silence."""
    return [
        (cast("Anomaly", p.payload).state, p.attention.silence if p.attention else "?")
        for p in world.published
        if p.topic == "anomaly"
    ]


def test_unknown_anomaly_and_silence_are_refused(world: World) -> None:
    """By code, and nothing is written."""
    with pytest.raises(GradwatchError, match="No anomaly has this id"):
        world.ask(Acknowledge("nope", "owner", True, None))
    with pytest.raises(GradwatchError, match="No silence has this id"):
        world.ask(EndSilence("nope"))
    assert (world.reader.silences(), attention(world, "nope")) == ([], Attention("nope"))


def test_acknowledgement_is_committed_told_and_survives_restart_and_reopening(world: World) -> None:
    """Also while it goes on, after it resolved, and when it opens again under its old id."""
    anomaly = fire(world)
    done = world.ask(Acknowledge(anomaly.id, "ann", True, "seed 3"))
    assert attention(world, anomaly.id) == done
    assert world.published[-1].attention == done
    world.restart()
    world.greet()
    world.tick(world.rows.samples(3, changed=BROKEN))
    assert next(p.attention for p in reversed(world.published) if p.topic == "anomaly") == done
    world.tick(world.rows.samples(100))
    assert newest(world).state == "resolved"
    world.ask(Acknowledge(anomaly.id, "bob", None, "late note"))
    noted = attention(world, anomaly.id).acknowledged
    assert noted is not None
    assert (noted.by, noted.note) == ("ann", "late note")


def test_silence_mutes_what_is_open_and_what_fires_later_and_counts_both(world: World) -> None:
    """The record keeps them all; the count is in the store and in what is told."""
    first = fire(world)
    world.ask(SILENCE)
    assert attention(world, first.id).silence == "s1"
    assert told(world)[-1] == ("firing", "s1")
    world.tick(world.rows.samples(100))
    assert told(world)[-1] == ("resolved", "s1")
    second = fire(world)
    assert second.id != first.id
    assert (attention(world, first.id).silence, attention(world, second.id).silence) == ("s1", "s1")
    assert [silence.muted for silence in world.reader.silences()] == [2]
    assert cast("Silence", [p for p in world.published if p.topic == "silence"][-1].payload).muted == 2


def test_end_of_a_silence_frees_what_still_fires(world: World) -> None:
    """Ended by hand: told again without it; ending it twice gives the same record."""
    anomaly = fire(world)
    world.ask(SILENCE)
    ended = world.ask(EndSilence("s1"))
    assert isinstance(ended, Silence)
    assert ended.state(ended.created_ns) == "ended"
    assert attention(world, anomaly.id).silence == ""
    assert told(world)[-1] == ("firing", "")
    assert world.ask(EndSilence("s1")) == ended


@pytest.mark.parametrize("while_down", [False, True], ids=["served", "restarted"])
def test_silence_expires_by_the_clock_alone(world: World, while_down: bool) -> None:
    """No update and no request need come; also when its time was over while nobody served."""
    anomaly = fire(world)
    world.ask(SILENCE)
    world.now_s += 3599.0
    if while_down:
        world.restart()
    world.tick()
    assert attention(world, anomaly.id).silence == "s1"
    world.now_s += 1.0
    if while_down:
        world.restart()
    world.tick()
    assert attention(world, anomaly.id).silence == ""
    assert world.reader.silences()[0].muted == 1
    assert world.reader.silences()[0].state(T0_NS + int(world.now_s * 1e9)) == "expired"
    assert told(world)[-1] == ("firing", "")


def test_same_silence_again_is_the_same_and_other_content_is_refused(world: World) -> None:
    """Also over a restart, and after it ended."""
    made = world.ask(SILENCE)
    assert world.ask(SILENCE) == made
    world.restart()
    assert world.ask(SILENCE) == made
    with pytest.raises(GradwatchError, match="used before"):
        world.ask(replace(SILENCE, reason="other"))
    ended = world.ask(EndSilence("s1"))
    assert world.ask(SILENCE) == ended


def test_detection_is_bit_for_bit_the_same_with_people_at_work(tmp_path: Path) -> None:
    """Anomalies, marks and checkpoints of a run that was silenced and acknowledged are those of one that was not."""
    found = []
    for name in ("alone", "attended"):
        world = World(tmp_path / name)
        world.greet()
        world.tick(world.rows.samples(30))
        if name == "attended":
            world.ask(replace(SILENCE, kind=None))
        anomaly = fire(world)
        if name == "attended":
            world.ask(Acknowledge(anomaly.id, "ann", True, "x"))
            world.ask(EndSilence("s1"))
        world.tick(world.rows.samples(120, changed={"policy.kl.k3": (1024.0, 0.9, 0.02)}))
        world.tick(world.rows.samples(200))
        stream = Stream("ant-ppo", 1, 0)
        checkpoint = world.store.checkpoint(stream)
        assert checkpoint is not None
        found.append((world.reader.anomalies(AnomalyFilter()), world.store.marks(stream), checkpoint.state))
        world.close()
    assert repr(found[0]) == repr(found[1])
