"""Runs in which nothing is wrong: three tasks as people train them, a real daemon beside them, and nothing above info."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness.classic_control import TASKS, UPDATES
from harness.daemon_process import DaemonProcess, python, wait_for

TESTS = Path(__file__).parents[1]

NOT_GIVEN = frozenset({"lstm_unhealthy", "recurrent_reset", "representation_collapse", "std_collapse", "std_explosion"})
"""Kinds that these trainers, as most, feed nothing: they have no memory and give no probe."""

DISCRETE = frozenset({"entropy_low", "entropy_collapse", "entropy_explosion"})
"""Kinds that need a number of actions."""


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("task", sorted(TASKS))
def test_healthy_run_shows_nothing_above_info(task: str, seed: int, tmp_path: Path) -> None:
    """150 updates, and the policy has learned: a run that learns nothing would be healthy for no detector."""
    with DaemonProcess(tmp_path) as daemon:
        trainer = python(daemon, "-m", "harness.classic_control", task, str(seed), stdout=subprocess.PIPE, cwd=TESTS)
        said, _ = trainer.communicate(timeout=800)
        assert trainer.returncode == 0
        run = f"{task.lower()}-{seed}"
        wait_for(lambda: daemon.run(run)["state"] == "finished", "the run to end")
        view = daemon.run(run)
        found = daemon.get(f"/api/v1/anomalies?run={run}")["items"]
    assert (view["update_last"], view["coverage"]["lost"]) == (UPDATES - 1, 0)
    returns = [value for value in json.loads(said) if value is not None]
    assert max(returns[-10:]) > TASKS[task].learned
    blind = {standing["kind"] for standing in view["standings"] if standing["state"] == "blind"}
    assert blind <= NOT_GIVEN | (DISCRETE if task == "Pendulum-v1" else frozenset())
    assert [anomaly["sentence"] for anomaly in found if anomaly["severity"] != "info"] == []
