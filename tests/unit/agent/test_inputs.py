"""Features of observations, actions and standard deviations against references that look at one sample after the other."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch_agent.collect import features, samples
from gradwatch_contracts.columns import Status
from harness.recording import monitoring, read

pytestmark = pytest.mark.usefixtures("strict")

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def rolled(*rollouts: dict[str, Any], **settings_: Any) -> list[dict[str, Any]]:
    """The rows of these rollouts, one an update."""
    with monitoring(**settings_) as (monitor, record):
        for given_ in rollouts:
            monitor.rollout(**given_)
            monitor.step()
        return [read(row) for row in record.rows]


def passed(**settings_: Any) -> Any:
    """`monitoring` with a model that has this parameter."""
    model = torch.nn.Module()
    for name, value in settings_.pop("parameters", {}).items():
        model.register_parameter(name, torch.nn.Parameter(value))
    return monitoring(modules=(model,), **settings_)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start is the first two updates."""
    monkeypatch.setattr(features, "START_UPDATES", 2)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from([(3, 2, 4), (5, 1, 2, 3), (4, 2)]),
    dtype=st.sampled_from(DTYPES),
    strided=st.booleans(),
)
def test_drift_and_constant_features_equal_the_reference(
    seed: int, shape: tuple[int, ...], dtype: torch.dtype, strided: bool
) -> None:
    """Per feature, in float64, over the rollouts of the start as one."""
    generator = torch.Generator().manual_seed(seed)
    lead = shape[:2]
    rollouts = [torch.randn(shape, generator=generator).to(dtype) + number for number in range(3)]
    rollouts[2].reshape(-1, math.prod(shape[2:]))[:, 0] = 1.0
    if strided:
        rollouts = [torch.stack([one, one], -1)[..., 0] for one in rollouts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "START_UPDATES", 2)
        rows = rolled(*({"rewards": torch.zeros(lead), "observations": one} for one in rollouts))
    flat = [one.double().reshape(-1, math.prod(shape[2:])) for one in rollouts]
    start = torch.cat(flat[:2])
    drift = ((flat[2].mean(0) - start.mean(0)).abs() / start.std(0, correction=0)).numpy()
    assert [rows[0]["obs.drift"], rows[1]["obs.drift.max"]] == [Status.UNDEFINED] * 2
    n, mean, m2 = rows[2]["obs.drift"]
    assert (n, mean) == (drift.size, pytest.approx(drift.mean(), rel=1e-6))
    assert m2 == pytest.approx(((drift - drift.mean()) ** 2).sum(), rel=1e-4, abs=1e-9)
    assert rows[2]["obs.drift.max"] == pytest.approx(drift.max(), rel=1e-6)
    assert (rows[2]["obs.constant"], rows[2]["obs.features"]) == ((flat[2].min(0)[0] == flat[2].max(0)[0]).sum(), drift.size)


@pytest.mark.usefixtures("started")
def test_drift_of_a_feature_that_broke_or_never_varied_is_left_out() -> None:
    """A NaN at the start does not spoil the other features; one without spread has no scale."""
    start = torch.tensor([[1.0, math.nan, 5.0], [3.0, 1.0, 5.0]])
    rows = rolled(*({"observations": one} for one in (start, start, torch.tensor([[5.0, 9.0, 6.0]] * 2))))
    assert rows[2]["obs.drift"] == (1.0, 3.0, 0.0)
    assert rows[2]["obs.drift.max"] == 3.0


@pytest.mark.usefixtures("started")
def test_drift_without_any_feature_that_varied_is_undefined() -> None:
    """Not 0: nothing was measured."""
    rows = rolled(
        *({"observations": torch.full((rows, 2), 0.1, dtype=torch.float64)} for rows in (3, 6, 7))
    )  # whose mean is rounded
    assert rows[2]["obs.drift"] is Status.UNDEFINED
    assert (rows[2]["obs.constant"], rows[2]["obs.features"]) == (2.0, 2.0)


@pytest.mark.usefixtures("started")
def test_drift_begins_anew_when_the_observations_become_others() -> None:
    """Another shape is another start."""
    first, second = torch.randn(8, 2), torch.randn(8, 3)
    rows = rolled(*({"observations": one} for one in (first, first, second, second, second)))
    assert [row["obs.drift.max"] for row in rows[1:4]] == [Status.UNDEFINED] * 3
    assert rows[4]["obs.drift.max"] == pytest.approx(0.0, abs=1e-9)


def test_features_of_a_picture_are_thinned_and_of_its_normaliser_not_asked() -> None:
    """Pixels are no features."""
    (row,) = rolled({"rewards": torch.zeros(2), "observations": torch.ones(2, 3, 64, 64)})
    assert {row[name] for name in features.COLUMNS} == {Status.THINNED}
    assert row["obs.input"][0] == 2 * 3 * 64 * 64


