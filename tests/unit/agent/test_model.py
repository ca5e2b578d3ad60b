"""Parameters that are replaced, exchanged, added or made late: what is told is of those there are, by their right names."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from gradwatch_agent.collect.model import Model
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring

if TYPE_CHECKING:
    from gradwatch_agent import Monitor

pytestmark = pytest.mark.usefixtures("strict")


def network() -> nn.Sequential:
    """Two layers."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))


def train(monitor: Monitor, model: nn.Module, optimizer: torch.optim.Optimizer, *, clips: bool = True) -> list[float]:
    """An update of two minibatches; the norms of the gradients before clipping."""
    norms = []
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(3, 4)).square().mean().backward()
        norms.append(float(clip_grad_norm_(model.parameters(), 0.5 if clips else float("inf"))))
        optimizer.step()
    monitor.step()
    return norms


def norm_of(model: nn.Module) -> float:
    """Of all weights."""
    return float(torch.stack([parameter.detach().double().norm() for parameter in model.parameters()]).norm())


def replace_head(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    """A plasticity reset."""
    model[1] = nn.Linear(8, 2)
    with torch.no_grad():
        model[1].weight.mul_(100)
    optimizer.param_groups[0]["params"] = list(model.parameters())


def load(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    """Other tensors in the place of all."""
    model.load_state_dict({name: 3 * value for name, value in model.state_dict().items()}, assign=True)
    optimizer.param_groups[0]["params"] = list(model.parameters())


def add_layer(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    """A model that grows."""
    model.append(nn.Linear(2, 2))
    optimizer.add_param_group({"params": model[2].parameters()})


@pytest.mark.parametrize("change", [replace_head, load, add_layer])
def test_weights_that_were_replaced_are_those_told(change: Any) -> None:
    """At the end of the very update, whether it was within it or before; the dead ones are let go."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    gone = weakref.ref(model[1].weight)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        train(monitor, model, optimizer)
        change(model, optimizer)
        optimizer.zero_grad()
        for _ in range(2):
            norms = train(monitor, model, optimizer)
            assert record.last["param.norm"] == pytest.approx(norm_of(model), rel=1e-5)
            assert record.last["opt.steps"] == 2.0
        assert record.last["grad.norm"][:2] == (2.0, pytest.approx(sum(norms) / 2, rel=1e-5))
        assert record.last["grad.tensors"] == 2.0 * len(list(model.parameters()))
        assert (gone() is None) == (change is not add_layer)


def test_clip_of_tensors_that_nobody_knew_is_not_told_as_none() -> None:
    """All tensors are new, so that their clip is not heard: what it leaves is not the norm before it."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        train(monitor, model, optimizer)
        load(model, optimizer)
        train(monitor, model, optimizer)
        assert record.last["grad.norm"] is Status.INCOMPLETE
        assert record.last["grad.tensors"] is Status.INCOMPLETE
        norms = train(monitor, model, optimizer)
        assert record.last["grad.norm"][:2] == (2.0, pytest.approx(sum(norms) / 2, rel=1e-5))


def test_parameters_that_are_exchanged_between_groups_count_in_the_other() -> None:
    """The groups keep their sizes."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    groups: list[dict[str, Any]] = [{"params": list(model[n].parameters()), "name": name} for n, name in ((0, "a"), (1, "b"))]
    optimizer = torch.optim.SGD(groups, 1e-6)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        train(monitor, model, optimizer)
        before = [record.last[f"grad.group_norm/{name}"][1] for name in "ab"]
        first, second = optimizer.param_groups
        first["params"], second["params"] = second["params"], first["params"]
        monitor.step()
        train(monitor, model, optimizer)
        after = [record.last[f"grad.group_norm/{name}"][1] for name in "ab"]
    assert before[0] != pytest.approx(before[1], rel=0.01)
    assert after == pytest.approx(before[::-1], rel=1e-3)


def test_table_of_layers_names_what_is_there() -> None:
    """A name keeps its number, so what was kept before stays right; how far the update moved others is not known."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with monitoring(modules=(model,), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, record):
        train(monitor, model, optimizer)
        model.insert(0, nn.Linear(4, 4))
        optimizer.param_groups[0]["params"] = list(model.parameters())
        train(monitor, model, optimizer)
        assert record.last["opt.update_ratio"] is Status.UNDEFINED
        train(monitor, model, optimizer)
        assert record.last["opt.update_ratio"] > 0
    told = {name: row["weight_norm"] for name, row in record.table("layers").items()}
    assert told == {name: pytest.approx(float(tensor.detach().norm()), rel=1e-5) for name, tensor in model.named_parameters()}


def test_lazy_parameters_are_left_out_until_they_are_there() -> None:
    """Before that the norm of the others does not pass for the whole."""
    model = nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 2))
    with monitoring(modules=(model,)) as (monitor, record):
        monitor.step()
        assert record.last["param.norm"] is Status.INCOMPLETE
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        norms = train(monitor, model, optimizer)
        assert record.last["param.norm"] == pytest.approx(norm_of(model), rel=1e-5)
        assert record.last["grad.norm"][:2] == (2.0, pytest.approx(sum(norms) / 2, rel=1e-5))
        assert record.last["grad.tensors"] == 8.0


def test_std_parameter_that_was_replaced_is_the_one_told() -> None:
    """`log_std` is looked for again."""
    model = network()
    model.log_std = nn.Parameter(torch.zeros(2))
    with monitoring(modules=(model,)) as (monitor, record):
        monitor.step()
        model.log_std = nn.Parameter(torch.ones(2))
        monitor.step()
        assert record.last["policy.std"][1] == pytest.approx(2.718281828, rel=1e-6)


def test_model_is_read_again_only_when_others_are_there() -> None:
    """A child, a parameter where there was none, one less; a value that is written to is the same parameter."""
    model = network()
    known = Model((model,))
    changes = [
        lambda: model.register_parameter("scale", nn.Parameter(torch.ones(1))),
        lambda: model[0].register_parameter("bias", None),
        lambda: setattr(model[1], "inner", nn.Linear(1, 1)),
        lambda: delattr(model[1], "inner"),
    ]
    for version, change in enumerate(changes, 1):
        for _ in range(2):
            change() if known.version < version else model[1].weight.data.zero_()
            known.look()
        assert known.version == version
        assert [name for name, _ in known.named()] == [name for name, _ in model.named_parameters()]
