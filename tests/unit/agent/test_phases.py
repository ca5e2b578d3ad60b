"""Time by phase, memory, and episodes beyond their returns, as rows have them."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import numpy as np
import pytest
import torch

from gradwatch_agent.collect.host import Tally
from gradwatch_agent.collect.memory import FRESH_NS, HostMemory
from gradwatch_agent.collect.phases import TIMED, Phase, PhaseTimes
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring

pytestmark = pytest.mark.usefixtures("strict")


class Clock:
    """Nanoseconds that pass only when told to."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In place of the clock of phases."""
    stopped = Clock()
    monkeypatch.setattr("gradwatch_agent.collect.phases.time.perf_counter_ns", stopped)
    return stopped


def finished(**given: Any) -> dict[str, Any]:
    """The row of one `step`."""
    with monitoring() as (monitor, record):
        monitor.step(**given)
        return record.last


@pytest.mark.parametrize("word", ["rolout", "", 3, None, torch.ones(2)])
def test_phase_of_another_word_is_not_measured_and_hints(word: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The block runs all the same."""
    with monitoring() as (monitor, record):
        with monitor.phase(word):
            ran = True
        monitor.step()
        assert not [name for name in record.last if name.startswith("sys.phase_ms")]
    assert ran
    assert "'rollout' or 'update'" in caplog.text


def test_phase_that_raises_counts_and_the_exception_goes_on() -> None:
    """Nothing is swallowed."""
    with monitoring() as (monitor, record):
        with pytest.raises(ZeroDivisionError), monitor.phase("eval"):
            raise ZeroDivisionError
        monitor.step()
        assert record.last["sys.phase_ms/eval"] > 0


def test_phase_blocks_of_an_update_add_up_and_the_next_begins_at_none(clock: Clock) -> None:
    """3 + 4 ms of one phase, 2 of another; an update without a block has NOT_CALLED, not 0."""
    times = PhaseTimes(lambda *_: None)
    for name, ms in (("rollout", 3), ("update", 2), ("rollout", 4)):
        with Phase(times, name):
            clock.ns += ms * 1_000_000
    with monitoring() as (monitor, record):
        monitor._phases = times
        monitor.step()
        monitor.step()
        first, second = map(_phases, record.rows)
    assert first == {"sys.phase_ms/rollout": 7.0, "sys.phase_ms/update": 2.0}
    assert set(second.values()) == {Status.NOT_CALLED}


def _phases(row: Any) -> dict[str, Any]:
    from harness.recording import read

    return {name: value for name, value in read(row).items() if name.startswith("sys.phase_ms")}


def test_phases_of_an_update_at_off_are_dropped() -> None:
    """They must not appear in the first row above it."""
    with monitoring(level=Level.OFF) as (monitor, record):
        with monitor.phase("rollout"):
            pass
        monitor.step()
        assert not _phases(record.rows[-1])
        assert not monitor._phases.spent


def test_every_phase_is_documented_in_its_method() -> None:
    """What can be timed is what the docstring lists."""
    from gradwatch_agent.monitor import Monitor

    assert all(f'"{name}"' in str(Monitor.phase.__doc__) for name in TIMED)


def test_host_memory_just_read_is_told_again_and_then_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer that makes hundreds of updates a second waits for the kernel in ten of them."""
    memory, told = HostMemory(), []
    for pages, now_ns in ((3, 0), (5, FRESH_NS - 1), (7, FRESH_NS)):
        monkeypatch.setattr(os, "pread", lambda file, size, at, pages=pages: b"9 %d 9" % pages)
        if now_ns >= memory.fresh_until_ns:
            memory.tell(Tally(), len(told), now_ns)
        told.append(memory.part[0] / os.sysconf("SC_PAGE_SIZE"))
    memory.close()
    assert told == [3, 3, 7]


def test_host_memory_says_how_many_updates_a_reading_serves() -> None:
    """What it takes is spread over them before the budget is looked at; a run may begin at any update."""
    memory = HostMemory()
    assert [memory.tell(Tally(), update, 0) for update in (1000, 1001, 1500)] == [1, 1, 499]
    memory.close()


def test_host_memory_grows_with_what_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB more are seen, in bytes."""
    monkeypatch.setattr("gradwatch_agent.collect.memory.FRESH_NS", 0)
    with monitoring() as (monitor, record):
        monitor.step()
        held = np.ones(8 * 1024 * 1024)
        monitor.step()
        before, after = (_read(row, "sys.host_bytes") for row in record.rows)
    assert after - before == pytest.approx(held.nbytes, rel=0.1)


def _read(row: Any, name: str) -> Any:
    from harness.recording import read

    return read(row)[name]


def test_host_memory_without_the_kernels_file_is_undefined(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system: never 0."""
    monkeypatch.setattr("gradwatch_agent.collect.memory.STATM", "/nowhere")
    assert finished()["sys.host_bytes"] is Status.UNDEFINED


def test_host_memory_gives_its_file_back() -> None:
    """A closed monitor holds no descriptor; closing twice is nothing."""
    memory = HostMemory()
    file = memory._file
    assert file is not None
    memory.close()
    memory.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(file)


def test_device_memory_without_a_gpu_is_undefined_and_with_one_read_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the updates between it is THINNED."""
    for found, expected in ((None, [Status.UNDEFINED] * 17), (512, [512.0, *[Status.THINNED] * 15, 512.0])):
        monkeypatch.setattr("gradwatch_agent.collect.measurement.allocated_bytes", lambda devices, found=found: found)
        with monitoring(modules=(torch.nn.Linear(1, 1),)) as (monitor, record):
            for _ in range(17):
                monitor.step()
            assert [_read(row, "sys.device_bytes") for row in record.rows] == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([True, False], (2.0, 0.5, 0.5)),
        (np.array([True, False]), (2.0, 0.5, 0.5)),
        (torch.tensor([True, False]), (2.0, 0.5, 0.5)),
        ([0, 1], (2.0, 0.5, 0.5)),
        ([], Status.UNDEFINED),
        (["yes"], Status.DTYPE),
        (None, Status.NOT_CALLED),
    ],
)
def test_truncated_takes_whatever_an_environment_gives(given: Any, expected: Any) -> None:
    """Python's booleans, numpy's, a tensor; no finished episode is not 0 truncations."""
    assert finished(truncated=given)["episode.truncated"] == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_lengths_and_evaluation_returns_are_moments(bad: float) -> None:
    """One number or several; what is not finite stays so."""
    row = finished(episode_lengths=np.array([3, 5]), eval_return=2.5)
    assert row["episode.length"] == (2.0, 4.0, 2.0)
    assert row["episode.eval_return"] == (1.0, 2.5, 0.0)
    assert row["episode.return"] is Status.NOT_CALLED
    assert not math.isfinite(finished(eval_return=[1.0, bad])["episode.eval_return"][1])


def test_lengths_make_no_table_of_returns() -> None:
    """The table of raw numbers is that of returns alone."""
    with monitoring() as (monitor, record):
        monitor.step(episode_lengths=[3, 5], episode_returns=[1.0])
        assert record.table("episodes") == {"0": {"return": 1.0}}


class Told:
    """What is told of pauses: name, number, whether it is over, seconds."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int, bool, float]] = []
        self.times = PhaseTimes(lambda pause, over, ns: self.said.append((pause.name, pause.n, over, ns / 1e9)))


SECOND = 1_000_000_000


def test_pause_shorter_than_a_second_is_not_told_of(clock: Clock) -> None:
    """A trainer that saves at every update would double its records."""
    told = Told()
    with Phase(told.times, "checkpoint"):
        clock.ns += SECOND - 1
        told.times.tell_pause(1, clock.ns)
    assert told.said == []


def test_phases_that_updates_are_made_of_are_not_told_of(clock: Clock) -> None:
    """A long rollout is what the rhythm is learned from."""
    told = Told()
    for name in ("rollout", "update"):
        with Phase(told.times, name):
            clock.ns += 60 * SECOND
            told.times.tell_pause(1, clock.ns)
    assert told.said == []


def test_pause_that_lasts_is_told_once_on_each_connection_and_at_its_end(clock: Clock) -> None:
    """A daemon that came back meanwhile hears of it; one inside another is a part of it; an exception ends it too."""
    told = Told()

    def evaluate() -> None:
        clock.ns += SECOND
        for connection in (1, 1, 2):
            told.times.tell_pause(connection, clock.ns)
        with Phase(told.times, "checkpoint"):
            clock.ns += SECOND
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Phase(told.times, "eval"):
        evaluate()
    with Phase(told.times, "eval"):
        clock.ns += 3 * SECOND
    assert told.said == [("eval", 1, False, 1.0), ("eval", 1, False, 1.0), ("eval", 1, True, 2.0), ("eval", 2, True, 3.0)]


def test_pause_whose_begin_is_interrupted_does_not_go_on(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C within the `with` line itself: Python calls no end of a block whose begin raised."""
    told = Told()
    begin = PhaseTimes.pause

    def interrupted(times: PhaseTimes, name: str, now_ns: int, holder: object) -> None:
        begin(times, name, now_ns, holder)
        raise KeyboardInterrupt

    with Phase(told.times, "eval"):
        with monkeypatch.context() as patched:
            patched.setattr(PhaseTimes, "pause", interrupted)
            with pytest.raises(KeyboardInterrupt), Phase(told.times, "checkpoint"):
                pass
        clock.ns += SECOND
    told.times.tell_pause(1, clock.ns + SECOND)
    assert told.said == [("eval", 1, True, 1.0)]


def test_pause_told_is_an_event_of_its_update() -> None:
    """With everything that the daemon needs to tell its begin from its end."""
    with monitoring() as (monitor, record):
        monitor.step()
        monitor._phases.pause("eval", time.perf_counter_ns() - 2 * SECOND, monitor)
        monitor.tell_pause(1)
        monitor._phases.resume(time.perf_counter_ns(), monitor)
        told = [event for event in record.events if event[0] == "phase"]
        assert [(update, detail["phase"], detail["n"], detail["over"]) for _, update, _, detail in told] == [
            (1, "eval", 1, False),
            (1, "eval", 1, True),
        ]
        assert told[1][2].startswith("eval ended after 2.")