def test_features_of_a_dict_and_of_two_calls_are_all_looked_at() -> None:
    """Two entries of 2 and 1 features; the second call brings variation to one of them."""
    with monitoring() as (monitor, record):
        monitor.rollout(rewards=torch.zeros(2), observations={"a": torch.ones(2, 2), "b": torch.ones(2, 1)})
        monitor.rollout(rewards=torch.zeros(2), observations={"a": torch.tensor([[1.0, 2.0]] * 2), "b": torch.ones(2, 1)})
        monitor.step()
        assert (record.last["obs.constant"], record.last["obs.features"]) == (2.0, 3.0)


@pytest.mark.parametrize(
    "normalizer",
    [
        (torch.tensor([0.0, 4.0]), torch.tensor([1.0, 4.0])),
        (np.array([0.0, 4.0]), np.array([1.0, 4.0])),
        SimpleNamespace(mean=np.array([0.0, 4.0]), var=np.array([1.0, 4.0])),
        {"": SimpleNamespace(mean=[0.0, 4.0], var=[1.0, 4.0])},
    ],
)
def test_distance_from_a_normaliser_is_in_its_standard_deviations(normalizer: Any) -> None:
    """Means 1 and 1: one standard deviation from 0, one and a half from 4."""
    (row,) = rolled({"observations": torch.ones(3, 2), "normalizer": normalizer})
    assert row["obs.normalizer.drift"] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("normalizer", "status"),
    [((torch.zeros(3), torch.ones(3)), Status.SHAPE), (3, Status.DTYPE), (("a", "b"), Status.DTYPE), (None, Status.NOT_CALLED)],
)
def test_normaliser_that_does_not_fit_says_why(normalizer: Any, status: Status) -> None:
    """The other facts of the features stay."""
    (row,) = rolled({"observations": torch.ones(3, 2), "normalizer": normalizer})
    assert row["obs.normalizer.drift"] is status
    assert row["obs.features"] == 2.0


def test_observations_at_their_clip_bound_are_counted() -> None:
    """On the bound counts, just below does not; without a bound nothing is said."""
    observations = torch.tensor([10.0, -10.0, 9.999, 11.0, math.nan])
    (row,) = rolled({"observations": observations, "obs_clip": 10.0})
    assert row["obs.input.saturated"] == 3.0
    (row,) = rolled({"observations": observations})
    assert row["obs.input.saturated"] is Status.NOT_CALLED
    (row,) = rolled({"observations": observations, "obs_clip": "10"})
    assert row["obs.input.saturated"] is Status.DTYPE


