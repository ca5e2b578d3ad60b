"""What `gradwatch serve` sets for its process."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest

from gradwatch_daemon import app
from gradwatch_daemon.config import load_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def untouched() -> Iterator[None]:
    """The interpreter and the log as they were."""
    interval, handlers, level = sys.getswitchinterval(), logging.root.handlers[:], logging.root.level
    yield
    sys.setswitchinterval(interval)
    logging.root.handlers[:], logging.root.level = handlers, level


@pytest.mark.usefixtures("untouched")
def test_daemon_lets_requests_have_the_interpreter_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it serves; otherwise a request waits 5 ms at each hand-over beside a busy pipeline."""
    seen: list[float] = []

    class Served:
        readable, url, ingest = False, "http://x", "ipc://x"

        def __init__(self, config: object) -> None:
            pass

        def dashboard(self) -> str:
            return "http://x/#"

        def run(self) -> int:
            seen.append(sys.getswitchinterval())
            return 7

    monkeypatch.setattr(app, "Daemon", Served)
    config = load_config({"data_dir": "d"}, {"GRADWATCH_RUNTIME_DIR": str(tmp_path / "r")}, tmp_path)
    assert app.run_daemon(config) == 7
    assert seen == [pytest.approx(app.SWITCH_S)]
