"""How a run is, of real trainers: frozen, killed, raising, ending, stopped, evaluating, and over a restart of the daemon."""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from harness.daemon_process import DaemonProcess, python, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRAINER = """
import sys, time
from gradwatch_agent import watch
mon = watch(run="alive", config={{"rhythm": {rhythm}}})
for line in iter(sys.stdin.readline, ""):
    for _ in range({updates}):
        time.sleep({rhythm})
        mon.step(x=1.0)
    {then}
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """One for all of these; every trainer is another attempt of one run."""
    with DaemonProcess(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@contextmanager
def trainer(
    daemon: DaemonProcess, then: str = "pass", updates: int = 12, rhythm: float = 0.1
) -> Iterator[subprocess.Popen[bytes]]:
    """A trainer with an update every `rhythm` seconds, twelve of them for each line it is given, and then what `then` says."""
    script = TRAINER.format(updates=updates, then=then, rhythm=rhythm)
    before = (daemon.run("alive") or {"attempt": 0})["attempt"]
    with python(daemon, "-c", script, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            go(process)
            wait_for(lambda: (shown(daemon) or {"attempt": 0})["attempt"] > before, "the attempt")
            yield process
        finally:
            process.kill()


def go(process: subprocess.Popen[bytes]) -> None:
    """Twelve updates more."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def shown(daemon: DaemonProcess) -> Any:
    """The run as HTTP shows it."""
    return daemon.run("alive")


def until(daemon: DaemonProcess, state: str, said: str = "") -> Any:
    """The run once it is in this state, with this evidence."""

    def found() -> Any:
        run = shown(daemon)
        return run if run and run["state"] == state and said in run["evidence"] else None

    return wait_for(found, f"{state}: {said}")


def test_killed_trainer_is_lost_and_not_crashed(daemon: DaemonProcess) -> None:
    """Found by its process, not by three missed heartbeats: the sentence says so, and the recorded times do. Between its last
    row, on its own clock, and the daemon's word lie less than three times its rhythm."""
    rhythm = 0.6
    with trainer(daemon, updates=1000, rhythm=rhythm) as process:
        until(daemon, "live", "one usually comes every")
        process.send_signal(signal.SIGKILL)
        run = until(daemon, "lost", f"Process {process.pid} is gone")
    made, told = (
        datetime.fromisoformat(text.replace("Z", "+00:00")) for text in (run["row_last"]["made_at"], run["last_seen_at"])
    )
    assert (told - made).total_seconds() < 3 * rhythm
    assert run["crash"] is None
    assert "lost" in run["sentence"]


def test_frozen_trainer_is_stalled_and_live_when_it_goes_on(daemon: DaemonProcess) -> None:
    """SIGSTOP: its process is seen to be halted; SIGCONT: the same attempt."""
    with trainer(daemon) as process:
        before = until(daemon, "live", "one usually comes every")
        process.send_signal(signal.SIGSTOP)
        until(daemon, "stalled", f"process {process.pid} is halted")
        process.send_signal(signal.SIGCONT)
        go(process)
        after = until(daemon, "live", "one usually comes every")
    assert after["attempt"] == before["attempt"]


def test_evaluation_far_longer_than_the_rhythm_is_no_stall_and_its_end_is_not_late(daemon: DaemonProcess) -> None:
    """Sixty times as long as an update and longer than the five seconds of the rule; told while it goes on."""
    evaluate = "with mon.phase('eval'): time.sleep(6)\n    mon.step(x=1.0)"
    with trainer(daemon, evaluate) as process:
        until(daemon, "live", "In eval since")
        run = until(daemon, "live", "one usually comes every")
        go(process)
        until(daemon, "live", "In eval since")
    found = daemon.get("/api/v1/anomalies?run=alive&kind=stall")["items"]
    assert [item for item in found if item["attempt"] == run["attempt"]] == []


def test_trainer_that_hangs_without_a_word_is_slow_then_stalled(daemon: DaemonProcess) -> None:
    """Its process answers all the while."""
    with trainer(daemon):
        until(daemon, "slow", "No update since")
        run = until(daemon, "stalled", "though the trainer answers")
    assert run["live"]


@pytest.mark.parametrize(
    ("then", "state", "said"),
    [
        ("raise ValueError('bad logits')", "crashed", "It raised ValueError: bad logits"),
        ("mon.close(); break", "finished", "It said goodbye"),
        ("raise KeyboardInterrupt", "stopped", "It was interrupted"),
    ],
)
def test_last_words_of_a_trainer_decide(daemon: DaemonProcess, then: str, state: str, said: str) -> None:
    """A crash shows its exception, the traceback, and where the last updates are."""
    with trainer(daemon, then):
        run = until(daemon, state, said)
    if state == "crashed":
        assert (run["crash"]["type"], run["crash"]["message"]) == ("ValueError", "bad logits")
        assert "Traceback" in run["crash"]["traceback"]
        assert daemon.get(run["crash"]["updates"])
    else:
        assert run["crash"] is None


def test_daemon_that_restarts_hears_of_an_evaluation_that_goes_on(tmp_path: Path) -> None:
    """Until the trainer greets again the run is lost; then the pause is told on the new connection."""
    with DaemonProcess(tmp_path) as daemon, trainer(daemon, "with mon.phase('eval'): time.sleep(60)"):
        until(daemon, "live", "In eval since")
        daemon.kill()
        daemon.start()
        until(daemon, "live", "In eval since")
