"""The trainer's numbers are the same bits with and without the agent."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gradwatch_agent import watch
from harness.ppo_run import train

if TYPE_CHECKING:
    from pathlib import Path

UPDATES = 3


@cache
def alone(clip: bool) -> list[torch.Tensor]:
    """The trainer without the agent."""
    return train(UPDATES, None, clip)


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    """Equal bit for bit, the state of the random generator included."""
    return len(left) == len(right) and all(map(torch.equal, left, right))


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own errors are raised; closing does not wait for a daemon that is not there."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    monkeypatch.setattr("gradwatch_contracts.limits.CLOSE_S", 0.01)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("level", ["off", "minimal", "normal", "debug"])
def test_final_parameters_with_agent_and_no_daemon_are_bit_identical(tmp_path: Path, level: str, clip: bool) -> None:
    """At every level, with clipping and with norms from the optimizer hook."""

    def watched(model: Any, optimizer: Any) -> Any:
        return watch(model, optimizer, run="bits", endpoint=f"ipc://{tmp_path}/none", level=level)

    assert same(train(UPDATES, watched, clip), alone(clip))


def test_bit_comparison_sees_a_trainer_that_was_touched(tmp_path: Path) -> None:
    """The comparison above can fail: one random number drawn is enough."""

    def touching(model: Any, optimizer: Any) -> Any:
        torch.rand(1)
        return watch(model, optimizer, run="touched", endpoint=f"ipc://{tmp_path}/none")

    assert not same(train(UPDATES, touching), alone(True))
