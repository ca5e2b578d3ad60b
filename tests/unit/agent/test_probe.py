"""The probed batch against references, and that looking at it leaves the model, its modes and random numbers as they were."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from gradwatch_agent import arguments
from gradwatch_agent.collect import probe as probe_module
from gradwatch_agent.collect.probe import PERIOD
from gradwatch_agent.collect.probe_facts import STILL, TAU, effective_rank
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.errors import GradwatchError
from harness.recording import monitoring, read

pytestmark = pytest.mark.usefixtures("strict")

F = "param.features"


def probed(probe: Any, observations: Any = None, updates: int = 1, **given: Any) -> list[dict[str, Any]]:
    """The rows of these updates; their rollouts are [2, 4] steps of an observation each."""
    with monitoring(probe=probe, **given) as (monitor, record):
        for _ in range(updates):
            if observations is not None:
                monitor.rollout(rewards=torch.zeros(2, 4), observations=observations)
            monitor.step()
        return [read(row) for row in record.rows]


def rank_of(features: torch.Tensor) -> float:
    """exp of the entropy of the singular values, by SVD in float64."""
    singular = torch.linalg.svdvals(features.double().flatten(1))
    share = singular / singular.sum()
    return math.exp(float(torch.special.entr(share).sum()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_layers_of_a_sequential_equal_the_reference(activation: type[nn.Module], dtype: torch.dtype) -> None:
    """Norms before the non-linearity, dormant units after it, the rank of what comes last; Sequentials within are opened."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 6), activation(), nn.Sequential(nn.Linear(6, 5), activation())).to(dtype)
    with torch.no_grad():
        module[0].bias[:2] = -1e3  # two units of ReLU are 0, and of tanh -1, whatever they see
    observations = torch.randn(2, 4, 3).to(dtype)
    (row,) = probed(module, observations)
    flat = observations.reshape(8, 3)
    with torch.no_grad():
        first = module[0](flat)
        hidden = module[1](first)
        second = module[2][0](hidden)
        last = module[2][1](second)
    assert row[f"{F}.norm/0"] == pytest.approx(float(first.double().norm(dim=1).mean()), rel=1e-6)
    assert row[f"{F}.norm/2.0"] == pytest.approx(float(second.double().norm(dim=1).mean()), rel=1e-6)
    x = hidden.double()
    score = x.abs().mean(0)
    dormant = (x.std(0, correction=0) < STILL) if activation is nn.Tanh else (score <= TAU * score.mean())
    assert (row[f"{F}.dormant/1"], row[f"{F}.units/1"]) == (float(dormant.sum()), 6.0)
    assert row[f"{F}.dormant/1"] >= 2.0
    assert row[f"{F}.rank/2.1"] == pytest.approx(rank_of(last), rel=1e-5)


@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (7, 7)])
def test_effective_rank_equals_that_of_the_singular_values(shape: tuple[int, int]) -> None:
    """Of wide and of tall matrices, and of one that is nearly of rank one."""
    torch.manual_seed(0)
    features = torch.randn(shape).double()
    for matrix in (features, features[:, :1] @ features[:1, :] + 1e-3 * features):
        side = min(shape)
        gram = matrix @ matrix.T if shape[0] <= shape[1] else matrix.T @ matrix
        assert effective_rank(gram.reshape(-1).tolist(), side) == pytest.approx(rank_of(matrix), rel=1e-6)


def test_rank_of_nothing_and_of_nan() -> None:
    """Features that are all 0 span nothing; a NaN is one."""
    assert effective_rank([0.0] * 4, 2) == 0.0
    assert math.isnan(effective_rank([1.0, math.nan, 0.0, 1.0], 2))
    (row,) = probed(lambda x: x * math.nan, torch.ones(2, 4, 3))
    assert math.isnan(row[f"{F}.rank/out"])
    assert math.isnan(row[f"{F}.norm/out"])


