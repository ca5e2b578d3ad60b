"""A fault planted in a known layer is named, from updates before the trigger; what was not received is not claimed."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import planted_trainer
from harness.daemon_process import DaemonProcess, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

AT = planted_trainer.AT


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One daemon for all faults."""
    with DaemonProcess(tmp_path_factory.mktemp("evidence")) as started:
        yield started


@contextmanager
def trainer(daemon: DaemonProcess, fault: str) -> Iterator[subprocess.Popen[bytes]]:
    """A trainer of run `fault` with that fault."""
    command = [sys.executable, str(Path(planted_trainer.__file__)), fault, fault]
    with subprocess.Popen(
        command, env=daemon.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def explained(daemon: DaemonProcess, run: str) -> dict[str, Any] | None:
    """The first anomaly of a run whose evidence names a place in the model."""
    for item in [item for item in daemon.get("/api/v1/anomalies?limit=200")["items"] if item["run"] == run]:
        document: dict[str, Any] = daemon.get(f"/api/v1/anomalies/{item['id']}")
        if document["evidence"]["first_layer"] is not None:
            return document
    return None


@pytest.mark.parametrize(
    ("fault", "what", "layer", "update", "step"),
    [
        ("gradient", "gradient", "body.2.weight", AT, 2),
        ("nan", "gradient", "actor.weight", AT, 1),
        ("weights", "weight", "critic.weight", AT - 1, None),
        ("exception", "gradient", "actor.weight", AT, 1),
    ],
)
def test_fault_of_a_known_layer_is_named_with_updates_from_before_it(
    daemon: DaemonProcess, fault: str, what: str, layer: str, update: int, step: int | None
) -> None:
    """At NORMAL, whatever detector fired: the layer, the update and the step at which it began, and its norms before that."""
    with trainer(daemon, fault):
        document = wait_for(lambda: explained(daemon, fault), f"the evidence of {fault}", 60)
    evidence = document["evidence"]
    first = evidence["first_layer"]
    assert (first["what"], first["layer"], first["update"], first["step"]) == (what, layer, update, step)
    assert first["usual"] < 10
    (norms,) = (one for one in evidence["norms"] if one["layer"] == layer)
    assert sum(before < update for before in norms["update"]) >= 20
    assert evidence["updates"]["before"] >= 20
    assert layer in evidence["sentence"]
    assert evidence["first_signal"]["update"] >= AT - 1, evidence["first_signal"]
    if fault == "nan":
        command = [sys.executable, "-m", "gradwatch_daemon.cli.main", "explain", document["id"]]
        environment = {**daemon.environment, "GRADWATCH_DATA_DIR": str(daemon.data_dir)}
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
        assert f"The gradient of actor.weight deviated first: nan at update {AT}, step 1" in said
        assert "norms       gradient of actor.weight by update: " in said


def test_trainer_killed_before_its_update_ended_claims_nothing_of_it(daemon: DaemonProcess) -> None:
    """The NaN was never sent: there is no anomaly of it, no black box, and the last update is the one before."""
    with trainer(daemon, "kill") as process:
        wait_for(lambda: ((daemon.run("kill") or {}).get("update_last") or 0) >= AT - 2, "the last rows", 60)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(60) == -signal.SIGKILL
    assert daemon.get("/api/v1/runs/kill")["update_last"] < AT
    assert [item["kind"] for item in daemon.get("/api/v1/anomalies?run=kill")["items"] if item["kind"] == "nonfinite"] == []
    snapshot = daemon.get(f"/api/v1/runs/kill/snapshot?around={AT}")
    assert all(update < AT for update in snapshot["update"])
