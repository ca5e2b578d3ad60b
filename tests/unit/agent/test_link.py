"""The link over a real socket: no daemon, a slow, silent, refusing, lying or dying one, a fork, and then a good one."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from gradwatch_agent import link as link_module
from gradwatch_agent.desired import DesiredState
from gradwatch_agent.link import FAILURES_MAX, Link
from gradwatch_agent.outbox import Outbox
from gradwatch_agent.session import HELLO_AGAIN_S
from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.control import Desired, Level
from gradwatch_contracts.errors import CODES
from harness.outgoing import hello, put_row, row
from harness.router import FakeDaemon, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gradwatch_agent.link import Locates

pytestmark = pytest.mark.usefixtures("nothing_leaks")


class Agent:
    """A link with what it needs, as the monitor holds it."""

    def __init__(self, endpoint: str, secret: str = "", locate: Locates | None = None) -> None:
        self.outbox = Outbox()
        self.desired = DesiredState(Level.NORMAL)
        self.refused: list[str] = []
        self.own_errors: list[str] = []
        self.link = Link(
            endpoint,
            secret,
            hello,
            self.outbox,
            self.desired,
            on_refused=self.refused.append,
            on_own_error=lambda place, text: self.own_errors.append(place),
            locate=locate,
        )

    def put(self, first: int, last: int) -> None:
        """Updates `first` to `last`, without the end."""
        for update in range(first, last):
            put_row(self.outbox, row(update))

    def live(self) -> Agent:
        """Start, and wait until a daemon answered."""
        self.link.start()
        eventually(lambda: self.link.state == "live", "a WELCOME")
        return self


@pytest.fixture
def agent(endpoint: str) -> Iterator[Agent]:
    """An agent that is closed in the end."""
    made = Agent(endpoint)
    yield made
    made.link.close(0.0)


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_link_without_a_daemon_warns_once_and_closes_at_once(
    agent: Agent, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with what to do; telemetry is kept, and `close` does not wait for who never came."""
    monkeypatch.setattr(link_module, "ABSENT_S", 0.05)
    agent.put(0, 10)
    agent.link.start()
    eventually(lambda: agent.link.warned_absent, "the warning")
    eventually(lambda: agent.outbox.pending == 10, "the rows to be numbered")
    assert agent.link.state == "connecting"
    assert agent.link._session._hello_wait_s == HELLO_AGAIN_S, "a HELLO was queued for nobody"
    agent.link.close(10_000.0)

    (line,) = _said(caplog)
    assert agent.link.endpoint in line
    assert "gradwatch serve" in line
    assert agent.link.state == "closed"


class Killed:
    """Where a daemon was, until somebody starts it again."""

    def __init__(self) -> None:
        self.asked, self.back = 0, False

    def __call__(self) -> None:
        """It will be where it was."""

    def gone(self) -> bool:
        """Until it is back."""
        self.asked += 1
        return not self.back


def test_link_says_nothing_to_whoever_listens_where_a_killed_daemon_was(endpoint: str) -> None:
    """HELLO holds the secret, and the configuration of the run. It goes out once the daemon is there again."""
    killed = Killed()
    agent = Agent(endpoint, "s3cret", killed)
    agent.put(0, 3)
    with FakeDaemon(endpoint) as impostor:
        agent.link.start()
        eventually(lambda: killed.asked > 3, "the link to look a few times")
        said = impostor.of(m.Hello)
        killed.back = True
        eventually(lambda: impostor.of(m.Hello), "a HELLO")
        agent.link.close(0.2)

    assert said == []
    assert impostor.of(m.Hello)[0].secret == "s3cret"


@pytest.mark.promise("close-bounded")
def test_link_close_without_an_answer_is_bounded(agent: Agent) -> None:
    """Somebody listens and never answers: the thread ends by itself after the timeout (else it leaks, and this fails)."""
    with FakeDaemon(agent.link.endpoint) as daemon:
        daemon.silent = True
        agent.put(0, 5)
        agent.link.start()
        eventually(lambda: daemon.of(m.Hello), "a HELLO")
        agent.link.close(0.2)

        assert not daemon.of(m.Samples)
        assert agent.link.state == "closed"


@pytest.mark.promise("close-bounded")
def test_link_close_with_a_daemon_that_never_acks_is_bounded(agent: Agent, daemon: FakeDaemon) -> None:
    """BYE goes out all the same, after the data, and says what the last record was."""
    daemon.acking = False
    agent.live().put(0, 5)
    agent.link.close(0.3)

    eventually(lambda: daemon.of(m.Bye), "a BYE")
    assert daemon.of(m.Bye) == [m.Bye(4)]
    assert daemon.updates() == [0, 1, 2, 3, 4]


