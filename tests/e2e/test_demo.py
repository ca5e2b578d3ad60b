"""The demo as a user runs it: a real trainer, a real daemon, each fault found, nothing found where nothing is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from gradwatch_agent.demo.faults import FAULTS


def _demo(fault: str, seed: int, *flags: str) -> tuple[int, dict[str, Any]]:
    """Exit code and result; the demo itself gives up before this does."""
    command = [
        sys.executable,
        "-m",
        "gradwatch_daemon.cli.main",
        "demo",
        "--fault",
        fault,
        "--seed",
        str(seed),
        "--json",
        *flags,
    ]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GRADWATCH_")}
    done = subprocess.run(command, env=kept, capture_output=True, timeout=660, check=False)
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout)


def _check(fault: str, kind: str, seed: int) -> dict[str, Any]:
    code, result = _demo(fault, seed)
    assert code == 0, result
    root = next(a for a in result["anomalies"] if a["kind"] == kind)
    assert 0 <= root["update_onset"] - result["update_injected"] <= 3
    assert root["severity"] == "critical"
    assert all(a["update_onset"] >= result["update_injected"] or a["severity"] == "info" for a in result["anomalies"])
    operator = next(e for e in result["escalations"] if e["origin"] == "operator")
    assert (operator["state"], operator["update_ended"] - operator["update_applied"]) == ("ended", 10)
    assert result["coverage"]["lost"] == 0
    assert result["visible_ms"] is not None
    return result


def _check_healthy(seed: int, *flags: str) -> None:
    code, result = _demo("none", seed, *flags)
    assert (code, result["found"], result["as_expected"]) == (0, None, True), result
    assert [a for a in result["anomalies"] if a["severity"] != "info"] == []
    assert (result["updates"], result["state"]) == (150, "finished")


@pytest.mark.parametrize("seed", [0])
def test_demo_with_a_huge_learning_rate_finds_the_ratio_explosion(seed: int) -> None:
    """The anomaly raises the level by itself, for five updates."""
    result = _check("ratio", "ratio_explosion", seed)
    root = next(a for a in result["anomalies"] if a["kind"] == "ratio_explosion")
    raised = next(e for e in result["escalations"] if e["origin"] == f"anomaly:{root['id']}")
    assert (raised["level"], raised["state"], raised["update_ended"] - raised["update_applied"]) == ("debug", "ended", 5)
    assert raised["update_applied"] > root["update_fired"]


@pytest.mark.parametrize("seed", [0])
def test_demo_with_a_nan_reward_finds_it_although_the_run_dies(seed: int) -> None:
    """The trainer is unguarded: it crashes in the same update, and the partial row still arrives."""
    result = _check("nan", "nonfinite", seed)
    root = next(a for a in result["anomalies"] if a["kind"] == "nonfinite")
    assert root["root"]["stage"] == "reward"
    assert result["state"] == "crashed"


@pytest.mark.parametrize("seed", [0])
def test_demo_with_a_healthy_run_shows_nothing_above_info(seed: int) -> None:
    """150 updates of PPO on CartPole."""
    _check_healthy(seed)


def _check_found(name: str, seed: int, *flags: str) -> None:
    """Kind, onset and severity as the table of faults has them, and a raised level that names this very anomaly."""
    code, result = _demo(name, seed, *flags)
    assert (code, result["found"], result["as_expected"]) == (0, True, True), result
    origins = {escalation["origin"] for escalation in result["escalations"]}
    assert [a for a in result["anomalies"] if FAULTS[name].raised(a) and f"anomaly:{a['id']}" in origins], result


@pytest.mark.parametrize("fault", ["mismatch", "skipped"])
def test_demo_with_another_fault_finds_it(fault: str) -> None:
    """Two of the faults that need calls and collectors the ones above do not; the campaign below has them all, and longer."""
    _check_found(fault, 0, "--updates", "100")


@pytest.mark.campaign
@pytest.mark.timeout(700)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_demo_over_seeds_finds_what_was_planted(fault: str, seed: int) -> None:
    """Every fault and the healthy run, five seeds each: no detector is tuned to one."""
    if FAULTS[fault].expected:
        _check_found(fault, seed)
    else:
        _check_healthy(seed)


@pytest.mark.campaign
@pytest.mark.timeout(700)
@pytest.mark.parametrize("seed", range(5))
def test_demo_with_the_recurrent_trainer_and_nothing_planted_shows_nothing_above_info(seed: int) -> None:
    """150 updates of PPO with an LSTM."""
    _check_healthy(seed, "--trainer", "ppo_recall_lstm")
