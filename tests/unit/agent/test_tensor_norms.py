"""The gradient norm of every tensor: counts, extremes, groups, with clipping and without."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad, clip_grad_norm_

from gradwatch_agent.collect import tensor_norms as tensor_norms_module
from gradwatch_agent.device import clip as clip_module
from gradwatch_agent.device.clip import CLIP_WATCH
from gradwatch_agent.device.total_norm import is_same, total_with_parts
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring

pytestmark = pytest.mark.usefixtures("strict")

PER_TENSOR = ("grad.tensors", "grad.vanishing", "grad.exploding", "grad.tensor_norm.min", "grad.tensor_norm.max")


class Many(nn.Module):
    """One parameter of one element per gradient, so that each norm is the gradient's size."""

    def __init__(self, *gradients: float | None) -> None:
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(torch.ones(1)) for _ in gradients])
        self.set(*gradients)

    def set(self, *gradients: float | None) -> None:
        """New gradients."""
        for parameter, gradient in zip(self.parts, gradients, strict=True):
            parameter.grad = None if gradient is None else torch.tensor([gradient])


def per_tensor(row: dict[str, Any]) -> list[Any]:
    """The columns about tensors."""
    return [row[name] for name in PER_TENSOR]


def test_tensor_norms_of_clipped_steps_are_those_before_clipping() -> None:
    """Counts add up over the calls, extremes are of the worst call, the limit is the last one."""
    model = Many(3.0, -4.0)
    with monitoring(modules=(model,)) as (monitor, record):
        clip_grad_norm_(model.parameters(), 0.2)
        model.set(0.0, 12.0)
        clip_grad_norm_(model.parameters(), 0.5)
        monitor.step()
        assert per_tensor(record.last) == [4.0, 1.0, 3.0, 0.0, 12.0]
        assert record.last["grad.clip_limit"] == 0.5


@pytest.mark.parametrize(("norm", "vanishing"), [(0.99e-7, 1.0), (1.01e-7, 0.0), (0.0, 1.0)])
def test_tensor_norm_vanishes_below_its_bound(norm: float, vanishing: float) -> None:
    """Strictly below 1e-7, at and above not."""
    model = Many(norm, 1.0)
    with monitoring(modules=(model,)) as (monitor, record):
        clip_grad_norm_(model.parameters(), 1.0)
        monitor.step()
        assert record.last["grad.vanishing"] == vanishing


def test_tensor_norm_of_exactly_the_bound_does_not_vanish() -> None:
    """1e-7 itself, which only a float64 can be."""
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    model.weight.grad = torch.tensor([[1e-7]], dtype=torch.float64)
    with monitoring(modules=(model,)) as (monitor, record):
        clip_grad_norm_(model.parameters(), 1.0)
        monitor.step()
        assert (record.last["grad.tensor_norm.min"], record.last["grad.vanishing"]) == (1e-7, 0.0)


@pytest.mark.parametrize(("limits", "exploding"), [((0.5, 0.05), 1.0), ((0.05, 0.5), 1.0), ((0.05, 0.06), 2.0)])
def test_tensor_norm_is_compared_with_the_limit_of_its_own_call(limits: tuple[float, float], exploding: float) -> None:
    """An annealed limit: 1 is beyond 10 x 0.05 and not beyond 10 x 0.5; the last limit is the one shown."""
    model = Many(1.0)
    with monitoring(modules=(model,)) as (monitor, record):
        for limit in limits:
            model.set(1.0)
            clip_grad_norm_(model.parameters(), limit)
        monitor.step()
        assert record.last["grad.exploding"] == exploding
        assert record.last["grad.clip_limit"] == limits[-1]


@pytest.mark.parametrize(("norm", "exploding"), [(5.0, 0.0), (5.0001, 1.0), (4.9999, 0.0)])
def test_tensor_norm_explodes_above_ten_times_the_limit(norm: float, exploding: float) -> None:
    """Strictly above."""
    model = Many(norm, 0.1)
    with monitoring(modules=(model,)) as (monitor, record):
        clip_grad_norm_(model.parameters(), 0.5)
        monitor.step()
        assert record.last["grad.exploding"] == exploding