def test_link_refused_is_off_with_one_line(agent: Agent, daemon: FakeDaemon, caplog: pytest.LogCaptureFixture) -> None:
    """The sentence of the error table; afterwards nothing is kept and no thread runs."""
    daemon.refuse = m.Refuse("secret-wrong", "HELLO.secret")
    agent.put(0, 100)
    agent.link.start()
    eventually(lambda: agent.link._ended, "the thread to end")
    agent.put(100, 200)

    code = CODES["secret-wrong"]
    assert agent.link.state == "refused"
    assert agent.refused == [agent.link.refusal] == [f"{code.title} (HELLO.secret) {code.hint}"]
    assert _said(caplog) == [f"gradwatch is off for this run: {agent.link.refusal}"]
    assert (agent.outbox.bytes_held, agent.outbox.settled) == (0, True)


def test_link_with_an_endpoint_that_cannot_be_used_is_off_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Longer than a Unix socket's path may be: said, and not raised anywhere."""
    agent = Agent(f"ipc://{tmp_path}/{'x' * 200}")
    agent.link.start()
    eventually(lambda: agent.link._ended, "the thread to end")
    agent.link.close()

    assert agent.link.state == "refused"
    (line,) = _said(caplog)
    assert agent.link.endpoint in line


@pytest.mark.parametrize("garbage", [b"", b"\x00" * 200, b"GRDW\x02\x02" + bytes(10)], ids=["empty", "zeros", "other major"])
def test_link_hearing_garbage_counts_it_and_goes_on(agent: Agent, daemon: FakeDaemon, garbage: bytes) -> None:
    """Nothing a daemon says ends the thread."""
    agent.live()
    for _ in range(3 * link_module.FRAMES_PER_TURN):
        daemon.send(garbage)
    eventually(lambda: agent.link.bad_frames == 3 * link_module.FRAMES_PER_TURN, "all of it counted")
    agent.put(0, 3)
    eventually(lambda: agent.outbox.acked == 3, "acks")


def test_link_survives_restarts_of_the_daemon_and_loses_nothing(agent: Agent, daemon: FakeDaemon) -> None:
    """Each update is in the store exactly once, in order, whatever was in flight; the session stays the same."""
    agent.live()
    for life in range(3):
        agent.put(100 * life, 100 * life + 50)
        daemon.acking = life != 1  # what it has, but never acked, must not come twice
        eventually(lambda life=life: daemon.last_seq >= 100 * life + 10, "some rows")
        daemon.stop()
        agent.put(100 * life + 50, 100 * life + 100)
        daemon.start()
    daemon.acking = True
    eventually(lambda: agent.outbox.settled, "everything acked")
    agent.link.close()

    assert daemon.updates() == list(range(300))
    assert not daemon.memory.losses
    assert set(daemon.store) == {"session"}


def test_link_to_a_daemon_with_a_new_store_goes_on(agent: Agent, daemon: FakeDaemon) -> None:
    """What only the old store had is named as lost to the new one, which then takes the rest."""
    agent.live().put(0, 20)
    eventually(lambda: agent.outbox.acked == 20, "acks")
    daemon.stop()
    daemon.wipe()
    daemon.start()
    agent.put(20, 30)
    eventually(lambda: daemon.store and daemon.last_seq == 29, "the rest")

    assert daemon.updates() == list(range(20, 30))
    assert set(daemon.memory.losses.values()) == {"acked by an earlier store"}


def test_link_to_a_daemon_that_forgot_us_greets_again(agent: Agent, daemon: FakeDaemon) -> None:
    """REHELLO out of nowhere is an ordinary event."""
    agent.live().put(0, 3)
    eventually(lambda: agent.outbox.acked == 3, "acks")
    daemon.send(m.Rehello())
    eventually(lambda: len(daemon.of(m.Hello)) == 2 and agent.link.state == "live", "a second WELCOME")
    agent.put(3, 6)
    eventually(lambda: agent.outbox.acked == 6, "acks")

    assert daemon.updates() == list(range(6))


def test_link_respects_a_small_window(agent: Agent, daemon: FakeDaemon) -> None:
    """Not one record beyond it is sent before an ACK."""
    daemon.window, daemon.acking = 7, False
    agent.live().put(0, 50)
    eventually(lambda: daemon.last_seq == 6, "a full window")
    assert agent.outbox.unacked == 7
    daemon.acking = True
    daemon.send(m.Ack(6))
    eventually(lambda: agent.outbox.acked == 50, "the rest")

    assert daemon.updates() == list(range(50))


