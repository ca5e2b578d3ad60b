"""One daemon with recorded runs and one browser for all tests of the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from harness.browser import launched
from harness.daemon_process import DaemonProcess, wait_for
from harness.recorded_trainer import RecordedTrainer, recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

CONFIG = {"lr": 3e-3, "clip": 0.2, "epochs": 4, "env": "CartPole-v1"}


@dataclass
class Fleet:
    """The daemon and its trainers: a learning rate x100 (live), a healthy run with a gap, NaN in observations (finished)."""

    daemon: DaemonProcess
    trainers: dict[str, RecordedTrainer] = field(default_factory=dict)

    def play(self, case: str, run: str, count: int | None = None, **hello: object) -> RecordedTrainer:
        """One more trainer that has sent `count` updates of a recording."""
        trainer = RecordedTrainer(recording(case), self.daemon.environment, run, config=CONFIG, **hello)  # type: ignore[arg-type]
        self.trainers[run] = trainer
        trainer.send(count)
        trainer.wait()
        return trainer


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A daemon with four runs."""
    with DaemonProcess(tmp_path_factory.mktemp("web")) as daemon:
        made = Fleet(daemon)
        made.play("P01", "ratex100", 150, group="cartpole")
        made.play(
            "plain-cartpole", "healthy", 120, group="cartpole", skip={60: "outbox full", 61: "outbox full", 62: "outbox full"}
        )
        made.play("plain-recall", "young", 5, group="recall")
        made.play("P05", "nan-obs", group="cartpole").finish()
        wait_for(lambda: daemon.run("nan-obs")["state"] == "finished", "the run to be finished")
        yield made
        for trainer in made.trainers.values():
            trainer.link.close(1.0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium. Not for the whole session: while Playwright is there, no other test can run an event loop."""
    with launched() as found:
        yield found