@pytest.mark.parametrize(("gradient", "exploding"), [(math.nan, 0.0), (math.inf, 1.0)])
def test_tensor_norm_that_is_not_finite_is_the_largest_and_the_least_is_not_hidden(gradient: float, exploding: float) -> None:
    """NaN makes both extremes NaN; infinity is above any limit."""
    model = Many(1.0, gradient)
    with monitoring(modules=(model,)) as (monitor, record):
        clip_grad_norm_(model.parameters(), 0.5)
        monitor.step()
        assert record.last["grad.exploding"] == exploding
        assert not math.isfinite(record.last["grad.tensor_norm.max"])
        assert record.last["grad.norm.nonfinite"] == 1.0


@pytest.mark.parametrize("limit", [math.inf, 0.0, -1.0, math.nan])
def test_tensor_norms_without_a_usable_limit_count_no_explosion(limit: float) -> None:
    """`clip_grad_norm_(…, inf)` is how trainers get the norm without clipping."""
    model = Many(1.0, 2.0)
    with monitoring(modules=(model,)) as (monitor, record):
        clip_grad_norm_(model.parameters(), limit)
        monitor.step()
        assert record.last["grad.exploding"] is record.last["grad.clip_limit"] is Status.UNDEFINED
        assert record.last["grad.tensors"] == 2.0


