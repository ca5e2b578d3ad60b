"""The link in processes of their own: exits without close, forks, and what is imported when."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts import messages as m

if TYPE_CHECKING:
    from harness.router import FakeDaemon

pytestmark = pytest.mark.usefixtures("nothing_leaks")


def _script(body: str, endpoint: str, *, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Run a trainer with a live link to `endpoint` in its own process."""
    source = f"""
import gc, os, sys, threading, time, warnings
sys.path.insert(0, {os.path.dirname(os.path.dirname(os.path.dirname(__file__)))!r})
from harness.outgoing import hello, put_row, row
from harness.router import eventually
from gradwatch_agent.desired import DesiredState
from gradwatch_agent.link import Link
from gradwatch_agent.outbox import Outbox
from gradwatch_contracts.control import Level
outbox = Outbox()
link = Link({endpoint!r}, "", hello, outbox, DesiredState(Level.NORMAL))
link.start()
{body}
"""
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=timeout, check=False)


def test_process_that_never_closes_its_link_exits_at_once(endpoint: str, daemon: FakeDaemon) -> None:
    """With a live daemon, rows in flight, and no `close`: exit code 0, nothing on stderr."""
    done = _script(
        """
eventually(lambda: link.state == "live", "live")
for update in range(1000):
    put_row(outbox, row(update))
""",
        endpoint,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_process_without_a_daemon_exits_at_once(endpoint: str) -> None:
    """While the thread is still starting."""
    done = _script("put_row(outbox, row(0))", endpoint)

    assert (done.returncode, done.stderr) == (0, "")


def test_forked_child_has_a_dead_link_and_the_parent_a_live_one(endpoint: str, daemon: FakeDaemon) -> None:
    """The child neither sends nor aborts at its garbage collection or exit; the parent loses nothing."""
    done = _script(
        """
warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads, from 3.12 on: what trainers do
eventually(lambda: link.state == "live", "live")
put_row(outbox, row(0))
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        assert link.state == "closed"
        put_row(outbox, row(666))
        link.start()
        link.close(30.0)
        link = None
        gc.collect()
        sys.exit(7)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert codes == [7, 7, 7], codes
put_row(outbox, row(1))
link.close(5.0)
assert outbox.acked == 2, outbox.acked
""",
        endpoint,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert daemon.updates() == [0, 1]
    assert len(daemon.of(m.Hello)) == 1


def test_link_module_does_not_load_zmq_until_the_thread_runs() -> None:
    """Importing it costs 54 ms that `import gradwatch_agent` must not."""
    code = "import sys, gradwatch_agent.link; sys.exit('zmq' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
