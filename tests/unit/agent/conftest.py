"""Agent tests run strict: an own error that production swallows must fail them. A test of the swallowing says so itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


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