def test_tensor_norms_without_clipping_come_from_the_step() -> None:
    """The same columns, but what exploding means is not defined and there is no limit."""
    model = Many(3.0, 1e-9, None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        optimizer.step()
        monitor.step()
        assert per_tensor(record.last) == [2.0, 1.0, Status.UNDEFINED, pytest.approx(1e-9), 3.0]
        assert record.last["grad.clip_limit"] is Status.NOT_CALLED


def test_model_without_gradients_says_so_in_every_column() -> None:
    """Clipped or stepped, with groups: NO_GRADIENT everywhere."""
    for clipped in (True, False):
        model = Many(None, None)
        optimizer = torch.optim.SGD([{"params": [part]} for part in model.parts], lr=0.1)
        with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
            if clipped:
                clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            monitor.step()
            keys = ("grad.norm", *PER_TENSOR, "grad.group_norm/0", "grad.group_norm/1")
            assert {record.last[key] for key in keys} == {Status.NO_GRADIENT}


@pytest.mark.parametrize("clipped", [True, False])
def test_group_norms_are_those_of_each_parameter_group(clipped: bool) -> None:
    """By the group's name or its index, also when its parameters lie apart; a group without a gradient has none."""
    model = Many(3.0, 6.0, 4.0, None)
    a, b, c, d = model.parts
    groups: list[dict[str, Any]] = [{"params": [a, c], "name": "actor"}, {"params": [b]}, {"params": [d], "name": "idle"}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        for _ in range(2):
            if clipped:
                clip_grad_norm_(model.parameters(), 1e9)
            optimizer.step()
        monitor.step()
        assert record.last["grad.group_norm/actor"] == (2.0, 5.0, 0.0)
        assert record.last["grad.group_norm/1"] == (2.0, 6.0, 0.0)
        assert record.last["grad.group_norm/idle"] is Status.NO_GRADIENT


def test_group_norm_of_one_group_is_not_sent() -> None:
    """It would be the global norm again."""
    model = Many(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        optimizer.step()
        monitor.step()
        assert not [key for key in record.last if key.startswith("grad.group_norm")]


def test_group_of_broken_gradients_leaves_the_others_alone() -> None:
    """NaN in one group is not NaN in all."""
    model = Many(math.nan, 2.0)
    optimizer = torch.optim.SGD([{"params": [part], "name": "same"} for part in model.parts], lr=0.1)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        clip_grad_norm_(model.parameters(), 0.5)
        monitor.step()
        assert math.isnan(record.last["grad.group_norm/0"][1])
        assert record.last["grad.group_norm/1"] == (1.0, 2.0, 0.0)


def test_group_added_later_joins_in_the_next_update() -> None:
    """`add_param_group` while training, as for unfreezing."""
    model = Many(3.0, 4.0)
    optimizer = torch.optim.SGD([model.parts[0]], lr=0.1)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        monitor.step()
        optimizer.add_param_group({"params": [model.parts[1]]})
        monitor.step()
        optimizer.step()
        monitor.step()
        assert record.last["grad.group_norm/1"] == (1.0, 4.0, 0.0)


@pytest.mark.parametrize("how", ["foreach", "one by one", "error_if_nonfinite", "dtypes", "other torch"])
def test_tensor_norms_are_measured_where_torch_keeps_its_own(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass more, the same numbers, and the total is still torch's."""
    if how == "other torch":
        monkeypatch.setattr(clip_module, "is_same", lambda original: False)
    model = Many(3.0, 4.0)
    if how == "dtypes":
        model.parts[1] = nn.Parameter(torch.ones(1, dtype=torch.float64))
        model.parts[1].grad = torch.tensor([4.0], dtype=torch.float64)
    options: dict[str, dict[str, bool]] = {
        "foreach": {"foreach": True},
        "one by one": {"foreach": False},
        "error_if_nonfinite": {"error_if_nonfinite": True},
    }
    with monitoring(modules=(model,)) as (monitor, record):
        total = clip_grad_norm_(model.parameters(), 0.1, **options.get(how, {}))
        monitor.step()
        assert per_tensor(record.last) == [2.0, 0.0, 2.0, 3.0, 4.0]
        assert record.last["grad.norm"] == (1.0, float(total), 0.0)


def test_total_with_parts_has_the_bits_of_torch() -> None:
    """Over sizes, magnitudes and dtypes; the parts are the norms in order."""
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for scale in (1e-20, 1.0, 1e15):
            tensors = [(torch.randn(size) * scale).to(dtype) for size in (1, 7, 64, 1000, 70_001)]
            found = total_with_parts(tensors, 2.0, False, None)
            assert found is not None
            assert torch.equal(found[0], clip_grad._get_total_norm(tensors, 2.0)) or not torch.isfinite(found[0])
            assert [float(part) for part in found[1]] == [float(torch.linalg.vector_norm(t)) for t in tensors] or dtype in {
                torch.float32,
                torch.bfloat16,
                torch.float16,
            }


def test_total_norm_of_another_torch_is_not_trusted() -> None:
    """A function that uses other operations, or gives other bits, is left to itself."""
    original = clip_grad._get_total_norm

    def squares(tensors: Any, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None) -> Any:
        return sum(tensor.square().sum() for tensor in tensors).sqrt()

    assert is_same(original)
    assert not is_same(squares)
    assert not is_same(max)


def test_tensor_norms_keep_torch_undisturbed_below_normal() -> None:
    """Nobody wants the parts, so nothing of ours computes the norm."""
    model = Many(1.0)
    with monitoring(modules=(model,), level=Level.MINIMAL):
        assert not CLIP_WATCH.keeps_parts
        with monitoring(modules=(model,)):
            assert CLIP_WATCH.keeps_parts
        assert not CLIP_WATCH.keeps_parts


def test_tensor_norms_beyond_the_bound_are_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer that never calls `step` must not fill the device, and a part must not pass for the whole."""
    monkeypatch.setattr(tensor_norms_module, "HELD_MAX", 4)
    monkeypatch.setattr(tensor_norms_module, "NUMBERS_MAX", 8)
    model = Many(1.0, 2.0)
    with monitoring(modules=(model,)) as (monitor, record):
        for _ in range(2):
            clip_grad_norm_(model.parameters(), 0.5)
        monitor.step()
        assert record.last["grad.tensors"] == 4.0
        for _ in range(20):
            clip_grad_norm_(model.parameters(), 0.5)
        monitor.step()
        assert record.last["grad.tensors"] is Status.INCOMPLETE
        clip_grad_norm_(model.parameters(), 0.5)
        monitor.step()
        assert record.last["grad.tensors"] == 2.0


def test_gradients_that_overflow_float32_are_told_from_infinite_ones() -> None:
    """1e30 squared is not a float32: a second pass in float64 finds the norm, and true infinity stays."""
    model = Many(1e30, 1e30)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        optimizer.step()
        monitor.step()
        assert record.last["grad.norm"][1] == pytest.approx(math.sqrt(2) * 1e30)
        assert record.last["grad.norm.nonfinite"] == 0.0
        model.set(1e30, math.inf)
        optimizer.step()
        model.set(1.0, 1.0)
        optimizer.step()
        monitor.step()
        assert record.last["grad.norm.nonfinite"] == 1.0
