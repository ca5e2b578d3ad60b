"""Two gloo ranks: one is slow, then differs, then is not watched. Each is found and named, and both are raised together."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness import odd_rank_trainer
from harness.daemon_process import DaemonProcess, wait_for

if TYPE_CHECKING:
    from pathlib import Path

RUN = "odd"


@pytest.mark.timeout(300)
def test_rank_that_is_slow_differs_or_is_missing_is_found_and_both_are_raised_at_one_update(tmp_path: Path) -> None:
    """The three kinds on the combined rows, events that say which rank, and an escalation that both begin at one update."""
    store = tmp_path / "gloo.store"
    common = {"WORLD_SIZE": "2", "GRADWATCH_LAUNCH_ID": "one", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-W", "ignore", odd_rank_trainer.__file__, RUN, str(store)]
    with DaemonProcess(tmp_path) as daemon:
        environment = {**os.environ, **daemon.environment, **common}
        ranks = [subprocess.Popen(command, env={**environment, "RANK": str(rank)}) for rank in range(2)]
        try:
            wait_for(lambda: ((daemon.run(RUN) or {}).get("update_last") or 0) >= 3, "updates of both ranks", 60)

            def found(kind: str) -> bool:
                items = daemon.get(f"/api/v1/anomalies?run={RUN}&limit=200")["items"]
                return any(item["kind"] == kind and item["rank"] is None and item["severity"] == "warning" for item in items)

            asked = daemon.post(f"/api/v1/runs/{RUN}/escalations", {"level": "debug", "updates": 3, "reason": "look"})
            address = f"/api/v1/runs/{RUN}/escalations/{asked['id']}"
            ended = wait_for(lambda: (now := daemon.get(address))["state"] == "ended" and now, "the escalation", 60)
            assert [one["state"] for one in ended["ranks"]] == ["ended", "ended"]
            assert {one["update"] for one in ended["ranks"]} == {ended["update_ended"]}
            assert ended["update_ended"] - ended["update_applied"] == 3
            wait_for(lambda: found("rank_slow"), "the slow rank", 60)
            wait_for(lambda: found("rank_desync"), "ranks that differ", 60)
            (tmp_path / "gloo.store.quiet").touch()
            wait_for(lambda: found("rank_missing"), "the rank that is missing", 60)
            assert [process.wait(60) for process in ranks] == [0, 0]
            events = daemon.get(f"/api/v1/runs/{RUN}/events?limit=200")["items"]
            told = [event["text"] for event in events if event["kind"] == "ranks"]
        finally:
            for process in ranks:
                process.kill()
    assert any("rank 1 keeps the others waiting: its rollout took " in text for text in told)
    assert any(text.startswith("ranks differ in param.norm") and "which must be equal" in text for text in told)
    assert any(text.startswith("rank 1 is missing") for text in told)
