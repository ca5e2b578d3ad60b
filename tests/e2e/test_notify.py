"""A notification from a real trainer's anomaly to a real receiver, over a daemon that is killed while the receiver fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from harness.daemon_process import DaemonProcess, python, wait_for
from harness.receiver import Receiver

if TYPE_CHECKING:
    from pathlib import Path

TRAINER = """
import time
from gradwatch_agent import watch
mon = watch(run="told")
for update in range(40):
    mon.step(x=1.0)
    time.sleep(0.01)
raise ValueError("bad logits")
"""
SECRET = "0123456789abcdef"


def test_delivery_survives_a_receiver_that_fails_and_a_daemon_that_is_killed(tmp_path: Path) -> None:
    """Made with what it is about, tried, tried again by the next daemon, delivered once with its id, and in the log."""
    with Receiver([500] * 3) as receiver:
        (tmp_path / "gradwatch.toml").write_text(
            f'[[notify]]\nname = "ops"\nkind = "webhook"\nurl = "{receiver.url}"\nsecret = "{SECRET}"\n'
        )
        with DaemonProcess(tmp_path) as daemon:
            with python(daemon, "-c", TRAINER) as process:
                process.wait(60)
            wait_for(lambda: len(receiver.received) >= 1, "the first attempt")
            first = only(daemon, "pending")
            daemon.kill()
            daemon.start()
            done = wait_for(lambda: only(daemon, "delivered"), "the delivery")
            tried = daemon.post("/api/v1/notify/test", {"channel": "ops"})["items"]
    assert first is None or first["id"] == done["id"]
    ids = {
        request.headers["webhook-id"] for request in receiver.received if not request.headers["webhook-id"].startswith("test")
    }
    assert ids == {done["id"]}
    told = json.loads(receiver.received[0].body)
    assert (told["kind"], told["run"]) == ("run_down", "told")
    assert "It raised ValueError: bad logits" in told["sentence"]
    assert tried[0]["ok"]


def only(daemon: DaemonProcess, state: str) -> Any:
    """The one delivery of the log in a state, None while there is none."""
    items = daemon.get(f"/api/v1/deliveries?state={state}")["items"]
    assert len(items) <= 1
    return items[0] if items else None
