"""Whatever the daemon does, a trainer prints what it would print and exits as it would exit: by experiment, in processes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from harness.faulty_daemon import FaultyDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRAINER = """
import random, sys, time
from gradwatch_agent import watch
mon = watch(run="open", endpoint=sys.argv[1], updates_total=200)
chance, weights = random.Random(3), [0.0] * 8
for update in range(200):
    weights = [weight - 0.1 * (weight - chance.gauss(0, 1)) for weight in weights]
    mon.log(loss=sum(weights))
    mon.step(env_steps=update, episode_returns=[weights[0]])
    if update % 10 == 0:
        time.sleep(0.05)
print(weights, flush=True)
if sys.argv[2] == "raise":
    raise RuntimeError("the trainer's own")
sys.exit(7)
"""
ENDS = {"exit": 7, "raise": 1}
MODES = ("absent", "good", "refusing", "stopped", "slow", "mute", "garbage", "newer", "older", "killed at random")


def _environment(**given: str) -> dict[str, str]:
    """A user's: own errors are not raised."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GRADWATCH_")} | given


def _start(endpoint: str, end: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TRAINER, endpoint, end]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def alone() -> str:
    """What the trainer prints without us."""
    said, _ = _start("auto", "exit", _environment(GRADWATCH_MODE="off")).communicate(timeout=60)
    assert said.startswith("[")
    return said


class Strikes:
    """A thread that kills a daemon again and again at seeded moments; it comes back each time."""

    def __init__(self, daemon: FaultyDaemon, seed: int) -> None:
        self._daemon, self._chance, self._over = daemon, random.Random(seed), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Strikes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._over.wait(self._chance.uniform(0.05, 0.4)):
            self._daemon.kill()
            self._daemon.__exit__(None, None, None)
            self._daemon.__enter__()


def _daemons(tmp_path: Path, stack: ExitStack) -> Iterator[tuple[str, str]]:
    """Mode and endpoint of each."""
    for mode in MODES:
        endpoint = f"ipc://{tmp_path}/{mode.replace(' ', '-')}"
        if mode != "absent":
            kind = "good" if mode in ("stopped", "killed at random") else mode
            daemon = stack.enter_context(FaultyDaemon(endpoint, kind))
            if mode == "stopped":
                daemon.stop()
            if mode == "killed at random":
                stack.enter_context(Strikes(daemon, 5))
        yield mode, endpoint


@pytest.mark.parametrize(
    "spool",
    [
        pytest.param("no spool", marks=pytest.mark.campaign),
        "spool",
        pytest.param("spool that cannot be written", marks=pytest.mark.campaign),
    ],
)
def test_trainer_prints_and_exits_as_without_us_whatever_the_daemon_does(tmp_path: Path, alone: str, spool: str) -> None:
    """All at once: absent, refusing, stopped, slow, mute, hostile, of another version, killed again and again."""
    folder = {"no spool": "", "spool": str(tmp_path / "spool"), "spool that cannot be written": "/proc/nowhere"}[spool]
    environment = _environment(GRADWATCH_SPOOL_DIR=folder)
    found = {}
    with ExitStack() as stack:
        end = "raise" if spool == "spool" else "exit"
        trainers = {mode: _start(endpoint, end, environment) for mode, endpoint in _daemons(tmp_path, stack)}
        for mode, trainer in trainers.items():
            said, told = trainer.communicate(timeout=100)
            found[mode] = (said, trainer.returncode, ("the trainer's own" in told) == (end == "raise"))

    assert found == dict.fromkeys(MODES, (alone, ENDS[end], True))
