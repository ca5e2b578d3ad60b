"""Optimizer steps, gradient norms without clipping, weights, learning rate."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from gradwatch_agent.collect import gradients as gradients_module
from gradwatch_agent.collect import learning_rate as learning_rate_module
from gradwatch_agent.collect import weighing as weighing_module
from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring, read

pytestmark = pytest.mark.usefixtures("strict")


def setting(lr: Any = 0.5) -> tuple[nn.Linear, torch.optim.SGD]:
    """A model with known weights and gradients: weights 3, 4, gradients 6, 8."""
    network = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[3.0, 4.0]]))
    network.weight.grad = torch.tensor([[6.0, 8.0]])
    return network, torch.optim.SGD(network.parameters(), lr=lr)


def test_gradients_without_clipping_are_measured_at_the_optimizer_step() -> None:
    """One norm per step; nothing was clipped."""
    network, optimizer = setting()
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        optimizer.step()
        optimizer.step()
        monitor.step()
        assert record.last["grad.norm"] == (2.0, 10.0, 0.0)
        assert record.last["grad.clipped"] is Status.NOT_CALLED
        assert record.last["opt.steps"] == 2.0


def test_gradients_clipped_before_the_step_are_measured_once() -> None:
    """The optimizer hook must not measure the clipped gradient as well."""
    network, optimizer = setting()
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        monitor.step()
        assert record.last["grad.norm"][:2] == (1.0, 10.0)


def test_gradients_all_none_say_so() -> None:
    """A step without a gradient is a wiring fault worth seeing."""
    network, optimizer = setting()
    network.weight.grad = None
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        optimizer.step()
        monitor.step()
        assert record.last["grad.norm"] is Status.NO_GRADIENT


def test_gradients_that_are_sparse_are_not_measured() -> None:
    """An embedding with sparse gradients: said, not guessed."""
    network = nn.Embedding(4, 2, sparse=True)
    network(torch.tensor([1])).sum().backward()
    optimizer = torch.optim.SparseAdam(network.parameters())
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        optimizer.step()
        monitor.step()
        assert record.last["grad.norm"] is Status.DTYPE


def test_gradients_of_a_fused_amp_step_are_unscaled() -> None:
    """A fused optimizer still sees scaled gradients and carries the scale."""
    network, _ = setting()
    optimizer: Any = torch.optim.SGD(network.parameters(), lr=0.5, fused=True)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(0.0)
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        optimizer.step()
        monitor.step()
        assert record.last["grad.norm"] == (1.0, 2.5, 0.0)


def test_weights_of_several_dtypes_have_one_norm() -> None:
    """bfloat16, complex, empty and float64 parameters in one model."""
    network = nn.Module()
    network.a = nn.Parameter(torch.tensor([3.0], dtype=torch.bfloat16))
    network.b = nn.Parameter(torch.tensor([0.0 + 4.0j]))
    network.c = nn.Parameter(torch.zeros(0))
    network.d = nn.Parameter(torch.tensor([12.0], dtype=torch.float64))
    with monitoring(modules=(network,)) as (monitor, record):
        monitor.step()
        assert record.last["param.norm"] == pytest.approx(13.0)
        assert record.last["param.nonfinite"] == 0.0


def test_weights_with_nan_are_counted_by_tensor() -> None:
    """Two broken tensors of three."""
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        network[0].weight.fill_(math.nan)
        network[2].weight[0, 0] = math.inf
    with monitoring(modules=(network,)) as (monitor, record):
        monitor.step()
        assert record.last["param.nonfinite"] == 2.0
        assert not math.isfinite(record.last["param.norm"])


def test_update_ratio_is_measured_at_debug_only() -> None:
    """Change of the weights over the weights after the update."""
    network, optimizer = setting(lr=0.05)
    with monitoring(modules=(network,), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, record):
        for _ in range(2):
            optimizer.step()
            monitor.step()
        weights = float(network.weight.detach().norm())
        assert record.last["opt.update_ratio"] == pytest.approx(0.5 / weights)
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        monitor.step()
        assert record.last["opt.update_ratio"] is Status.LEVEL


def test_update_ratio_of_a_large_model_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy of the weights has a bound."""
    monkeypatch.setattr(weighing_module, "COPY_BYTES_MAX", 4)
    network, _ = setting()
    with monitoring(modules=(network,), level=Level.DEBUG) as (monitor, record):
        monitor.step()
        assert record.last["opt.update_ratio"] is Status.THINNED


def test_update_ratio_of_zero_weights_is_undefined() -> None:
    """Nothing to divide by."""
    network = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(network.weight)
    with monitoring(modules=(network,), level=Level.DEBUG) as (monitor, record):
        monitor.step()
        assert record.last["opt.update_ratio"] is Status.UNDEFINED


