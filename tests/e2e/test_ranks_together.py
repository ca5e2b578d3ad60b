"""Two DDP ranks over gloo and a real daemon: together they say what one process says of the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from harness import ddp_trainer
from harness.daemon_process import DaemonProcess, wait_for

if TYPE_CHECKING:
    from pathlib import Path

OWN = ("sys.", "user")
"""About the process, not about the batch."""


def _train(daemon: DaemonProcess, home: Path, run: str, world: int) -> None:
    """All ranks of one launch, to their end."""
    common = {"WORLD_SIZE": str(world), "GRADWATCH_LAUNCH_ID": f"launch-{run}", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-W", "ignore", ddp_trainer.__file__, run, str(home / f"{run}.store")]
    ranks = [
        subprocess.Popen(command, env={**os.environ, **daemon.environment, **common, "RANK": str(rank)})
        for rank in range(world)
    ]
    assert [process.wait(100) for process in ranks] == [0] * world
    wait_for(lambda: (daemon.run(run) or {}).get("state") == "finished", f"{run} to finish")


def _series(daemon: DaemonProcess, run: str, rank: int | None = None) -> dict[tuple[str, str], list[Any]]:
    """Every signal of a run by name and subject: its values, or why there is none."""
    of_rank = "" if rank is None else f"rank={rank}"
    found = {}
    for item in daemon.get(f"/api/v1/runs/{run}/signals?{of_rank}")["items"]:
        answer = daemon.get(f"/api/v1/runs/{run}/series?signal={item['signal']}&subject={item['subject']}&{of_rank}")
        found[item["signal"], item["subject"]] = [
            status if value is None else value for value, status in zip(answer["last"], answer["status"], strict=True)
        ]
    return found


def test_two_ranks_together_say_what_one_process_says_of_the_whole_batch(tmp_path: Path) -> None:
    """Every signal of every update, by REST; each rank's own rows are there as well."""
    with DaemonProcess(tmp_path) as daemon:
        _train(daemon, tmp_path, "whole", 1)
        _train(daemon, tmp_path, "ddp", 2)
        whole, together = _series(daemon, "whole"), _series(daemon, "ddp")
        first, second = _series(daemon, "ddp", 0), _series(daemon, "ddp", 1)
        view = daemon.run("ddp")

    assert whole.keys() - together.keys() == {key for key in whole if key[0] in PER_RANK}
    wrong = {
        key: (values, together[key])
        for key, values in whole.items()
        if key in together and not key[0].startswith(OWN) and key[0] not in OF_MINIBATCHES and not _near(values, together[key])
    }
    assert wrong == {}
    key = ("value.pred.mean", "")
    assert len(first[key]) == len(second[key]) == len(together[key]) == ddp_trainer.UPDATES
    assert first[key] != second[key] != together[key]
    received = 2 * ddp_trainer.UPDATES
    assert (view["update_last"], view["coverage"]) == (3, {"received": received, "lost": 0, "share": 1.0, "thinned": 0})


PER_RANK = ("policy.kl.k3.last",)
"""Of the last minibatch of one rank: stays with its rank."""

OF_MINIBATCHES = ("policy.kl.k3.max",)
"""The largest mean of a minibatch: a rank's share of one is another minibatch."""


def _near(left: list[Any], right: list[Any]) -> bool:
    """Equal but for float32 rounding of other sums."""
    return len(left) == len(right) and all(
        a == b or (not isinstance(a, str) and not isinstance(b, str) and a == pytest.approx(b, rel=2e-4, abs=2e-6))
        for a, b in zip(left, right, strict=True)
    )
