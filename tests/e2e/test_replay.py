"""A replay beside a running daemon: the command line reads its directory, POST /replay works while rows come in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness import small_agent
from harness.daemon_process import DaemonProcess, python, wait_for

if TYPE_CHECKING:
    import pytest


def _cli(daemon: DaemonProcess, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gradwatch_daemon.cli.main", *argv]
    return subprocess.run(
        command, env=daemon.environment, capture_output=True, text=True, timeout=60, check=False, cwd=daemon.home
    )


def test_replay_beside_a_running_daemon_finds_what_it_found(tmp_path: Path) -> None:
    """The run is live, so its rows grow; what is compared is of one moment."""
    with DaemonProcess(tmp_path) as daemon:
        trainer = python(daemon, small_agent.__file__, "ant-ppo", "3000", "5", str(tmp_path / "truth.jsonl"))
        wait_for(lambda: ((daemon.run("ant-ppo") or {}).get("update_last") or 0) > 60, "some updates")
        done = _cli(daemon, "replay", "ant-ppo", "--diff", "live", "--json")
        # Most detectors are blind here; on a busy machine the trainer may stall on top of it.
        assert done.returncode in (10, 11), done.stderr
        told = json.loads(done.stdout)
        assert told["rows"] > 60
        assert told["verdict"] in ("inconclusive", "findings")
        asked = daemon.post("/api/v1/replay", {"run": "ant-ppo", "diff": "live"})
        assert asked["rows"] >= told["rows"]
        for found in (told, asked):
            assert [found["difference"][word] for word in ("new", "lost", "moved", "changed")] == [[], [], [], []]
        standings = daemon.get("/api/v1/runs/ant-ppo")["standings"]
        assert {one["kind"] for one in asked["streams"][0]["standings"]} == {one["kind"] for one in standings}
        trainer.kill()
        trainer.wait(30)


def test_import_beside_a_running_daemon_goes_through_it_and_is_shown_by_http(tmp_path: Path) -> None:
    """Over its ingest, as a session of rows that were recorded earlier: no second writer, no stall, no escalation."""
    log = tmp_path / "old-run" / "progress.csv"
    log.parent.mkdir()
    values = ["nan" if step == 150 else f"{step / 7}" for step in range(300)]
    log.write_text("step,a,loss\n" + "".join(f"{step},1,{value}\n" for step, value in enumerate(values)))
    with DaemonProcess(tmp_path) as daemon:
        done = _cli(daemon, "import", str(log), "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["run"], told["rows_new"], told["attempts"]) == ("old-run", 300, [1])
        wait_for(lambda: daemon.run("old-run")["state"] == "imported", "the goodbye")
        run = daemon.get("/api/v1/runs/old-run")
        assert (run["coverage"]["received"], run["update_last"], run["live"]) == (300, 299, False)
        assert run["sentence"].startswith("Imported, update 299.")
        series = daemon.get("/api/v1/runs/old-run/series?signal=user&subject=loss&from=149&to=151")
        assert "NaN" in json.dumps(series)
        assert daemon.get("/api/v1/runs/old-run/escalations")["items"] == []
        listed = _cli(daemon, "runs", "--state", "imported", "--json")
        assert [item["run"] for item in json.loads(listed.stdout)["items"]] == ["old-run"]
        again = json.loads(_cli(daemon, "import", str(log), "--json").stdout)
        assert (again["rows_new"], again["attempts"]) == (0, [1])


def test_detector_of_an_installed_package_is_listed_with_its_origin_and_a_broken_one_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of docs/own-detector.md, on disk as an installer leaves it: in the daemon, and in a replay beside it."""
    page = (Path(__file__).parents[2] / "docs" / "own-detector.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    site = tmp_path / "site"
    (site / "reward_watch-1.0.dist-info").mkdir(parents=True)
    (site / "reward_watch.py").write_text(source)
    (site / "reward_watch-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: reward-watch\nVersion: 1.0\n")
    points = "[gradwatch.detectors]\nreward_rescaled = reward_watch:DETECTOR\nlost = reward_watch:NOTHING\n"
    (site / "reward_watch-1.0.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    log = tmp_path / "old" / "progress.csv"
    log.parent.mkdir()
    log.write_text("step,spread\n" + "".join(f"{step},{20 if step == 60 else 1}\n" for step in range(80)))
    with DaemonProcess(tmp_path) as daemon:
        listed = daemon.get("/api/v1/detectors")
        assert {item["kind"]: item["origin"] for item in listed["items"]}["reward_rescaled"] == "reward-watch 1.0"
        (broken,) = listed["broken"]
        assert (broken["name"], broken["origin"], "NOTHING" in broken["reason"]) == ("lost", "reward-watch 1.0", True)
        assert "detector lost of reward-watch 1.0 is not there" in daemon.log
        shown = _cli(daemon, "detectors", "reward_rescaled")
        assert "origin      reward-watch 1.0" in shown.stdout
        done = _cli(daemon, "import", str(log), "--map", "spread=reward.step.std", "--json")
        told = json.loads(done.stdout)
        assert ("reward_rescaled", 60) in {(item["kind"], item["update_onset"]) for item in told["replay"]["items"]}
        again = daemon.post("/api/v1/replay", {"run": "old", "diff": "live"})
        assert again["rules_hash"] == told["replay"]["rules_hash"]
        assert (again["difference"]["new"], again["difference"]["lost"]) == ([], [])
        assert again["difference"]["same"] >= 1
