"""Whether a process on this machine still exists, tried on real ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from gradwatch_daemon.ingest.processes import Processes
from harness.router import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = socket.gethostname()
pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system has no pidfd: heartbeats alone decide here")


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Nothing watched yet; every descriptor is given back."""
    watching = Processes()
    before = len(os.listdir("/proc/self/fd"))
    yield watching
    watching.close()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits to be ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_processes_that_cannot_be_seen_are_unknown(processes: Processes, child: subprocess.Popen[bytes]) -> None:
    """Another machine, no such number, one that began after it greeted (the same number in another namespace), a bad number."""
    now_ns = time.time_ns()
    processes.watch("elsewhere", "another-host", child.pid, now_ns)
    processes.watch("never", HOST, 2**22 + 1, now_ns)
    processes.watch("younger", HOST, child.pid, now_ns - 3600 * 10**9)
    processes.watch("bad", HOST, -1, now_ns)
    processes.watch("huge", HOST, 2**80, now_ns)
    assert [processes.state(name) for name in ("elsewhere", "never", "younger", "bad", "huge", "nobody")] == [""] * 6
    assert processes.gone() == []


def test_process_is_seen_to_exist_to_halt_and_to_be_killed(processes: Processes, child: subprocess.Popen[bytes]) -> None:
    """Also before anybody has waited for it: a zombie is gone."""
    processes.watch("s", HOST, child.pid, time.time_ns())
    assert processes.state("s") == "exists"
    child.send_signal(signal.SIGSTOP)
    eventually(lambda: processes.state("s") == "halted", "it to halt")
    child.send_signal(signal.SIGCONT)
    eventually(lambda: processes.state("s") == "exists", "it to go on")
    assert processes.gone() == []
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: processes.gone() == ["s"], "it to be gone")
    assert processes.state("s") == "gone"
    processes.forget("s")
    assert (processes.gone(), processes.state("s")) == ([], "")