def test_link_that_was_never_started_closes(agent: Agent) -> None:
    """And does not start afterwards."""
    agent.link.close()
    agent.link.start()

    assert agent.link.state == "closed"
    assert agent.link._thread is None


def test_link_failing_inside_reports_and_goes_on(
    agent: Agent, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One bug costs a turn; told once."""
    monkeypatch.delenv("GRADWATCH_STRICT")
    agent.live()
    failures = iter(range(3))

    def fail(now: float) -> bytes | None:
        if next(failures, None) is not None:
            raise RuntimeError("our bug")
        monkeypatch.undo()
        return None

    monkeypatch.setattr(agent.link._session, "frame", fail)
    agent.put(0, 3)
    eventually(lambda: agent.outbox.acked == 3, "acks")

    assert agent.own_errors == ["link.turn"]
    assert len(_said(caplog)) == 1


def test_link_failing_for_ever_gives_up_and_keeps_nothing(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a bounded number of turns; the trainer's calls become no-ops."""
    monkeypatch.delenv("GRADWATCH_STRICT")
    calls: list[float] = []

    def fail(now: float) -> bytes | None:
        calls.append(now)
        raise RuntimeError("our bug")

    monkeypatch.setattr(agent.link._session, "frame", fail)
    agent.link.start()
    eventually(lambda: agent.link.state == "closed", "giving up")
    agent.put(0, 100)

    assert len(calls) == FAILURES_MAX
    assert agent.own_errors == ["link.turn", "link"]
    assert agent.outbox.settled


def test_link_carries_everything_and_says_bye(endpoint: str, daemon: FakeDaemon) -> None:
    """Rows, a loss, evidence, the secret and the reason, each as it was put."""
    agent = Agent(endpoint, secret="s3cret")
    agent.live().put(0, 3)
    agent.outbox.lose(2, "device busy")
    agent.outbox.put_event("exception", 3, 17, "ValueError", {"line": 7})
    agent.outbox.put_table("layers", 3, ("a",), ("norm",), bytes(8))
    agent.outbox.put_result("e1", "applied", 3, "why")
    agent.link.close(reason="exception")

    eventually(lambda: daemon.of(m.Bye), "a BYE")
    assert daemon.memory.records == {
        **{seq: seq for seq in range(3)},
        5: m.Event(5, "exception", 3, 17, "ValueError", {"line": 7}),
        6: m.Table(6, "layers", 3, ("a",), ("norm",), bytes(8)),
        7: m.Result(7, "e1", "applied", 3, "why"),
    }
    assert daemon.memory.losses == {3: "device busy", 4: "device busy"}
    assert daemon.received[-1] == m.Bye(7, "exception")
    assert [greeting.secret for greeting in daemon.of(m.Hello) if isinstance(greeting, m.Hello)] == ["s3cret"]
    assert (agent.link.state, agent.link.attempt) == ("closed", 1)


def test_link_brings_the_desired_state_to_the_trainer(agent: Agent, daemon: FakeDaemon) -> None:
    """By WELCOME, and by LEVEL at any time."""
    daemon.desired = Desired(3, Level.MINIMAL)
    agent.live()
    assert agent.desired.boundary(0)[0] is Level.MINIMAL
    daemon.send(m.LevelMessage(Desired(4, Level.DEBUG)))
    eventually(lambda: agent.desired.boundary(1)[0] is Level.DEBUG, "the new level")


def test_link_sends_a_row_within_its_interval_without_being_woken(agent: Agent, daemon: FakeDaemon) -> None:
    """The thread looks by itself, also after it went idle."""
    agent.live()
    for update in range(3):
        agent.put(update, update + 1)
        eventually(lambda update=update: agent.outbox.acked == update + 1, "an ack")
    agent.link._put_at -= 2 * link_module.IDLE_AFTER_S
    assert agent.link._pause_s(time.monotonic()) == link_module.IDLE_INTERVAL_S
    agent.put(3, 4)
    eventually(lambda: agent.outbox.acked == 4, "an ack")
    assert agent.link._pause_s(time.monotonic()) == limits.SEND_INTERVAL_S


@pytest.mark.parametrize("act", [lambda link: link.start(), lambda link: link.close(0.0)], ids=["start", "close"])
def test_link_calls_may_be_repeated(agent: Agent, daemon: FakeDaemon, act: Callable[[Link], None]) -> None:
    """Twice is once."""
    agent.live()
    act(agent.link)
    act(agent.link)

    assert sum(thread.name == "gradwatch-link" for thread in threading.enumerate()) <= 1
