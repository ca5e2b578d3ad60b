"""What several suites share: a store of each implementation, a pipeline, and the command line in front of a scripted daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.command_line import CommandLine
from harness.daemon_stub import DaemonStub
from harness.stores import PLACES, Opened
from harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gradwatch_daemon.store.protocol import Store, StoreReader


@pytest.fixture(params=sorted(PLACES))
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """One implementation in an empty place."""
    subject = Opened(PLACES[request.param](tmp_path))
    yield subject
    subject.store.close()


@pytest.fixture
def store(opened: Opened) -> Store:
    """The store itself."""
    return opened.store


@pytest.fixture
def reader(opened: Opened) -> Iterator[StoreReader]:
    """A reader of it."""
    reading = opened.store.reader()
    yield reading
    reading.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A daemon's pipeline on an empty directory."""
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def stub() -> Iterator[DaemonStub]:
    """A daemon that answers what a test scripts."""
    with DaemonStub() as running:
        yield running


@pytest.fixture
def gradwatch(
    stub: DaemonStub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> CommandLine:
    """The command line pointed at the stub."""
    return CommandLine(monkeypatch, capsys, tmp_path, stub)
