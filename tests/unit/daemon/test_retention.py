"""Retention in a daemon: what it thins is told by every answer, and detection goes on as if nothing had gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.pipeline.pipeline import THIN_S
from gradwatch_daemon.records import SignalKey, Stream
from gradwatch_daemon.store.protocol import Keep
from harness.world import World

if TYPE_CHECKING:
    from pathlib import Path

STREAM = Stream("ant-ppo", 1, 0)
HOUR = Keep(age_ns=3600 * 10**9)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A daemon that keeps an hour, and a run of 3,000 updates."""
    made = World(tmp_path, keep=HOUR)
    made.greet()
    for _ in range(30):
        made.tick(made.rows.samples(100))
    return made


def wait(world: World, seconds: float) -> None:
    """Let time pass, and the daemon wake up once for each minute of it."""
    for _ in range(int(seconds / THIN_S)):
        world.now_s += THIN_S
        world.tick()


def test_rows_older_than_the_bound_are_thinned_and_the_run_says_so(world: World) -> None:
    """Not before; once told to the streams; after a restart too; counts of the run stay."""
    wait(world, 3540)
    assert world.view().thinned == 0
    world.published.clear()
    wait(world, 240)
    assert (world.view().thinned, world.view().rows) == (2048, 3000)
    assert [p.payload.thinned for p in world.published if p.topic == "run"] == [2048]
    found = world.reader.series(STREAM, SignalKey("policy.kl.k3"), None, None, 5000)
    assert (found.bucket, found.rows, found.thinned) == (64, 3000, 2048)
    world.restart()
    assert (world.view().thinned, world.view().rows) == (2048, 3000)
    world.close()


def test_restart_after_thinning_goes_on_from_the_checkpoint(world: World) -> None:
    """The same state as a daemon that kept everything, update by update."""
    wait(world, 4000)
    assert world.view().thinned == 2048
    before = world.view().detectors
    world.restart()
    assert world.view().detectors == before
    world.close()


def test_restart_under_other_rules_learns_from_what_is_left(world: World) -> None:
    """There is no checkpoint to take over, and thinned rows cannot teach: it begins behind them, and counts on from there."""
    wait(world, 4000)
    world.profile = load_profile("classic")
    world.restart()
    assert world.view().thinned == 2048
    detection = world.pipeline._detection._of(STREAM)
    assert detection.rows == 3000
    assert detection.update_last == 2999
    world.close()


def test_thinning_that_fails_is_tried_again_and_stops_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: rows are still taken, and a minute later it works."""

    def full(*_: object) -> None:
        raise GradwatchError("data-dir-unusable", where="gradwatch.db", expected="a commit", got="disk full")

    with monkeypatch.context() as failing:
        failing.setattr(world.store, "thin", full)
        wait(world, 4000)
        world.greet()
        world.tick(world.rows.samples(10))
    assert (world.view().thinned, world.view().rows) == (0, 3010)
    wait(world, 120)
    assert world.view().thinned == 2048
    world.close()
