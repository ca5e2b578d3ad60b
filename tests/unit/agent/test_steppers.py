"""Optimizers that take another's place: nothing false is told of the one update in which they are not known."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import optimizer as optimizer_module

from gradwatch_agent import watch
from gradwatch_contracts.columns import RowFlag, Status
from harness.recording import monitoring

if TYPE_CHECKING:
    from pathlib import Path

    from gradwatch_agent import Monitor

pytestmark = pytest.mark.usefixtures("strict")


def network() -> nn.Sequential:
    """Two layers."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))


def train(monitor: Monitor, model: nn.Module, *optimizers: torch.optim.Optimizer, clips: bool = True) -> None:
    """An update of three minibatches, each stepped by all optimizers."""
    for _ in range(3):
        loss = model(torch.randn(8, 4)).square().mean()
        monitor.ppo(loss=loss)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        if clips:
            clip_grad_norm_(model.parameters(), 0.5)
        for optimizer in optimizers:
            optimizer.step()
    monitor.step()


def told(row: dict[str, Any]) -> tuple[Any, Any, Any]:
    """What a row says of the optimizer."""
    return row["opt.steps"], row["opt.skipped"], row["opt.lr"]


@pytest.mark.parametrize("clips", [True, False])
def test_replaced_optimizer_is_found_within_an_update(clips: bool) -> None:
    """The update in which nobody knows it says so; the next one counts its steps, and the first optimizer is let go."""
    model = network()
    first = torch.optim.Adam(model.parameters(), 1e-3)
    gone = weakref.ref(first)
    with monitoring(modules=(model,), optimizers=(first,)) as (monitor, record):
        train(monitor, model, first, clips=clips)
        assert told(record.last) == (3.0, 0.0, 1e-3)
        del first
        second = torch.optim.SGD(model.parameters(), 0.25)
        train(monitor, model, second, clips=clips)
        assert told(record.last) == (Status.UNDEFINED,) * 3
        assert not record.rows[-1].flags & RowFlag.SKIPPED
        for _ in range(2):
            train(monitor, model, second, clips=clips)
            assert told(record.last) == (3.0, 0.0, 0.25)
            assert record.last["grad.norm"][0] == 3.0
    assert gone() is None
    assert not optimizer_module._global_optimizer_pre_hooks
    assert not second._optimizer_step_pre_hooks


def test_optimizer_of_another_model_is_left_alone() -> None:
    """It steps beside the new one while that is looked for."""
    model, other = network(), nn.Linear(2, 2)
    first, second = torch.optim.SGD(model.parameters(), 0.1), torch.optim.SGD(model.parameters(), 0.2)
    theirs = torch.optim.SGD(other.parameters(), 0.3)
    with monitoring(modules=(model,), optimizers=(first,)) as (monitor, record):
        for optimizer in (first, second, second):
            train(monitor, model, theirs, optimizer)
        assert told(record.last) == (3.0, 0.0, 0.2)
        assert not theirs._optimizer_step_pre_hooks
        train(monitor, model, second)
        assert not optimizer_module._global_optimizer_pre_hooks


def test_weights_that_were_loaded_are_no_step() -> None:
    """Nobody stepped, and it is not said that nothing could have; then all is as before."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
        monitor.step()
        assert told(record.last) == (Status.UNDEFINED,) * 3
        train(monitor, model, optimizer)
        assert told(record.last) == (3.0, 0.0, 0.1)
        assert not optimizer_module._global_optimizer_pre_hooks


def test_update_without_a_step_is_still_one_without() -> None:
    """Nothing moved: what GradScaler does when it skips is not taken for a stranger's step."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        train(monitor, model)
        assert record.last["opt.steps"] == 0.0
        assert record.last["opt.skipped"] == 1.0  # one gradient, accumulated


def test_watch_again_with_a_new_optimizer_knows_it_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same monitor; what else is said differently this time is not taken, and that is told."""
    model = network()
    first, second = torch.optim.SGD(model.parameters(), 0.1), torch.optim.SGD(model.parameters(), 0.2)
    with (
        caplog.at_level(logging.WARNING, "gradwatch"),
        watch(model, first, run="again", endpoint=f"ipc://{tmp_path}/none") as monitor,
    ):
        assert watch(model, first, run="again") is monitor
        assert caplog.messages == []
        assert watch(model, second, run="again", updates_total=7) is monitor
        assert "run 'again' is watched already: of this watch() only the optimizers are taken" in caplog.text
        assert not first._optimizer_step_pre_hooks
        assert len(second._optimizer_step_pre_hooks) == 1
