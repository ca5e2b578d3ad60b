"""Calls from several threads: said once, never raised, and no bug of ours; numbers may be logged from any."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gradwatch_agent.collect.policy import PolicyCollector
from gradwatch_agent.guard import own_errors
from harness.recording import monitoring, read

if TYPE_CHECKING:
    from collections.abc import Iterator

SAID = "gradwatch: its calls come from several threads"


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    """One other thread, the same for every call."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads change as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(("call", "given"), [("ppo", {"new_logp": torch.zeros(2)}), ("rollout", {"rewards": torch.zeros(2)})])
def test_calls_of_two_threads_are_told_once(
    call: str, given: dict[str, Any], other: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """An actor's thread that measures what the learner's steps: it works, until two calls meet."""
    with monitoring() as (monitor, _):
        for _ in range(3):
            other.submit(getattr(monitor, call), **given).result()
            monitor.step()
    (line,) = caplog.messages
    assert line.startswith(SAID)
    assert own_errors(monitor) == {}


def test_training_that_moves_to_another_thread_is_not_told_of(
    other: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """Watched and warmed up in one, trained in the other."""
    with monitoring() as (monitor, _):
        monitor.ppo(new_logp=torch.zeros(2), old_logp=torch.zeros(2))
        monitor.step()
        for _ in range(3):
            other.submit(monitor.rollout, rewards=torch.zeros(2)).result()
            other.submit(monitor.step).result()
    assert caplog.messages == []


def test_failure_between_threads_is_not_to_be_reported(
    monkeypatch: pytest.MonkeyPatch, other: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the trainer's to mend; the run's events keep the traceback."""

    def meet(*given: object) -> None:
        raise RuntimeError("dictionary changed size during iteration")

    with monitoring() as (monitor, record):
        for _ in range(2):
            other.submit(monitor.rollout, rewards=torch.zeros(2)).result()
            monitor.step()
        monkeypatch.setattr(PolicyCollector, "observe", meet)
        monitor.ppo()
        assert [event[0] for event in record.events] == ["agent_error"]
    assert [line.split(":")[0] for line in caplog.messages] == [
        "gradwatch",
        "gradwatch failed in Monitor.ppo, as it does when called in several threads",
    ]
    assert "report" not in caplog.text


@pytest.mark.usefixtures("hasty", "strict")
def test_numbers_may_be_logged_in_any_thread() -> None:
    """No row is lost, and the last word of each thread is told."""
    over, count = Event(), 400

    def log(name: str) -> int:
        number = 0
        while not over.is_set():
            number += 1
            monitor.log({f"{name}{number % 20}": float(number), "both": number})
            monitor.log(**{name: float(number)})
        return number

    with monitoring() as (monitor, record), ThreadPoolExecutor(2) as pool:
        lasts = [pool.submit(log, name) for name in ("a", "b")]
        for _ in range(count):
            monitor.step()
        over.set()
        told = [last.result() for last in lasts]
        monitor.step()
        assert (len(record.rows), record.losses) == (count + 1, [])
        assert min(told) > 0
        for name, last in zip(("a", "b"), told, strict=True):
            values = (read(row).get(f"user/{name}") for row in reversed(record.rows))
            assert next(value for value in values if isinstance(value, float)) == last
