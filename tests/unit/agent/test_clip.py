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


PUBLIC = (nn.utils.get_total_norm, nn.utils.clip_grads_with_norm_, nn.utils.clip_grad_value_)
"""As a script holds them that imported them early."""


def true_norm(network: nn.Module) -> float:
    """Of all gradients."""
    return float(torch.cat([gradient.reshape(-1) for gradient in gradients(network)]).norm())


@pytest.mark.parametrize("generated", [False, True])
def test_clip_in_two_calls_is_seen_before_it_scales(generated: bool) -> None:
    """Torch's public pair, by names that were imported before the monitor was there."""
    total, scale, _ = PUBLIC
    network, expected = model(), model()
    norm = true_norm(network)
    with monitoring(modules=(network,)) as (monitor, record):
        for one in (network, expected):
            with torch.no_grad():
                known = total([parameter.grad for parameter in one.parameters()])
            scale(one.parameters() if generated else list(one.parameters()), 0.1, known)
        monitor.step()
        assert record.last["grad.norm"] == pytest.approx((1.0, norm, 0.0), rel=1e-6)
        assert record.last["grad.clip_limit"] == 0.1
        assert record.last["grad.clipped"] == 1.0
    assert all(map(torch.equal, gradients(network), gradients(expected)))


def test_clip_by_a_norm_of_the_trainers_own_is_measured_before_it_scales() -> None:
    """Such as one over all ranks: ours is that of these gradients."""
    network = model()
    norm = true_norm(network)
    with monitoring(modules=(network,)) as (monitor, record):
        PUBLIC[1](network.parameters(), 0.1, torch.tensor(1000.0))
        monitor.step()
        assert record.last["grad.norm"] == pytest.approx((1.0, norm, 0.0), rel=1e-6)
        assert record.last["grad.clip_limit"] is Status.UNDEFINED


@pytest.mark.parametrize("generated", [False, True])
def test_clip_by_value_is_measured_before_it_clips(generated: bool) -> None:
    """It leaves other gradients behind; there is no norm that it allows."""
    network, expected = model(), model()
    norm = true_norm(network)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    PUBLIC[2](expected.parameters(), 0.01)
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        PUBLIC[2](network.parameters() if generated else list(network.parameters()), 0.01)
        assert all(map(torch.equal, gradients(network), gradients(expected)))
        optimizer.step()
        monitor.step()
        assert record.last["grad.norm"] == pytest.approx((1.0, norm, 0.0), rel=1e-6)
        assert record.last["grad.clip_limit"] is Status.UNDEFINED


@pytest.mark.parametrize("value", [1e12, math.inf])
def test_gradients_that_no_clip_covers_are_measured_at_the_step(value: float) -> None:
    """One optimizer of an actor and a critic, of which the actor alone is clipped: a part does not pass for the whole."""
    actor, critic = nn.Linear(3, 2), nn.Linear(3, 1)
    both = nn.ModuleList([actor, critic])
    optimizer = torch.optim.SGD(both.parameters(), 0.0)
    with monitoring(modules=(both,), optimizers=(optimizer,)) as (monitor, record):
        for _ in range(2):
            for part in (actor, critic):
                optimizer.zero_grad()
                (actor(torch.ones(4, 3)).sum() + critic(torch.ones(4, 3)).sum()).backward()
                critic.weight.grad.fill_(value)  # type: ignore[union-attr]
                clip_grad_norm_(actor.parameters(), 0.5)
                if part is critic:  # both are clipped, one after the other: nothing is left
                    critic.weight.grad.fill_(1.0)  # type: ignore[union-attr]
                    clip_grad_norm_(critic.parameters(), 0.5)
                optimizer.step()
            monitor.step()
            assert record.last["grad.norm"][0] == 4.0
            assert record.last["grad.norm.nonfinite"] == math.isinf(value)
            assert record.last["grad.exploding"] == 5.0  # both tensors of the actor are, too, each time
            if math.isfinite(value):
                assert record.last["grad.norm.max"] == pytest.approx(value * math.sqrt(3))


def test_clip_functions_are_torchs_own_again_after_the_last_monitor() -> None:
    """What stood in their closures is gone as well."""
    before = [function.__closure__[0].cell_contents for function in PUBLIC]  # type: ignore[attr-defined]
    with monitoring(modules=(model(),)):
        assert all(
            function.__closure__[0].cell_contents is not inner  # type: ignore[attr-defined]
            for function, inner in zip(PUBLIC, before, strict=True)
        )
    assert [function.__closure__[0].cell_contents for function in PUBLIC] == before  # type: ignore[attr-defined]
