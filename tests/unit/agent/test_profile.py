"""`mon.profile`: whole updates in a trace, and every way not to get one said clearly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gradwatch_agent.collect import profile as profile_module
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.limits import PROFILE_UPDATES_MAX
from harness.recording import Record, monitoring

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("strict")


def work(size: int) -> torch.Tensor:
    """One operator that the trace can be searched for."""
    return torch.ones(size, size) @ torch.ones(size, size)


def notes(record: Record) -> list[dict[str, Any]]:
    """Details of the events about profiles."""
    return [event[3] for event in record.events if event[0] == "note"]


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[tuple[Any, Record, Path]]:
    """A monitor, its record and where traces go."""
    with monitoring() as (made, record):
        yield made, record, tmp_path / "deep" / "er"


def test_profile_directory_that_cannot_be_made_is_refused(monitor: Any) -> None:
    """A file is in the way: which directory, and why; training goes on without a profiler."""
    mon, record, directory = monitor
    directory.parent.mkdir(parents=True)
    directory.write_text("in the way")
    for path in (directory, directory / "below"):
        with pytest.raises(GradwatchError) as refused:
            mon.profile(directory=path)
        assert "profile(directory)" in str(refused.value)
        assert str(path) in str(refused.value)
    mon.step()
    assert notes(record) == []


@pytest.mark.parametrize("directory", [None, "", 3, b""])
def test_profile_directory_that_is_none_is_refused(monitor: Any, directory: Any) -> None:
    """Not a path at all."""
    with pytest.raises(GradwatchError, match="directory"):
        monitor[0].profile(directory=directory)


@pytest.mark.parametrize("updates", [0, -1, 1.5, True, "3", PROFILE_UPDATES_MAX + 1])
def test_profile_of_a_wrong_number_of_updates_is_refused(monitor: Any, updates: Any) -> None:
    """Before anything is made."""
    with pytest.raises(GradwatchError, match="updates"):
        monitor[0].profile(updates=updates, directory=monitor[2])
    assert not monitor[2].exists()


def test_profile_records_the_next_whole_updates(monitor: Any) -> None:
    """The rest of the running one is warm-up; the trace is whole, named by its updates, and told of."""
    mon, record, directory = monitor
    mon.step()
    capture = mon.profile(updates=2, directory=directory)
    for size in range(10, 15):
        work(size)
        mon.step()
    assert (capture.state, capture.reason) == ("written", "")
    assert capture.path.parent == directory
    assert capture.path.name.endswith("updates-2-3.json")
    events = json.loads(capture.path.read_text())["traceEvents"]
    assert len([event for event in events if event.get("name") == "aten::mm"]) == 2
    assert [detail["profile"] for detail in notes(record)] == ["written"]
    assert notes(record)[0]["bytes"] == capture.path.stat().st_size
    assert len(list(directory.iterdir())) == 1


def test_profile_as_context_ends_with_the_block(monitor: Any) -> None:
    """What was recorded by then is written."""
    mon, _, directory = monitor
    with mon.profile(updates=50, directory=directory) as capture:
        for _ in range(3):
            work(10)
            mon.step()
        assert capture.running
    assert capture.state == "written"
    mon.step()


def test_profile_without_a_recorded_update_is_reported_as_failed(monitor: Any) -> None:
    """Left before the first whole update: no file, and the event says so."""
    mon, record, directory = monitor
    with mon.profile(directory=directory) as capture:
        work(10)
    assert capture.state == "failed"
    assert capture.path is None
    assert notes(record) == [{"profile": "failed", "reason": capture.reason}]
    assert list(directory.iterdir()) == []


def test_profile_that_is_empty_is_reported_as_failed(monitor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profiler without events is a profiler that did not work."""
    monkeypatch.setattr(profile_module.profiler.profile, "events", lambda self: [])
    mon, _, directory = monitor
    capture = mon.profile(updates=1, directory=directory)
    mon.step()
    mon.step()
    assert (capture.state, capture.reason) == ("failed", "the trace is empty")
    assert list(directory.iterdir()) == []


def test_profile_that_cannot_be_written_is_reported_and_does_not_raise(monitor: Any) -> None:
    """The disk is gone when the capture ends: training must not suffer."""
    mon, record, directory = monitor
    capture = mon.profile(updates=1, directory=directory)
    directory.rmdir()
    directory.write_text("in the way")
    work(10)
    mon.step()
    mon.step()
    assert capture.state == "failed"
    assert "could not be written" in capture.reason
    assert [detail["profile"] for detail in notes(record)] == ["failed"]
    assert len(record.rows) == 2


def test_profile_while_another_runs_is_refused(monitor: Any) -> None:
    """One at a time; the first one is not disturbed. The trainer's own profiler comes first, too."""
    mon, _, directory = monitor
    first = mon.profile(updates=1, directory=directory)
    with pytest.raises(GradwatchError, match="profile"):
        mon.profile(updates=1, directory=directory)
    for _ in range(2):
        work(10)
        mon.step()
    assert first.state == "written"
    with torch.profiler.profile() as own:
        with pytest.raises(GradwatchError, match="profiler"):
            mon.profile(updates=1, directory=directory)
        work(10)
    assert own.events()


def test_profile_of_a_closed_monitor_is_refused(monitor: Any) -> None:
    """There will be no update."""
    mon, _, directory = monitor
    mon.close()
    with pytest.raises(GradwatchError, match="closed"):
        mon.profile(directory=directory)


def test_close_ends_a_running_profile(monitor: Any) -> None:
    """What there is, is written."""
    mon, record, directory = monitor
    capture = mon.profile(updates=9, directory=directory)
    mon.step()
    work(10)
    mon.close()
    assert capture.state == "written"
    assert notes(record)[0]["profile"] == "written"
