"""A store of each implementation, and a reader of it, for the suite that all of them pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.stores import PLACES, Opened

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