def test_a_whole_module_and_a_function_are_looked_at_from_outside() -> None:
    """Norm, dormant units and rank of what they return; of a tuple its first part, of pictures the channels."""
    lstm = nn.LSTM(3, 6, batch_first=True)
    (row,) = probed(lambda x: lstm(x.unsqueeze(1)), torch.randn(2, 4, 3))
    assert row[f"{F}.units/out"] == 6.0
    (row,) = probed(nn.Conv2d(1, 5, 2), torch.randn(2, 4, 1, 3, 3))
    assert row[f"{F}.units/out"] == 5.0
    assert 1.0 <= row[f"{F}.rank/out"] <= 8.0


def test_batch_that_is_given_goes_before_the_rollout() -> None:
    """No observations are needed then."""
    (row,) = probed((nn.Identity(), torch.eye(4)))
    assert row[f"{F}.rank/out"] == pytest.approx(4.0)


def test_batch_is_fixed_at_the_first_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the trainer does to its buffer afterwards, and later rollouts, change nothing."""
    monkeypatch.setattr(probe_module, "PERIOD", {})
    buffer = torch.randn(2, 4, 3)
    with monitoring(probe=nn.Identity()) as (monitor, record):
        for scale in (1.0, 0.0):
            buffer *= scale
            monitor.rollout(rewards=torch.zeros(2, 4), observations=buffer)
            monitor.step()
        first, second = (read(row)[f"{F}.norm/out"] for row in record.rows)
    assert first == second > 0


def test_batch_of_a_dict_is_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the module takes it; a large rollout is thinned to few samples."""
    monkeypatch.setattr(probe_module, "SAMPLES", 4)
    (row,) = probed(lambda x: torch.cat([x["a"], x["b"]], 1), {"a": torch.randn(2, 4, 3), "b": torch.randn(2, 4, 2)})
    assert row[f"{F}.units/out"] == 5.0
    assert row[f"{F}.rank/out"] <= 4.0


def test_updates_between_two_looks_say_thinned_and_debug_looks_more_often() -> None:
    """Every 32nd at NORMAL, every fourth at DEBUG."""
    for level, period in ((Level.NORMAL, 32), (Level.DEBUG, 4)):
        rows = probed((nn.Identity(), torch.eye(4)), updates=period + 2, level=level)
        measured = [number for number, row in enumerate(rows) if row[f"{F}.norm/out"] is not Status.THINNED]
        assert measured == [0, period]


def test_looking_leaves_the_model_and_the_random_numbers_as_they_were() -> None:
    """Dropout and batch normalisation in the probed part; modes that differ from child to child come back."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.ReLU())
    module[2].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [child.training for child in module.modules()]
    state = torch.get_rng_state()
    probed(module, torch.randn(2, 4, 3, generator=torch.Generator()))
    probed(torch.nn.functional.dropout, torch.ones(2, 4, 3))
    assert torch.equal(torch.get_rng_state(), state)
    assert [child.training for child in module.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_looking_at_a_compiled_module_traces_nothing_anew() -> None:
    """The module inside is called; the frames that were compiled stay as they are."""
    torch._dynamo.reset()
    compiled: list[int] = []

    def backend(graph: Any, examples: Any) -> Any:
        compiled.append(1)
        return graph.forward

    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    fast = torch.compile(module, backend=backend)
    data = torch.randn(8, 3)
    fast(data)
    with monitoring(probe=fast) as (monitor, record):
        for _ in range(2):
            monitor.rollout(rewards=torch.zeros(4), observations=torch.randn(4, 3))
            fast(data)
            monitor.step()
        assert read(record.rows[0])[f"{F}.units/1"] == 4.0
    assert compiled == [1]


def test_probe_that_fails_is_told_once_and_training_goes_on() -> None:
    """Its error is an event of the run; the rest of the row is there."""
    calls = []

    def wrong(batch: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        raise ValueError("no such shape")

    with monitoring(probe=wrong) as (monitor, record):
        for _ in range(3):
            monitor.rollout(rewards=torch.ones(4), observations=torch.ones(4, 3))
            monitor.step()
        assert record.last["reward.step"][1] == 1.0
        assert [event[0] for event in record.events] == ["agent_error"]
        assert "no such shape" in record.events[0][2]
    assert calls == [1]


def test_wrapper_is_taken_off_and_a_module_spread_over_ranks_is_left_alone() -> None:
    """The forward pass of either would be a collective."""

    class DistributedDataParallel(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            raise AssertionError("the wrapper was called")

    class FullyShardedDataParallel(nn.Module):
        """Also inside of another module."""

    (row,) = probed(DistributedDataParallel(nn.Identity()), torch.ones(2, 4, 3))
    assert row[f"{F}.units/out"] == 3.0
    (row,) = probed(nn.Sequential(FullyShardedDataParallel()), torch.ones(2, 4, 3))
    assert not [name for name in row if name.startswith(F)]


@pytest.mark.parametrize("probe", [3, "trunk", (nn.Identity(), None), (nn.Identity(),), (1, torch.ones(2))])
def test_probe_that_cannot_be_called_is_refused(probe: Any) -> None:
    """Before training starts."""
    with pytest.raises(GradwatchError, match=r"watch\(probe\)"):
        arguments.check_probe(probe)


def test_probe_without_observations_is_not_measured() -> None:
    """Nothing was passed to look at, and no layer is known yet."""
    (row,) = probed(nn.Identity())
    assert not [name for name in row if name.startswith(F)]


class Counting(nn.Module):
    """A normaliser that counts what it has seen, as many do: also when it is not training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen += len(batch)
        self.mean = self.mean + batch.mean(0)
        return batch - self.mean