@pytest.mark.parametrize("lr", [0.25, torch.tensor(0.25), torch.tensor([0.25], dtype=torch.float64)])
def test_learning_rate_is_that_of_the_first_group(lr: Any) -> None:
    """A number, or a tensor of one."""
    network, optimizer = setting()
    optimizer.param_groups[0]["lr"] = lr
    for level in (Level.MINIMAL, Level.NORMAL):
        with monitoring(modules=(network,), optimizers=(optimizer,), level=level) as (monitor, record):
            monitor.step()
            assert record.last["opt.lr"] == 0.25


def test_learning_rate_that_is_no_number_says_so() -> None:
    """Some trainers put a schedule there."""
    network, optimizer = setting()
    optimizer.param_groups[0]["lr"] = "linear"
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        monitor.step()
        assert record.last["opt.lr"] is Status.DTYPE


def test_update_without_minibatch_and_step_is_flagged_skipped() -> None:
    """A skipped update sends a row too, and says that it is one."""
    network, optimizer = setting()
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        monitor.step()
        optimizer.step()
        monitor.step()
        assert [row.flags for row in record.rows] == [RowFlag.SKIPPED, 0]
        assert read(record.rows[0])["opt.steps"] == 0.0


def test_hooks_are_removed_with_the_monitor() -> None:
    """The optimizer keeps no reference to us."""
    network, optimizer = setting()
    with monitoring(modules=(network,), optimizers=(optimizer,)):
        assert len(optimizer._optimizer_step_pre_hooks) == 1
    assert len(optimizer._optimizer_step_pre_hooks) == 0


def test_two_optimizers_count_their_steps_together() -> None:
    """Actor and critic with an optimizer each."""
    (actor, first), (critic, second) = setting(), setting()
    with monitoring(modules=(actor, critic), optimizers=(first, second)) as (monitor, record):
        first.step()
        second.step()
        monitor.step()
        assert record.last["opt.steps"] == 2.0
        assert record.last["grad.norm"][0] == 2.0


def test_two_models_clipped_apart_are_measured_once_each_before_clipping() -> None:
    """Actor and critic: two clips, then two steps. The second step would find what its clip left."""
    models = (nn.Linear(2, 1), nn.Linear(2, 1))
    optimizers = tuple(torch.optim.SGD(model.parameters(), lr=0.0) for model in models)
    with monitoring(modules=models, optimizers=optimizers) as (monitor, record):
        for model in models:
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 3.0)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for optimizer in optimizers:
            optimizer.step()
        monitor.step()
        assert record.last["grad.norm"] == pytest.approx((2.0, math.sqrt(27), 0.0))


def test_one_clip_for_two_optimizers_is_measured_once() -> None:
    """Parameters of both in one list."""
    models = (nn.Linear(2, 1), nn.Linear(2, 1))
    optimizers = tuple(torch.optim.SGD(model.parameters(), lr=0.0) for model in models)
    both = [parameter for model in models for parameter in model.parameters()]
    with monitoring(modules=models, optimizers=optimizers) as (monitor, record):
        for parameter in both:
            parameter.grad = torch.full_like(parameter, 3.0)
        nn.utils.clip_grad_norm_(both, 0.5)
        for optimizer in optimizers:
            optimizer.step()
        monitor.step()
        assert record.last["grad.norm"] == pytest.approx((1.0, math.sqrt(54), 0.0))


def test_clip_whose_norm_overflows_is_measured_in_float64() -> None:
    """Finite gradients whose squares are no float32: torch's clip zeroes the update, and we say how large they were."""
    network = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, 1e20)
        total = nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        monitor.step()
        assert math.isinf(total)
        assert record.last["grad.norm"][1] == pytest.approx(math.sqrt(3) * 1e20)
        assert record.last["grad.norm.nonfinite"] == 0.0
        assert record.last["grad.exploding"] == 2.0


def test_clip_of_a_model_with_an_empty_parameter_is_seen() -> None:
    """Also when it is the first one, and it is no vanishing gradient."""
    parameters = [nn.Parameter(torch.empty(0)), nn.Parameter(torch.ones(2))]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    model = nn.ParameterList(parameters)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        monitor.step()
        assert record.last["grad.norm"] == pytest.approx((1.0, math.sqrt(18), 0.0))
        assert (record.last["grad.tensors"], record.last["grad.vanishing"]) == (1.0, 0.0)


