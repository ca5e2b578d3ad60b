"""Profiles asked for by a command: refused, failed, taken back or sent whole, and never a file left behind."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gradwatch_agent.outbox import Outbox
from gradwatch_agent.uploads import CHUNK, Upload
from gradwatch_contracts import limits
from gradwatch_contracts.control import CANCEL
from gradwatch_contracts.messages import Artifact, Command, Result
from harness.recording import monitoring
from harness.router import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gradwatch_agent import Monitor


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def traced() -> Iterator[tuple[Monitor, Any]]:
    """A monitor of a model, which can be profiled."""
    with monitoring(modules=(torch.nn.Linear(2, 2),)) as (monitor, record):
        yield monitor, record


def updates(monitor: Monitor, count: int) -> None:
    """Updates with something to record."""
    for _ in range(count):
        torch.ones(4, 4) @ torch.ones(4, 4)
        monitor.step()


def ask(monitor: Monitor, **args: Any) -> None:
    """A command, begun."""
    monitor.actions.commands.receive(Command("p1", "profile", args))
    monitor.step()


def sent(record: Any) -> list[Artifact | Result]:
    """What the uploads hold, as the link thread would number it."""
    eventually(lambda: record._uploads or record.results[-1][1] == "rejected", "the trace to be packed")
    found: list[Artifact | Result] = []
    while record._uploads:
        found += record._uploads[0].next()
        if record._uploads[0].done:
            record._uploads.popleft()
    return found


def test_profile_without_torch_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no profiler."""
    monkeypatch.delitem(__import__("sys").modules, "torch")
    with monitoring() as (monitor, _):
        assert "profile" not in monitor.actions.verbs.names


@pytest.mark.parametrize("count", [0, -1, limits.PROFILE_UPDATES_MAX + 1, "3", True])
def test_profile_of_no_or_too_many_updates_is_rejected(traced: tuple[Monitor, Any], folder: Path, count: object) -> None:
    """By the trainer too, whatever the daemon let through."""
    monitor, record = traced
    ask(monitor, updates=count)
    assert record.results[-1][:2] == ("p1", "rejected")
    assert "from 1 to 100" in record.results[-1][3]
    assert list(folder.glob("gradwatch-*")) == []