class Trunk(nn.Module):
    """What is looked at as a whole, and calls its parts."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.parts(batch)
        return made


@pytest.mark.parametrize("whole", [False, True], ids=["Sequential", "module"])
@pytest.mark.parametrize("fails", [False, True], ids=["works", "fails"])
def test_looking_fires_no_hook_and_leaves_buffers_as_they_were(whole: bool, fails: bool) -> None:
    """A trainer's hooks and running statistics must not meet a batch that it never passed, in whatever depth they are."""
    parts = [Counting(), nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(7 if fails else 4, 2)]
    module = Trunk(*parts) if whole else nn.Sequential(*parts)
    met: list[str] = []
    for name, child in module.named_modules():
        child.register_forward_hook(lambda *given, name=name: met.append(name))
        child.register_forward_pre_hook(lambda *given, name=name: met.append(name))
    buffers = dict(module.named_buffers())
    before = {name: (buffer.clone(), buffer._version) for name, buffer in buffers.items()}
    (row,) = probed((module, torch.ones(8, 3)))
    assert bool([name for name in row if name.startswith(F)]) is not fails
    assert met == []
    assert {name: id(buffer) for name, buffer in module.named_buffers()} == {
        name: id(buffer) for name, buffer in buffers.items()
    }
    assert all(
        torch.equal(buffers[name], kept) and buffers[name]._version == version for name, (kept, version) in before.items()
    )
    if not fails:
        module(torch.ones(8, 3))
        assert len(met) == 2 * len(list(module.modules()))


@pytest.mark.parametrize("in_place", [False, True], ids=["torch.compile(child)", "child.compile()"])
@pytest.mark.parametrize("whole", [False, True], ids=["Sequential", "module"])
def test_looking_at_compiled_children_traces_nothing_anew(in_place: bool, whole: bool) -> None:
    """What is inside of them is called; the next call of the trainer finds its own graph."""
    torch._dynamo.reset()
    compiled: list[int] = []

    def backend(graph: Any, examples: Any) -> Any:
        compiled.append(1)
        return graph.forward

    child: Any = Trunk(nn.Linear(3, 4), nn.ReLU())
    if in_place:
        child.compile(backend=backend, dynamic=False)
    else:
        child = torch.compile(child, backend=backend, dynamic=False)
    module = Trunk(child, nn.Linear(4, 2)) if whole else nn.Sequential(child, nn.Linear(4, 2))
    data = torch.randn(8, 3)
    module(data)
    rows = probed((module, torch.randn(5, 3)), updates=PERIOD[Level.NORMAL] + 1)
    assert len([row for row in rows if row[f"{F}.rank/{'out' if whole else '1'}"] is not Status.THINNED]) == 2
    module(data)
    assert compiled == [1]
