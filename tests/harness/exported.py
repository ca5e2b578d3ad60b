"""Two runs to export, one of them broken."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from gradwatch_contracts import messages as m
from gradwatch_contracts.columns import Status
from gradwatch_daemon.store.recording import RecordingReader
from harness.world import World

if TYPE_CHECKING:
    from pathlib import Path

NAN, INF = float("nan"), float("inf")
BROKEN = {"loss.total": (16.0, NAN, NAN), "loss.total.nonfinite": (16.0,), "loss.total.nonfinite_mb": (0.0,)}


def write_two_runs(path: Path) -> Path:
    """Two runs under `classic`: one of chunks and tails with NaN, an infinity, missing values and an anomaly; one quiet."""
    path.mkdir()
    world = World(path, profile="classic")
    world.greet(run="ant-ppo", updates_total=2000)
    for _ in range(11):
        world.tick(world.rows.samples(100))
    world.store.compact()
    odd = {"loss.total": (16.0, INF, 0.0), "opt.lr": (0.1,)}
    world.tick(world.rows.samples(2, changed=odd, status={"policy.kl.k3": Status.NOT_CALLED}))
    world.tick(m.Loss(world.rows.seq, world.rows.seq + 3, "outbox full"))
    world.rows.seq += 4
    world.tick(world.rows.samples(10, changed=BROKEN))
    world.rows.seq = 0
    world.tick(m.Bye("finished"))
    world.greet(run="quiet", session="s-2", launch_id="l-2")
    world.tick(world.rows.samples(5))
    world.close()
    return path


def anomaly_of(data: Path) -> str:
    """Of the broken run."""
    with closing(RecordingReader(data)) as reader:
        return next(one.id for one in reader.recording("ant-ppo").anomalies if one.kind == "nonfinite")