def test_sample_of_a_large_tensor_is_bounded_and_meets_every_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distance is odd, so 16 environments side by side all come up."""
    monkeypatch.setattr(samples, "ELEMENTS_MAX", 500)
    environments = torch.arange(16.0).repeat(300).reshape(300, 16, 1)
    found = samples.sample_rows(environments, 1)
    assert len(found) <= 500
    assert set(found.reshape(-1).tolist()) == set(range(16))
    strided = torch.stack([environments, environments], -1)[..., 0]
    assert len(samples.sample_rows(strided, 1)) <= 500
    assert len(samples.sample_rows(torch.ones(2, 900), 900)) == 1


# Actions.


def space(**attributes: Any) -> Any:
    """What looks like a space of gymnasium."""
    return SimpleNamespace(**attributes)


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
@pytest.mark.parametrize("start", [0, 5])
def test_dominance_of_discrete_actions_is_the_share_of_the_most_frequent(kind: Any, start: int) -> None:
    """Also of a space that begins elsewhere, whatever holds the actions."""
    actions = kind([start + action for action in (0, 2, 2, 1, 2)])
    (row,) = rolled({"actions": actions}, action_space=space(n=np.int64(3), start=np.int64(start)))
    assert row["policy.action.dominance"] == pytest.approx(0.6)
    assert row["policy.action"] is Status.NOT_CALLED


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_dominance_of_several_heads_is_told_apart(dtype: torch.dtype) -> None:
    """One series for each component of a MultiDiscrete space; two calls of an update add up."""
    actions = torch.tensor([[0, 1], [0, 2], [1, 0]], dtype=dtype)
    with monitoring(action_space=space(nvec=np.array([2, 3]))) as (monitor, record):
        monitor.rollout(actions=actions)
        monitor.rollout(actions=actions[:1])
        monitor.step()
        row = record.last
    assert row["policy.action.dominance/0"] == pytest.approx(0.75)
    assert row["policy.action.dominance/1"] == pytest.approx(0.5)


def test_actions_that_cannot_be_are_no_index() -> None:
    """NaN, negative and too large: counted at the nearest, never an index out of range."""
    (row,) = rolled({"actions": torch.tensor([math.nan, -7.0, 99.0, 1e30])}, action_space=space(n=2))
    assert row["policy.action.dominance"] == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturation_counts_numbers_on_or_beyond_their_bound(dtype: torch.dtype) -> None:
    """Each dimension has its own bounds; an infinite one is never reached."""
    box = space(low=np.array([-1.0, -np.inf]), high=np.array([1.0, 2.0]))
    actions = torch.tensor([[-1.0, -50.0], [0.5, 2.0], [3.0, 1.0]]).to(dtype)
    (row,) = rolled({"actions": actions}, action_space=box)
    whole = actions.double()
    assert row["policy.action.saturated"] == 3.0
    assert row["policy.action"] == pytest.approx((6.0, float(whole.mean()), float(((whole - whole.mean()) ** 2).sum())))


def test_saturation_without_bounds_is_undefined() -> None:
    """Moments are there."""
    box = space(low=np.array([-np.inf]), high=np.array([np.inf]))
    (row,) = rolled({"actions": torch.tensor([1.0, 3.0])}, action_space=box)
    assert (row["policy.action"], row["policy.action.saturated"]) == ((2.0, 2.0, 2.0), Status.UNDEFINED)


@pytest.mark.parametrize(
    ("actions", "status"),
    [
        (torch.ones(3), Status.SHAPE),
        (torch.ones(0, 2), Status.UNDEFINED),
        (torch.ones(2, 2, dtype=torch.complex64), Status.DTYPE),
        (["left", "right"], Status.DTYPE),
    ],
)
def test_actions_that_do_not_fit_say_why(actions: Any, status: Status) -> None:
    """Of a Box of two dimensions."""
    (row,) = rolled({"actions": actions}, action_space=space(low=(0.0, 0.0), high=(1.0, 1.0)))
    assert {row["policy.action"], row["policy.action.saturated"]} == {status}


@pytest.mark.parametrize("other", [None, space(n=1e9), space(nvec=np.array([])), space(low=None, high=None), space(shape=(3,))])
def test_actions_of_an_unknown_space_are_not_measured(other: Any) -> None:
    """Without bounds and counts there is nothing to compare them with."""
    (row,) = rolled({"actions": torch.ones(3)}, action_space=other)
    assert row["policy.action"] is Status.NOT_CALLED


# Standard deviations.


@pytest.mark.parametrize("name", ["log_std", "actor_logstd"])
def test_deviation_of_a_named_parameter_is_read_at_the_end(name: str) -> None:
    """Its exponential; one of three dimensions is collapsing."""
    with passed(parameters={name: torch.tensor([0.0, math.log(2.0), math.log(1e-4)])}) as (monitor, record):
        monitor.step()
        row = record.last
    deviations = torch.tensor([1.0, 2.0, 1e-4]).double()
    assert (row["policy.std.min"], row["policy.std.max"]) == pytest.approx((1e-4, 2.0), rel=1e-6)
    assert row["policy.std"] == pytest.approx(
        (3.0, float(deviations.mean()), float(deviations.var(correction=0) * 3)), rel=1e-6
    )


def test_deviation_of_a_parameter_that_is_one_may_be_negative() -> None:
    """Nothing keeps a raw parameter above 0, and the crash it causes is what this is for."""
    with passed(parameters={"std": torch.tensor([0.5, -0.1])}) as (monitor, record):
        monitor.step()
        assert record.last["policy.std.min"] == pytest.approx(-0.1)


def test_deviation_that_is_passed_goes_before_the_parameter() -> None:
    """Of the last minibatch; NaN stays one."""
    with passed(parameters={"log_std": torch.zeros(2)}) as (monitor, record):
        monitor.ppo(std=torch.full((4, 2), 9.0))
        monitor.ppo(std=torch.tensor([[0.5, 3.0]]))
        monitor.step()
        assert (record.last["policy.std.min"], record.last["policy.std.max"]) == (0.5, 3.0)
        monitor.ppo(std=torch.tensor([math.nan, 3.0]))
        monitor.step()
        assert math.isnan(record.last["policy.std.min"])
        monitor.step()
        assert record.last["policy.std.min"] == 1.0


@pytest.mark.parametrize(
    ("std", "status"), [("1", Status.DTYPE), (torch.ones(2).long(), Status.DTYPE), (torch.ones(0), Status.UNDEFINED)]
)
def test_deviation_that_does_not_fit_says_why(std: Any, status: Status) -> None:
    """And none is made up."""
    with monitoring() as (monitor, record):
        monitor.ppo(std=std)
        monitor.step()
        assert {record.last[name] for name in ("policy.std", "policy.std.min", "policy.std.max")} == {status}


def test_deviation_of_two_parameters_is_not_guessed() -> None:
    """Which of them acts is not known."""
    with passed(parameters={"log_std": torch.zeros(2), "std": torch.ones(2)}) as (monitor, record):
        monitor.step()
        assert record.last["policy.std"] is Status.NOT_CALLED
