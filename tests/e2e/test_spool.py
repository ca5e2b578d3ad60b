"""What no daemon took reaches one later: from a trainer that ended, that crashed, that was killed, by the next or by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from harness import spool_trainer
from harness.daemon_process import DaemonProcess, wait_for

if TYPE_CHECKING:
    from pathlib import Path

RUN = "spooled"


def _train(daemon: DaemonProcess, updates: int, how: str) -> int:
    command = [sys.executable, spool_trainer.__file__, RUN, str(updates), how]
    environment = {**daemon.environment, "GRADWATCH_SPOOL_DIR": str(daemon.home / "spool"), "GRADWATCH_STRICT": "1"}
    return subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False).returncode


def _updates(daemon: DaemonProcess, attempt: int) -> list[Any]:
    answer = daemon.get(f"/api/v1/runs/{RUN}/series?signal=user&subject=x&points=10000&attempt={attempt}")
    assert answer["update"] == answer["last"]
    return list(answer["update"])


@pytest.mark.promise("spooled", "spool-next")
def test_next_attempt_brings_what_two_earlier_ones_could_not_send(tmp_path: Path) -> None:
    """One was killed, one crashed; both come before the third, each as its own attempt, and the disk is empty again."""
    daemon = DaemonProcess(tmp_path)
    assert _train(daemon, 400, "kill") == -9
    assert _train(daemon, 300, "raise") == 1
    with daemon:
        assert _train(daemon, 50, "close") == 0
        run = wait_for(lambda: (r := daemon.run(RUN)) and r["state"] == "finished" and r, "the last attempt to finish")
        assert run["attempt"] == 3
        assert [_updates(daemon, attempt) for attempt in (1, 2, 3)] == [list(range(n)) for n in (400, 300, 50)]
        assert (run["coverage"]["received"], run["coverage"]["lost"]) == (750, 0)
        events = daemon.get(f"/api/v1/runs/{RUN}/events")["items"]
        assert [(event["attempt"], event["kind"]) for event in events if event["kind"] == "exception"] == [(2, "exception")]
    assert not list((tmp_path / "spool").rglob("*.seg"))


@pytest.mark.promise("spool-idle")
def test_trainer_that_ends_with_a_healthy_daemon_leaves_no_spool(tmp_path: Path) -> None:
    """No file is written while acks come."""
    with DaemonProcess(tmp_path) as daemon:
        assert _train(daemon, 100, "close") == 0
        wait_for(lambda: (r := daemon.run(RUN)) and r["state"] == "finished", "the run to finish")
    assert not (tmp_path / "spool").exists()
