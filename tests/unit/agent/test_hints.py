"""What a trainer's author is told in the trainer's own log: each mistake once, with what was given and what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gradwatch_contracts.columns import Status
from harness.recording import monitoring, read

pytestmark = pytest.mark.usefixtures("strict")

GOOD: dict[str, Any] = {"new_logp": torch.zeros(8), "old_logp": torch.zeros(8), "values": torch.zeros(8), "loss": 1.0}


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Every line so far, without the name in front."""
    return [line.removeprefix("gradwatch: ") for line in caplog.messages]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"old_logp": torch.zeros(8, 1)}, "old_logp float32[8, 1]"),
        ({"values": torch.zeros(8, dtype=torch.int64)}, "values int64[8]"),
        ({"entropy": {"arm": torch.zeros(4)}}, "entropy dict"),
        ({"mask": torch.ones(8)}, "mask float32[8]"),
        ({"loss": torch.zeros(2)}, "loss float32[2]"),
        ({"advantages": [0.0] * 8}, "advantages list"),
    ],
)
def test_ppo_given_what_does_not_fit_is_described_once(
    wrong: dict[str, Any], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The data say only why a value is missing; which argument it was stands in the trainer's own log."""
    with monitoring() as (monitor, record):
        for _ in range(4):
            monitor.ppo(**{**GOOD, **wrong})
            monitor.step()
        assert set(read(record.rows[0]).values()) & {Status.SHAPE, Status.DTYPE}
    (line,) = said(caplog)
    assert line.startswith("ppo() was given new_logp float32[8], ")
    assert f"{named}" in line
    assert line.endswith("loss as one number, mask as bool.")


def test_rollout_with_values_and_returns_of_two_shapes_is_described_once(caplog: pytest.LogCaptureFixture) -> None:
    """[T, B] beside [T * B] is the usual slip; the rest of the call is measured."""
    with monitoring() as (monitor, record):
        for _ in range(3):
            monitor.rollout(values=torch.zeros(4, 2), returns=torch.zeros(8), observations={"image": torch.zeros(4)})
            monitor.step()
        assert read(record.rows[0])["value.error"] is Status.SHAPE
    (line,) = said(caplog)
    assert "values float32[4, 2], returns float32[8], observations dict;" in line


def test_calls_that_fit_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A minibatch that is shorter than the others is no mistake, nor is a value that is missing for another reason."""
    with monitoring() as (monitor, _):
        for size in (8, 8, 3):
            monitor.rollout(rewards=torch.zeros(4), values=torch.zeros(4), returns=torch.zeros(4))
            monitor.ppo(new_logp=torch.zeros(size), old_logp=torch.zeros(size), entropy=0.5, clip=0.2)
            monitor.step(episode_returns=[])
    assert said(caplog) == []


def late(updates: int, caplog: pytest.LogCaptureFixture, **settings: Any) -> list[str]:
    """What is said of a trainer that steps its optimizer before it calls `ppo`."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with monitoring(modules=(model,), optimizers=(optimizer,), **settings) as (monitor, _):
        for _ in range(updates):
            loss = model(torch.ones(4, 2)).mean()
            loss.backward()
            optimizer.step()
            monitor.ppo(new_logp=torch.zeros(4), old_logp=torch.zeros(4), loss=loss)
            monitor.step()
    return said(caplog)


def test_ppo_after_the_optimizer_step_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The probe of the first minibatch is then blind, and nobody would know why."""
    (line,) = late(4, caplog)
    assert "rollout_mismatch stays blind. Call mon.ppo() before optimizer.step()." in line


def test_ppo_after_one_warm_up_step_or_off_policy_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Once is no habit, and an off-policy trainer has no first minibatch."""
    assert late(1, caplog) == []
    assert late(4, caplog, off_policy=True) == []


@pytest.mark.parametrize("update_start", [0, 300])
def test_close_without_any_step_says_that_all_was_one_update(update_start: int, caplog: pytest.LogCaptureFixture) -> None:
    """Else a run of one partial row is all that its author sees."""
    with monitoring(update_start=update_start) as (monitor, record):
        monitor.ppo(**GOOD)
        monitor.ppo(**GOOD)
    assert said(caplog) == ["step() was never called, so all is one update. Call mon.step() after each update."]
    assert len(record.rows) == 1


def test_close_after_a_step_or_without_any_call_or_by_an_exception_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A run may end anywhere in an update, and a crash in the first one is another story."""
    with monitoring() as (monitor, _):
        monitor.step()
        monitor.ppo(**GOOD)
    with monitoring():
        pass
    with monitoring() as (monitor, _):
        monitor.ppo(**GOOD)
        monitor.close_with(RuntimeError("out of memory"), "exception")
    assert said(caplog) == []
