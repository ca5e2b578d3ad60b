"""The overhead budget from a trainer to the API and the command line, with a real daemon and real clocks."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from harness.daemon_process import DaemonProcess, wait_for

if TYPE_CHECKING:
    from pathlib import Path

TRAINER = """
import torch
from gradwatch_agent import watch

mon = watch(run="hurried", overhead=1e-5)  # so little that whatever may rest is too slow
for _ in range(30):
    given = torch.randn(64)
    mon.rollout(rewards=given, values=given, returns=given + 1, advantages=given)
    mon.ppo(new_logp=given, old_logp=given, advantages=given, clip=0.2)
    mon.step()
mon.close()
"""


def test_thinned_collectors_are_named_by_api_and_status(tmp_path: Path) -> None:
    """From the tenth update on at the latest; the share it takes is a signal, and what rested says so."""
    with DaemonProcess(tmp_path) as daemon:
        subprocess.run([sys.executable, "-c", TRAINER], env=daemon.environment, check=True, timeout=60)
        found = wait_for(lambda: (daemon.run("hurried") or {}).get("overhead"), "the word of the agent")
        assert found["thinned"]["ranges"] > 1
        assert found["share_before"] > found["budget"] == 1e-5
        events = [event for event in daemon.get("/api/v1/runs/hurried/events")["items"] if event["kind"] == "overhead"]
        assert min(event["update"] for event in events) < 10
        series = daemon.get("/api/v1/runs/hurried/series?signal=value.envelope")
        assert "thinned" in series["status"]
        assert set(daemon.get("/api/v1/runs/hurried/series?signal=adv.used.mean")["status"]) == {"measured"}
        assert 0 < daemon.get("/api/v1/runs/hurried/series?signal=sys.agent_share")["last"][-1] <= 1
        command = [sys.executable, "-m", "gradwatch_daemon.cli.main", "status", "hurried"]
        said = subprocess.run(command, env=daemon.environment, capture_output=True, text=True, check=True, timeout=60).stdout
        assert f"overhead   {found['sentence']}" in said
