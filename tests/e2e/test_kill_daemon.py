"""kill -9 of the daemon while a run goes on: nothing acked is lost, nothing is there twice, the trainer does not notice."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
from typing import TYPE_CHECKING

import pytest

from harness import small_agent
from harness.daemon_process import DaemonProcess, python, wait_for

if TYPE_CHECKING:
    from pathlib import Path

UPDATES = 500
"""Two seconds and more after the last kill, as a daemon on a busy machine needs to be there again before `close` gives up."""
SMALL_AGENT = small_agent.__file__


def _truth(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _series(daemon: DaemonProcess, run: str) -> tuple[list[int], list[float]]:
    answer = daemon.get(f"/api/v1/runs/{run}/series?signal=user&subject=noise&points=10000")
    return answer["update"], answer["last"]


@pytest.mark.parametrize("seed", [1])
@pytest.mark.promise("committed")
def test_daemon_killed_three_times_keeps_every_update_exactly_once(tmp_path: Path, seed: int) -> None:
    """The store equals the trainer's own record; the trainer exits 0."""
    truth_path, chance = tmp_path / "truth.jsonl", random.Random(seed)
    with DaemonProcess(tmp_path) as daemon:
        trainer = python(daemon, SMALL_AGENT, "kill-me", str(UPDATES), "10", str(truth_path))
        for third in range(3):
            target = chance.randint(100 * third + 10, 100 * third + 80)
            wait_for(lambda target=target: len(_truth(truth_path)) >= target, f"update {target}")
            daemon.kill()
            daemon.start()
        assert trainer.wait(60) == 0
        wait_for(lambda: daemon.run("kill-me")["state"] == "finished", "the run to finish")
        truth = _truth(truth_path)
        updates, values = _series(daemon, "kill-me")
        assert updates == [line["update"] for line in truth] == list(range(UPDATES))
        assert values == [line["noise"] for line in truth]
        assert daemon.run("kill-me")["coverage"] == {"received": UPDATES, "lost": 0, "share": 1.0, "thinned": 0}
        daemon.stop()
    connection = sqlite3.connect(f"file:{tmp_path}/data/gradwatch.db?mode=ro", uri=True)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_stopped_trainer_keeps_an_escalation_delivered_until_it_continues(tmp_path: Path) -> None:
    """Only the agent's own word makes it applied; it names the first update at the level, and the one after the last."""
    truth_path = tmp_path / "truth.jsonl"
    with DaemonProcess(tmp_path) as daemon:
        trainer = python(daemon, SMALL_AGENT, "pause-me", "400", "10", str(truth_path))
        wait_for(lambda: ((daemon.run("pause-me") or {}).get("update_last") or 0) > 10, "a few updates")
        trainer.send_signal(signal.SIGSTOP)
        path = "/api/v1/runs/pause-me/escalations"
        asked = daemon.post(path, {"level": "debug", "updates": 7, "reason": "look", "id": "mine"})
        assert asked["state"] in ("requested", "delivered")
        waited = daemon.get(f"{path}/mine?wait=1.5")
        assert (waited["state"], waited["update_applied"]) == ("delivered", None)
        trainer.send_signal(signal.SIGCONT)
        ended = wait_for(lambda: (e := daemon.get(f"{path}/mine"))["state"] == "ended" and e, "the escalation to end")
        assert ended["update_ended"] - ended["update_applied"] == 7
        assert ended["ended_why"] == "done"
        again = daemon.post(path, {"level": "debug", "updates": 7, "reason": "look", "id": "mine"})
        assert again["update_applied"] == ended["update_applied"]
        trainer.terminate()
        trainer.wait(10)
        at_debug = [line["update"] for line in _truth(truth_path) if line["level"] == 3]
        assert at_debug == list(range(ended["update_applied"], ended["update_ended"]))
