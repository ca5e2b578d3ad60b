"""A replay beside a running daemon: the command line reads its directory, POST /replay works while rows come in."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from harness import small_agent
from harness.daemon_process import DaemonProcess, python, wait_for

if TYPE_CHECKING:
    from pathlib import Path


def test_replay_beside_a_running_daemon_finds_what_it_found(tmp_path: Path) -> None:
    """The run is live, so its rows grow; what is compared is of one moment."""
    with DaemonProcess(tmp_path) as daemon:
        trainer = python(daemon, small_agent.__file__, "ant-ppo", "3000", "5", str(tmp_path / "truth.jsonl"))
        wait_for(lambda: ((daemon.run("ant-ppo") or {}).get("update_last") or 0) > 60, "some updates")
        command = [sys.executable, "-m", "gradwatch_daemon.cli.main", "replay", "ant-ppo", "--diff", "live", "--json"]
        done = subprocess.run(
            command, env=daemon.environment, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
        )
        assert done.returncode == 11, done.stderr
        told = json.loads(done.stdout)
        assert told["rows"] > 60
        assert told["verdict"] == "inconclusive"
        asked = daemon.post("/api/v1/replay", {"run": "ant-ppo", "diff": "live"})
        assert asked["rows"] >= told["rows"]
        for found in (told, asked):
            assert [found["difference"][word] for word in ("new", "lost", "moved", "changed")] == [[], [], [], []]
        standings = daemon.get("/api/v1/runs/ant-ppo")["standings"]
        assert {one["kind"] for one in asked["streams"][0]["standings"]} == {one["kind"] for one in standings}
        trainer.kill()
        trainer.wait(30)