def test_profile_beside_the_trainers_own_is_rejected_and_leaves_that_alone(
    traced: tuple[Monitor, Any], folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One at a time in a process."""
    monitor, record = traced
    own = monitor.profile(1, tmp_path_factory.mktemp("own"))
    ask(monitor, updates=1)
    updates(monitor, 3)
    assert record.results[-1][:2] == ("p1", "rejected")
    assert own.state == "written"
    assert list(folder.glob("gradwatch-*")) == []


def test_profile_with_an_empty_trace_has_failed(
    traced: tuple[Monitor, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without events is no evidence."""
    monkeypatch.setattr("torch.profiler.profile.events", lambda self: [])
    monitor, record = traced
    ask(monitor, updates=1)
    updates(monitor, 3)
    assert record.results[-1] == ("p1", "rejected", 2, "failed: the trace is empty")
    assert list(folder.glob("gradwatch-*")) == []


def test_profile_too_large_has_failed_and_says_what_to_do(
    traced: tuple[Monitor, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cap is for what is sent."""
    monkeypatch.setattr(limits, "ARTIFACT_BYTES_MAX", 10)
    monitor, record = traced
    ask(monitor, updates=1)
    updates(monitor, 3)
    assert sent(record) == []
    assert record.results[-1][:2] == ("p1", "rejected")
    assert "record fewer updates" in record.results[-1][3]
    assert list(folder.glob("gradwatch-*")) == []


def test_profile_taken_back_or_cut_short_sends_nothing(traced: tuple[Monitor, Any], folder: Path) -> None:
    """And leaves no file; at the end of the trainer it has failed."""
    monitor, record = traced
    ask(monitor, updates=50)
    updates(monitor, 2)
    monitor.actions.commands.receive(Command("p1", CANCEL))
    monitor.step()
    assert record.results[-1][:2] == ("p1", "ended")
    assert list(folder.glob("gradwatch-*")) == []
    monitor.actions.commands.receive(Command("p2", "profile", {"updates": 50}))
    updates(monitor, 2)
    monitor.close()
    assert record.results[-1] == ("p2", "rejected", monitor.update, "failed: the trainer ended first")
    record.discard()  # as the link does when it ends
    eventually(lambda: list(folder.glob("gradwatch-*")) == [], "the file to be removed")


def test_profile_comes_as_chunks_and_then_its_end(traced: tuple[Monitor, Any], folder: Path) -> None:
    """Of the updates after the running one; the result stands behind the last chunk."""
    monitor, record = traced
    ask(monitor, updates=2)
    assert record.results == [("p1", "applied", 1, "")]
    updates(monitor, 4)
    *chunks, result = sent(record)
    assert isinstance(result, Result)
    assert (result.state, result.reason.split(",")[0]) == ("ended", "updates 2 to 3")
    assert {chunk.name for chunk in chunks} == {"trace-test-updates-2-3.json.gz"}
    data = b"".join(chunk.data for chunk in chunks if isinstance(chunk, Artifact))
    assert "aten::mm" in str(json.loads(gzip.decompress(data))["traceEvents"])
    assert list(folder.glob("gradwatch-*")) == []


def test_upload_goes_one_chunk_at_a_time_and_its_end_only_once(tmp_path: Path) -> None:
    """Never more than one chunk in memory; numbered like any record, the result behind the last."""
    (tmp_path / "up").mkdir()
    path = tmp_path / "up" / "file"
    path.write_bytes(bytes(range(256)) * (CHUNK // 128))
    outbox, finished = Outbox(), iter([True])
    outbox.put_upload(Upload(str(path), "f", Result(0, "c", "ended", 7, "done"), lambda: next(finished)))
    found = []
    for _ in range(4):
        messages = outbox.take(100)
        assert sum(isinstance(message, Artifact) for message in messages) <= 1
        assert outbox.take(100) == []
        found += messages
        outbox.ack(outbox.last_seq)
    assert [(m.seq, m.index, m.count, len(m.data)) for m in found if isinstance(m, Artifact)] == [
        (0, 0, 2, CHUNK),
        (1, 1, 2, CHUNK),
    ]
    assert isinstance(found[-1], Result)
    assert not (tmp_path / "up").exists()


def test_upload_whose_file_is_gone_has_failed(tmp_path: Path) -> None:
    """Somebody cleaned the temporary directory."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    upload = Upload(str(path), "f", Result(0, "c", "ended", 7, "done"), lambda: True)
    path.unlink()
    (failed,) = upload.next()
    assert isinstance(failed, Result)
    assert (failed.state, upload.done) == ("rejected", True)


def _paused(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    told: list[tuple[str, bool]] = []

    def put_event(kind: str, update: int, t_ns: int, text: str, detail: Any) -> None:
        if kind == "phase":
            told.append((detail["phase"], detail["over"]))

    monkeypatch.setattr(monitor._outbox, "put_event", put_event)
    return told


def test_profile_is_a_pause_from_its_begin_until_its_trace_is_written(
    traced: tuple[Monitor, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short: the daemon must not take our own capture for a trainer that stands still."""
    monitor, _ = traced
    told = _paused(monitor, monkeypatch)
    ask(monitor, updates=2)
    updates(monitor, 1)
    assert told == [("profile", False)]
    updates(monitor, 3)
    assert told == [("profile", False), ("profile", True)]


def test_profile_of_the_trainer_that_is_cut_short_ends_its_pause(
    traced: tuple[Monitor, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next update at the latest."""
    monitor, _ = traced
    told = _paused(monitor, monkeypatch)
    with monitor.profile(9, tmp_path):
        updates(monitor, 2)
    updates(monitor, 1)
    assert told == [("profile", False), ("profile", True)]
