"""Adam's lag against a reference that takes the step on copies, in float64."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring

pytestmark = pytest.mark.usefixtures("strict")

NAMES = ("opt.adam.rms", "opt.adam.v_max")


def reference(optimizer: torch.optim.Adam) -> tuple[float, float]:
    """Adam's own step in float64: the second moment that it leaves behind, corrected, against the gradients."""
    state, parameters = copy.deepcopy(optimizer.state_dict()), []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            twin = parameter.detach().double().requires_grad_()
            twin.grad = parameter.grad.double()
            parameters.append(twin)
    twin_optimizer = torch.optim.Adam(parameters, lr=1e-3, eps=group["eps"], betas=group["betas"])
    twin_optimizer.load_state_dict(state)
    twin_optimizer.step()
    total, elements, largest = 0.0, 0, 0.0
    for twin in parameters:
        held = twin_optimizer.state[twin]
        moment = held["exp_avg_sq"] / (1 - group["betas"][1] ** held["step"])
        total += float((twin.grad**2 / moment.clamp(min=group["eps"] ** 2)).sum())
        elements, largest = elements + twin.numel(), max(largest, float(moment.max()))
    return math.sqrt(total / elements), largest


def set_gradients(model: torch.nn.Module, scale: float) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * scale


@pytest.mark.parametrize(("eps", "together"), [(1e-8, 18), (1e-5, 18), (1e-8, 17), (1e-8, 1)])
def test_lag_of_the_first_step_of_each_update_equals_the_reference(
    monkeypatch: pytest.MonkeyPatch, eps: float, together: int
) -> None:
    """After quiet updates the gradients are ten times as large: v lags behind, and that shows before the step is taken. Whether
    the weights and biases are looked at together or not."""
    monkeypatch.setattr("gradwatch_agent.collect.second_moments.BATCH_ELEMENTS_MAX", together)
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=eps)
    with monitoring(modules=(model,), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, record):
        set_gradients(model, 1.0)
        optimizer.step()
        monitor.step()
        assert {record.last[name] for name in NAMES} == {Status.UNDEFINED}  # Adam has no second moment yet
        for scale in (1.0, 10.0):
            set_gradients(model, scale)
            expected = reference(optimizer)
            optimizer.step()
            set_gradients(model, 1e3)  # a later step of the update is not looked at
            optimizer.step()
            monitor.step()
            assert [record.last[name] for name in NAMES] == pytest.approx(expected, rel=1e-4)
            assert record.last["opt.adam.rms"] < 20


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_lag_of_a_broken_gradient_is_not_finite(bad: float) -> None:
    """It is measured, and says so."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    with monitoring(modules=(model,), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, record):
        for value in (1.0, bad):
            set_gradients(model, 1.0)
            model.bias.grad[0] = value
            optimizer.step()
            monitor.step()
        assert not math.isfinite(record.last["opt.adam.rms"])
        assert not math.isfinite(record.last["opt.adam.v_max"])


def test_lag_of_bfloat16_is_near_the_reference() -> None:
    """In its own precision of three digits."""
    torch.manual_seed(0)
    model = torch.nn.Linear(40, 30).bfloat16()
    optimizer = torch.optim.Adam(model.parameters())
    with monitoring(modules=(model,), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, record):
        for _ in range(3):
            set_gradients(model, 1.0)
            expected = reference(optimizer) if optimizer.state else (0.0, 0.0)
            optimizer.step()
            monitor.step()
        assert [record.last[name] for name in NAMES] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.RMSprop])
def test_lag_of_another_optimizer_is_undefined(kind: Any) -> None:
    """No second moment, no number."""
    model = torch.nn.Linear(2, 2)
    optimizer = kind(model.parameters(), lr=1e-3)
    with monitoring(modules=(model,), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, record):
        for _ in range(2):
            set_gradients(model, 1.0)
            optimizer.step()
            monitor.step()
        assert {record.last[name] for name in NAMES} == {Status.UNDEFINED}


def test_lag_of_a_model_too_large_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six passes over it would be seen in the trainer's time."""
    monkeypatch.setattr("gradwatch_agent.collect.second_moments.ELEMENTS_MAX", 3)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    with monitoring(modules=(model,), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, record):
        for _ in range(2):
            set_gradients(model, 1.0)
            optimizer.step()
            monitor.step()
        assert {record.last[name] for name in NAMES} == {Status.THINNED}


def test_measuring_leaves_optimizer_and_gradients_as_they_are() -> None:
    """Bit by bit, watched and not."""
    found = []
    for level in (Level.OFF, Level.DEBUG):
        torch.manual_seed(1)
        model = torch.nn.Linear(4, 4)
        optimizer = torch.optim.AdamW(model.parameters())
        with monitoring(modules=(model,), optimizers=(optimizer,), level=level) as (monitor, _):
            for _ in range(4):
                set_gradients(model, 1.0)
                optimizer.step()
                monitor.step()
        found.append([*model.parameters(), *(held["exp_avg_sq"] for held in optimizer.state.values())])
    assert all(torch.equal(left, right) for left, right in zip(*found, strict=True))
