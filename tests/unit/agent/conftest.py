"""Agent tests run strict: an own error that production swallows must fail them. A test of the swallowing says so itself."""

from __future__ import annotations

import pytest


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own errors are raised."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
