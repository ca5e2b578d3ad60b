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


def _changed(daemon: DaemonProcess) -> dict[int, int]:
    """Rank to the first update that it collected at the level MINIMAL."""
    found = {}
    for rank in (0, 1):
        items = daemon.get(f"/api/v1/runs/{RUN}/timeline?rank={rank}")["items"]
        firsts = [one["update"] for one in items if (one["what"], one["kind"]) == ("level", "minimal")]
        found.update({rank: firsts[0]} if firsts else {})
    return found


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
            wait_for(lambda: ((daemon.run(RUN) or {}).get("update_last") or 0) >= 12, "updates that take their time", 60)

            def found(kind: str) -> bool:
                items = daemon.get(f"/api/v1/anomalies?run={RUN}&limit=200")["items"]
                return any(item["kind"] == kind and item["rank"] is None and item["severity"] == "warning" for item in items)

            asked = daemon.post(f"/api/v1/runs/{RUN}/escalations", {"level": "debug", "updates": 3, "reason": "look"})
            address = f"/api/v1/runs/{RUN}/escalations/{asked['id']}"
            ended = wait_for(lambda: (now := daemon.get(address))["state"] == "ended" and now, "the escalation", 60)
            assert [one["state"] for one in ended["ranks"]] == ["ended", "ended"]
            assert {one["update"] for one in ended["ranks"]} == {ended["update_ended"]}
            assert ended["update_ended"] - ended["update_applied"] == 3
            done = daemon.post(f"/api/v1/runs/{RUN}/commands", {"verb": "mark", "args": {}})
            place = f"/api/v1/runs/{RUN}/commands/{done['id']}"
            done = wait_for(lambda: (now := daemon.get(place))["state"] == "ended" and now, "the command", 60)
            assert [(one["rank"], one["state"]) for one in done["ranks"]] == [(0, "ended"), (1, "ended")]
            assert {one["reason"] for one in done["ranks"]} == {f"marked before update {done['update_applied']}"}
            daemon.patch(f"/api/v1/runs/{RUN}", {"level": {"base": "minimal"}})
            wait_for(lambda: len(set(_changed(daemon).values())) == 1 and len(_changed(daemon)) == 2, "the base on both", 60)
            daemon.patch(f"/api/v1/runs/{RUN}", {"level": {"base": "normal"}})
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
                process.wait(10)
    assert any("rank 1 keeps the others waiting: its rollout took " in text for text in told)
    assert any(text.startswith("ranks differ in param.norm") and "which must be equal" in text for text in told)
    assert any(text.startswith("rank 1 is missing") for text in told)
