"""The clip hook: bit-identical, seen by early importers, gone without a trace."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad, clip_grad_norm_

from gradwatch_agent.device.clip import CLIP_WATCH, PARAMETERS, ClipWatch
from gradwatch_contracts.columns import Status
from harness.recording import monitoring

pytestmark = pytest.mark.usefixtures("strict")

ORIGINALS = {name: getattr(clip_grad, name) for name in PARAMETERS}


def model(seed: int = 0) -> nn.Module:
    """A small network with gradients."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    network(torch.randn(5, 3)).square().sum().backward()
    return network


def gradients(network: nn.Module) -> list[torch.Tensor]:
    """Copies of all gradients."""
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def is_original() -> bool:
    """Whether torch has its own functions."""
    return all(getattr(clip_grad, name) is original for name, original in ORIGINALS.items())


@pytest.mark.parametrize("foreach", [None, True, False])
@pytest.mark.parametrize("max_norm", [1e-3, 0.5, 1e9])
@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf])
def test_clip_while_watched_changes_no_bit(foreach: bool | None, max_norm: float, norm_type: float) -> None:
    """Gradients and return value, with every way to clip."""
    expected = model()
    total = clip_grad_norm_(expected.parameters(), max_norm, norm_type, foreach=foreach)
    watched = model()
    with monitoring(modules=(watched,)):
        assert not is_original()
        got = clip_grad_norm_(watched.parameters(), max_norm, norm_type, foreach=foreach)
    assert torch.equal(got, total)
    assert all(map(torch.equal, gradients(watched), gradients(expected)))


def test_clip_norm_is_recorded_before_clipping() -> None:
    """The norm that clipping computed and dropped, with the minibatch it belongs to."""
    network = model()
    norm = float(torch.stack([grad.norm() for grad in gradients(network)]).norm())
    with monitoring(modules=(network,)) as (monitor, record):
        clip_grad_norm_(network.parameters(), norm / 2)
        clip_grad_norm_(network.parameters(), norm * 2)
        monitor.step()
        assert record.last["grad.norm"] == pytest.approx((2, 0.75 * norm, norm**2 / 8), rel=1e-5)
        assert record.last["grad.norm.max"] == pytest.approx(norm)
        assert record.last["grad.clipped"] == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_clip_of_nonfinite_gradients_is_counted(value: float) -> None:
    """The first minibatch whose gradients broke."""
    network = model()
    with monitoring(modules=(network,)) as (monitor, record):
        for minibatch in range(3):
            monitor.ppo()
            if minibatch == 1:
                next(network.parameters()).grad.fill_(value)  # type: ignore[union-attr]
            clip_grad_norm_(network.parameters(), 0.5)
        monitor.step()
        assert record.last["grad.norm.nonfinite"] == 2.0
        assert record.last["grad.norm.nonfinite_mb"] == 1.0
        assert not math.isfinite(record.last["grad.norm.max"])


def test_clip_of_another_norm_measures_the_l2_norm_before_clipping() -> None:
    """`norm_type=inf` clips by another number; how many steps it clipped is then not defined."""
    network = model()
    norm = float(torch.stack([grad.norm() for grad in gradients(network)]).norm())
    with monitoring(modules=(network,)) as (monitor, record):
        clip_grad_norm_(network.parameters(), 1e-6, norm_type=math.inf)
        monitor.step()
        assert record.last["grad.norm"] == pytest.approx((1, norm, 0.0), rel=1e-6)
        assert record.last["grad.clipped"] is Status.UNDEFINED


def test_clip_without_any_gradient_says_so() -> None:
    """torch's norm of nothing is 0.0, which would pass for a healthy small gradient."""
    network = nn.Linear(2, 2)
    with monitoring(modules=(network,)) as (monitor, record):
        clip_grad_norm_(network.parameters(), 0.5)
        monitor.step()
        assert record.last["grad.norm"] is Status.NO_GRADIENT


def test_clip_of_unwatched_parameters_is_not_recorded() -> None:
    """Another model of the same process is none of our business."""
    with monitoring(modules=(model(),)) as (monitor, record):
        clip_grad_norm_(model(1).parameters(), 0.5)
        monitor.step()
        assert record.last["grad.norm"] is Status.NOT_CALLED


def test_clip_of_one_parameter_alone_is_seen() -> None:
    """A tensor instead of a list."""
    network = model()
    with monitoring(modules=(network,)) as (monitor, record):
        clip_grad_norm_(next(network.parameters()), 0.5)
        monitor.step()
        assert record.last["grad.norm"][0] == 1.0


def test_clip_with_error_if_nonfinite_still_raises() -> None:
    """What the trainer asked torch for is the trainer's."""
    network = model()
    next(network.parameters()).grad.fill_(math.nan)  # type: ignore[union-attr]
    with monitoring(modules=(network,)), pytest.raises(RuntimeError, match="non-finite"):
        clip_grad_norm_(network.parameters(), 0.5, error_if_nonfinite=True)


def test_clip_hook_is_gone_after_the_last_monitor() -> None:
    """Two monitors, closed one after the other."""
    with monitoring(modules=(model(),)):
        with monitoring(modules=(model(1),)):
            assert not is_original()
        assert not is_original()
    assert is_original()
    assert CLIP_WATCH._watched == {}
    assert CLIP_WATCH.last is None


def test_clip_hook_wrapped_by_somebody_else_passes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restoring would remove the other's hook; ours stays and does nothing."""
    with monitoring(modules=(model(),)):
        ours = clip_grad._get_total_norm
        monkeypatch.setattr(clip_grad, "_get_total_norm", ours)
    network, expected = model(), model()
    clip_grad_norm_(network.parameters(), 0.1)
    monkeypatch.undo()
    for name, original in ORIGINALS.items():
        setattr(clip_grad, name, original)
    CLIP_WATCH.__init__()  # type: ignore[misc]
    clip_grad_norm_(expected.parameters(), 0.1)
    assert all(map(torch.equal, gradients(network), gradients(expected)))


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_clip_hook_on_another_torch_is_not_placed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A function with another signature is left alone; gradient norms then come from the optimizer hook."""

    def other(tensors: Any, order: int) -> None: ...

    monkeypatch.setattr(clip_grad, name, other)
    assert not ClipWatch().watch([torch.zeros(1)], None)  # type: ignore[arg-type]
    assert getattr(clip_grad, name) is other


def test_clip_inside_a_compiled_function_is_passed_through() -> None:
    """Dynamo traces the wrapper: it must vanish from the graph and leave the numbers alone."""
    network, expected = model(), model()
    total = clip_grad_norm_(expected.parameters(), 0.1)
    with monitoring(modules=(network,)) as (monitor, record):
        parameters = list(network.parameters())
        compiled = torch.compile(lambda: clip_grad_norm_(parameters, 0.1), backend="eager")
        assert torch.equal(compiled(), total)
        monitor.step()
        assert record.last["grad.norm"] is Status.NOT_CALLED
    assert all(map(torch.equal, gradients(network), gradients(expected)))
