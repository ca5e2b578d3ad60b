"""Processes around a trainer, and its ends: children are inert, exit codes and signals are the trainer's, last words arrive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts import messages as m
from harness import processes_trainer
from harness.router import FakeDaemon, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRAINER = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to it
from gradwatch_agent import watch
{prepare}
mon = watch(run="ends", endpoint=sys.argv[1])
while mon._link.state != "live":
    time.sleep(0.01)
mon.step(x=1.0)
mon.log(unfinished=1.0)
print("ready", flush=True)
{end}
"""
FOREVER = "while True: time.sleep(0.01)"
OWN_HANDLER = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    """A daemon that remembers all."""
    with FakeDaemon(f"ipc://{tmp_path}/daemon.ipc") as started:
        yield started


def environment() -> dict[str, str]:
    """Of a user: our own errors are not raised. Our harness can be imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GRADWATCH_")}
    here = os.path.dirname(os.path.dirname(__file__))
    return {**kept, "PYTHONPATH": os.pathsep.join([here, kept.get("PYTHONPATH", "")])}


@contextmanager
def trainer(daemon: FakeDaemon, end: str, prepare: str = "") -> Iterator[subprocess.Popen[str]]:
    """A trainer of host scalars that has finished one update and begun another, and then does `end`."""
    command = [sys.executable, "-c", TRAINER.format(prepare=prepare, end=end), daemon.endpoint]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(), **pipes) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def complaints(stderr: str) -> str:
    """What a trainer wrote to stderr beside our line about what is watched."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith("gradwatch: run 'ends': watching"))


def events(daemon: FakeDaemon) -> list[tuple[str, str]]:
    """Kind and type of what was told beside the rows."""
    return [(event.kind, str(event.detail.get("type", ""))) for event in daemon.of(m.Event) if isinstance(event, m.Event)]


def reasons(daemon: FakeDaemon) -> list[str]:
    """Of the last words."""
    return [bye.reason for bye in daemon.of(m.Bye) if isinstance(bye, m.Bye)]


@pytest.mark.parametrize(
    "methods", [("fork",), pytest.param(("fork", "spawn", "forkserver"), marks=pytest.mark.campaign)], ids=["fork", "all"]
)
def test_children_of_a_trainer_are_inert_and_the_parent_goes_on(daemon: FakeDaemon, methods: tuple[str, ...]) -> None:
    """fork, DataLoader workers, `multiprocessing` by every method: one session, its updates, none of a child."""
    command = [sys.executable, processes_trainer.__file__, daemon.endpoint, *methods]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=110, check=False)
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    assert daemon.updates() == list(range(3 + len(methods)))
    assert len(daemon.of(m.Hello)) == 1
    assert reasons(daemon) == ["closed"]


@pytest.mark.parametrize(
    ("end", "code", "told", "reason"),
    [
        ("pass", 0, [], "exit"),
        ("sys.exit(7)", 7, [], "exit"),
        ("raise ValueError('mine')", 1, [("exception", "ValueError")], "exception"),
        ("raise KeyboardInterrupt", -signal.SIGINT, [("note", "KeyboardInterrupt")], "interrupted"),
    ],
)
def test_trainer_that_ends_without_close_says_its_last_words(
    daemon: FakeDaemon, end: str, code: int, told: list[tuple[str, str]], reason: str
) -> None:
    """The exit code is its own; the unfinished update arrives, and why it ended."""
    with trainer(daemon, end) as process:
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == code
    assert "gradwatch" not in complaints(stderr)
    assert daemon.updates() == [0, 1]
    assert events(daemon) == told
    assert reasons(daemon) == [reason]


def test_trainer_interrupted_by_ctrl_c_dies_of_it_and_tells(daemon: FakeDaemon) -> None:
    """A shell sees a death by SIGINT, as without us."""
    with trainer(daemon, FOREVER) as process:
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in stderr
    assert "gradwatch" not in complaints(stderr)
    assert daemon.updates() == [0, 1]
    assert events(daemon) == [("note", "KeyboardInterrupt")]


def test_trainer_terminated_dies_at_once(daemon: FakeDaemon) -> None:
    """SIGTERM without a handler kills, as without us; the finished update may be there, and nothing is told that is not so."""
    with trainer(daemon, FOREVER) as process:
        eventually(lambda: daemon.updates() == [0], "the finished update")
        process.terminate()
        _, stderr = process.communicate(timeout=30)
        assert (process.returncode, complaints(stderr)) == (-signal.SIGTERM, "")
    assert events(daemon) == []
    assert reasons(daemon) == []


def test_trainer_with_its_own_handler_of_sigterm_keeps_it(daemon: FakeDaemon) -> None:
    """Pre-emption: its handler exits with its code, and the run ends in order."""
    with trainer(daemon, FOREVER, OWN_HANDLER) as process:
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 5
    assert daemon.updates() == [0, 1]
    assert reasons(daemon) == ["exit"]


def test_trainer_interrupted_again_while_it_closes_ends_by_that(daemon: FakeDaemon) -> None:
    """A daemon that never acks makes `close` wait; an impatient second Ctrl-C must not be swallowed."""
    daemon.acking = False
    patient = "from gradwatch_contracts import limits; limits.CLOSE_S = 600.0"
    closing = "import threading\nthreading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\nmon.close()"
    with trainer(daemon, closing, patient) as process:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in stderr
