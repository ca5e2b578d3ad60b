"""Agent tests run strict: an own error that production swallows must fail them. A test of the swallowing says so itself."""

from __future__ import annotations

import gc
import logging
import os
import threading
from typing import TYPE_CHECKING

import pytest

from harness.router import FakeDaemon, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.adapters import Watching


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own errors are raised."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")


@pytest.fixture(autouse=True)
def no_start_up_line() -> Iterator[None]:
    """A test counts the lines it is about; those of the start-up line turn it on."""
    logger = logging.getLogger("gradwatch.start")
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(logging.NOTSET)


def _descriptors() -> set[str]:
    return {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")}


@pytest.fixture
def nothing_leaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No thread, socket or event descriptor outlives a test."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    gc.collect()
    sockets = sum("socket" in name or "event" in name for name in _descriptors())
    yield
    gc.collect()
    left = [thread.name for thread in threading.enumerate() if thread.name in ("gradwatch-link", "fake-daemon")]
    assert left == []
    eventually(lambda: sum("socket" in name or "event" in name for name in _descriptors()) <= sockets, "all sockets closed")


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    """An ipc endpoint nobody listens at yet."""
    return f"ipc://{tmp_path}/ingest.sock"


@pytest.fixture
def daemon(endpoint: str) -> Iterator[FakeDaemon]:
    """A daemon that answers."""
    with FakeDaemon(endpoint) as running:
        yield running


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Watching:
    """Stable-Baselines3 watched into a record: own errors are raised, nothing is sent, and logs lie in `tmp_path`."""
    from gradwatch_agent.adapters import sb3
    from harness.adapters import Watching

    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path / "logs"))
    found = Watching()
    monkeypatch.setattr(sb3, "watch", found)
    return found
