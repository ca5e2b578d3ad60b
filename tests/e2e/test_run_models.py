"""`gradwatch run` of a script that trains one model after another, or one model with several optimizers, with a real daemon."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from harness.daemon_process import DaemonProcess, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

CLI = [sys.executable, "-m", "gradwatch_daemon.cli.main"]

SCRIPT = """
import torch
from torch.utils.tensorboard import SummaryWriter
torch.manual_seed(0)
writer = SummaryWriter("logs")
def train(model, rate, updates):
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for update in range(updates):
        for _ in range(4):
            optimizer.zero_grad()
            (model(torch.rand(4, 3)) - 1).square().mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        writer.add_scalar("losses/loss", 1.0, 8 * update)
"""
MODELS = """
train(torch.nn.Linear(3, 1), 1e-3, 3)
train(torch.nn.Linear(3, 1), 2e-3, 5)
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One for all: each test has a run of its own."""
    with DaemonProcess(tmp_path_factory.mktemp("models")) as process:
        yield process


def ran(daemon: DaemonProcess, name: str, script: str, before: tuple[str, ...]) -> tuple[Any, str]:
    """The run of a script of this name that is over, and what the script wrote to its standard error."""
    (daemon.home / f"{name}.py").write_text(script)
    command = [*before, sys.executable, f"{name}.py"]
    done = subprocess.run(command, cwd=daemon.home, env=daemon.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    over = {"finished", "crashed", "stopped"}
    return wait_for(lambda: (found := daemon.run(name)) and found["state"] in over and found, name), done.stderr


def series(daemon: DaemonProcess, run: str, name: str) -> list[Any]:
    """The values of a signal, update by update."""
    return list(daemon.get(f"/api/v1/runs/{run}/series?signal={name}")["last"])


WATCHED = (*CLI, "run", "--")
OURS = SCRIPT.replace("torch.utils.tensorboard", "gradwatch_agent.adapters.tensorboard")


@pytest.mark.parametrize(
    ("name", "script", "before"),
    [("models", SCRIPT, WATCHED), pytest.param("dropped", OURS, (), marks=pytest.mark.campaign)],
)
def test_model_after_another_is_an_attempt_of_the_run(
    daemon: DaemonProcess, name: str, script: str, before: tuple[str, ...]
) -> None:
    """Whole, to the last update of the script; one line says so, and nothing is found in either."""
    run, err = ran(daemon, name, script + MODELS, before)

    assert (run["state"], run["attempt"], run["update_last"]) == ("finished", 2, 4)
    assert series(daemon, name, "opt.steps") == [4] * 5
    assert series(daemon, name, "opt.lr") == [pytest.approx(2e-3)] * 5
    assert err.count(f"another model is trained from here on: run {name!r} begins anew.") == 1
    found = {item["kind"] for item in daemon.get(f"/api/v1/anomalies?run={name}")["items"]}
    assert found == set()


REPLACED = """
model = torch.nn.Linear(3, 1)
train(model, 1e-3, 3)
train(model, 2e-3, 7)
"""


def test_optimizer_that_takes_over_a_model_is_watched_from_the_update_on_in_which_it_is_noticed(daemon: DaemonProcess) -> None:
    """In that one steps and rate are not told; nothing is counted as skipped, and the run does not begin anew."""
    run, err = ran(daemon, "replaced", SCRIPT + REPLACED, WATCHED)

    assert (run["state"], run["attempt"], run["update_last"]) == ("finished", 1, 9)
    steps, rates = (daemon.get(f"/api/v1/runs/replaced/series?signal={name}") for name in ("opt.steps", "opt.lr"))
    assert dict(zip(steps["update"], steps["last"], strict=True)) == {
        update: None if update == 3 else 4 for update in range(10)
    }
    assert rates["last"][4:] == [pytest.approx(2e-3)] * 6
    assert set(series(daemon, "replaced", "opt.skipped")) <= {0, None}
    assert "begins anew" not in err
    assert daemon.get("/api/v1/anomalies?run=replaced")["items"] == []