def test_learning_rate_is_that_of_the_steps_though_a_schedule_moved_on() -> None:
    """Schedules are moved between an update and the end of its row; without a step it is what stands there."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            optimizer.param_groups[0]["lr"] /= 2
            monitor.step()
        monitor.step()

    assert [read(row)["opt.lr"] for row in record.rows] == [0.5, 0.25, 0.125]


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_learning_rate_that_is_a_tensor_is_that_of_the_steps_though_it_was_written_to(
    shape: tuple[int, ...], on_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schedules write to such a tensor in place. What lies on a device is not read: there a copy is kept."""
    if not on_host:
        monkeypatch.setattr(learning_rate_module, "host_value", lambda number: None)
    network, optimizer = setting()
    rate = optimizer.param_groups[0]["lr"] = torch.full(shape, 0.5)
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        for _ in range(2):
            optimizer.step()
            rate.div_(2)
            monitor.step()
        monitor.step()

    assert [read(row)["opt.lr"] for row in record.rows] == [0.5, 0.25, 0.125]


def test_optimizer_without_groups_steps_and_has_no_learning_rate() -> None:
    """Some take all groups out to put new ones in."""
    network, optimizer = setting()
    optimizer.param_groups.clear()
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        optimizer.step()
        monitor.step()
        assert record.last["opt.lr"] is Status.UNDEFINED
        assert record.last["opt.steps"] == 1.0


@pytest.mark.parametrize("closure", [None, lambda: torch.zeros(())])
@pytest.mark.parametrize("broken", ["_count", "_see_step", "_work_up", "_measure"])
def test_own_error_within_a_step_leaves_the_step_alone(broken: str, closure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of the hooks fails, at the first step of an update or a later one, clipped or not."""
    monkeypatch.delenv("GRADWATCH_STRICT")
    monkeypatch.setattr(gradients_module.GradientCollector, broken, _fail)
    network, optimizer = setting()
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (_, _):
        for _ in range(3):
            nn.utils.clip_grad_norm_(network.parameters(), 1e9)
            optimizer.step(closure)
    assert network.weight.tolist() == [[3.0 - 9.0, 4.0 - 12.0]]


def test_own_error_of_a_step_like_the_last_one_leaves_the_step_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short way of the hook is guarded too: only the first step goes the long one."""
    monkeypatch.delenv("GRADWATCH_STRICT")
    monkeypatch.setattr(gradients_module, "rate_of", _fail)
    long: list[Any] = []
    see = gradients_module.GradientCollector._see_step
    monkeypatch.setattr(gradients_module.GradientCollector, "_see_step", lambda self, one: (long.append(one), see(self, one)))
    network, optimizer = setting()
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        for _ in range(3):
            monitor.ppo(values=torch.zeros(2))
            nn.utils.clip_grad_norm_(network.parameters(), 1e9)
            optimizer.step()
        monitor.step()
        assert record.last["grad.norm"] is Status.OUR_ERROR
    assert len(long) == 1
    assert network.weight.tolist() == [[3.0 - 9.0, 4.0 - 12.0]]


def _fail(*_: object, **__: object) -> None:
    raise ValueError("a fault of ours")


def test_step_of_a_model_that_was_not_clipped_is_measured_though_another_was() -> None:
    """The actor is clipped, the critic is not and steps first."""
    actor, critic = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizers = tuple(torch.optim.SGD(model.parameters(), lr=0.0) for model in (actor, critic))
    with monitoring(modules=(actor, critic), optimizers=optimizers) as (monitor, record):
        for parameter in (*actor.parameters(), *critic.parameters()):
            parameter.grad = torch.full_like(parameter, 3.0)
        nn.utils.clip_grad_norm_(actor.parameters(), 0.5)
        for optimizer in reversed(optimizers):
            optimizer.step()
        monitor.step()
        assert record.last["grad.norm"] == pytest.approx((2.0, math.sqrt(27), 0.0))


@pytest.mark.parametrize("clips", [True, False])
def test_gradients_computed_within_a_step_are_seen_once_and_before_clipping(clips: bool) -> None:
    """`step(closure)`, as Lightning does it: before the step lies what clipping left of the last gradients."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms: list[float] = []

    def closure() -> Any:
        optimizer.zero_grad()
        loss = 10 * model(torch.ones(4, 2)).square().sum()
        loss.backward()
        norms.append(float(torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]).norm()))
        if clips:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        return loss

    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        optimizer.step(closure)
        optimizer.step(closure=closure)
        monitor.step()

    row = read(record.rows[0])
    assert row["grad.norm"][:2] == (2.0, pytest.approx(sum(norms) / 2, rel=1e-5))
    assert (row["opt.steps"], row["opt.skipped"]) == (2.0, 0.0)
