"""What `rollout` makes of tensors, arrays and sequences, good and bad."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring, read

pytestmark = pytest.mark.usefixtures("strict")


def measured(*calls: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The row of one update with these `rollout` calls."""
    with monitoring(**settings) as (monitor, record):
        for call in calls:
            monitor.rollout(**call)
        monitor.step()
        return record.last


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        ("words", Status.DTYPE),
        (object(), Status.DTYPE),
        (torch.zeros(3, dtype=torch.complex64), Status.DTYPE),
        (torch.zeros(3).to_sparse(), Status.DTYPE),
        (np.array(["a"]), Status.DTYPE),
        (torch.zeros(0), Status.UNDEFINED),
        ([], Status.UNDEFINED),
        (None, Status.NOT_CALLED),
    ],
)
def test_rollout_unusable_argument_gives_its_reason(bad: object, status: Status) -> None:
    """Its partners are still measured."""
    row = measured({"rewards": bad, "values": torch.ones(3)})
    assert row["reward.step"] is status
    assert row["reward.step.nonfinite"] is status
    assert row["value.pred"] == (3.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("values", "returns", "status"),
    [
        (torch.zeros(3), torch.zeros(3, 1), Status.SHAPE),
        (torch.zeros(4), torch.zeros(3), Status.SHAPE),
        (torch.zeros(3, device="meta"), torch.zeros(3), Status.DEVICE),
        (torch.zeros(3), None, Status.NOT_CALLED),
        ("no", torch.zeros(3), Status.DTYPE),
    ],
)
def test_rollout_error_needs_values_and_returns_of_one_shape(values: object, returns: object, status: Status) -> None:
    """Nothing is broadcast into an explained variance."""
    with monitoring() as (monitor, record):
        monitor.rollout(values=values, returns=returns)
        measurement = monitor._measurement
        assert measurement is not None
        if isinstance(values, torch.Tensor) and values.is_meta:
            assert measurement.tally.reasons["value.error", ""] is status
            measurement.abandon()
            return
        monitor.step()
        assert record.last["value.error"] is status


@pytest.mark.parametrize("make", [torch.tensor, np.array, list], ids=["tensor", "numpy", "list"])
def test_rollout_takes_tensors_arrays_and_sequences(make: Any) -> None:
    """Whatever `torch.as_tensor` takes."""
    row = measured({"rewards": make([1.0, 2.0, 6.0]), "values": make([1.0, 1.0, 1.0]), "returns": make([2.0, 3.0, 4.0])})
    assert row["reward.step"] == (3.0, 3.0, 14.0)
    assert row["value.target"] == (3.0, 3.0, 2.0)
    assert row["value.error"] == (3.0, 2.0, 2.0)


def test_rollout_integers_and_booleans_are_exact() -> None:
    """Rewards are often integers, observations bytes."""
    row = measured({"rewards": torch.tensor([2**53 - 1, 1]), "observations": torch.arange(256).to(torch.uint8).reshape(2, 128)})
    assert row["reward.step"][1] == 2.0**52
    assert row["obs.input"][:2] == (256.0, 127.5)


def test_rollout_called_twice_merges() -> None:
    """A trainer may collect in parts."""
    whole = torch.randn(64, generator=torch.Generator().manual_seed(1))
    parts = measured({"rewards": whole[:20]}, {"rewards": whole[20:]})
    assert parts["reward.step"] == pytest.approx(measured({"rewards": whole})["reward.step"])


def usual(**changed: Any) -> dict[str, Any]:
    """A whole rollout, the same each time but for what is changed."""
    generator = torch.Generator().manual_seed(1)
    names = ("rewards", "values", "returns", "advantages")
    given: dict[str, Any] = {name: torch.randn(6, 2, generator=generator) for name in names}
    return {**given, "observations": torch.randn(6, 2, 3, generator=generator), **changed}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"rewards": torch.full((6, 2), math.nan)},
        {"rewards": torch.arange(12).reshape(6, 2)},
        {"values": torch.full((6, 2), 1e9 + 1, dtype=torch.float64)},
        {"returns": torch.ones(12)},
        {"returns": torch.ones(6, 2).to_sparse()},
        {"returns": torch.ones(6, 2, device="meta")},
        {"advantages": None},
        {"advantages": [1.0, 2.0]},
        {"observations": None},
        {"observations": {"a": torch.ones(6, 2, 3)}},
        {"observations": torch.ones(3, 2, 6).permute(2, 1, 0)},
        {"obs_clip": 0.5},
    ],
    ids=lambda changed: "-".join(changed) or "same",
)
def test_rollout_after_one_like_it_is_measured_as_the_first(changed: dict[str, Any]) -> None:
    """What is known of the last rollout holds only for one like it, and both ways give the same columns and reasons."""
    with monitoring() as (monitor, record):
        for call in (usual(), usual(), usual(**changed), usual(**changed), usual()):
            monitor.rollout(**call)
            monitor.step()
    rows = [{name: value for name, value in read(row).items() if not name.startswith("sys.")} for row in record.rows]
    expected, plain = (
        {name: value for name, value in measured(call).items() if not name.startswith("sys.")}
        for call in (usual(**changed), usual())
    )
    assert [repr(row) for row in rows] == [repr(row) for row in (plain, plain, expected, expected, plain)]


def test_rollout_dict_observations_are_one_signal() -> None:
    """A Dict observation space: moments over all elements."""
    row = measured({"observations": {"a": torch.ones(4, 2), "b": torch.zeros(4, 6)}})
    assert row["obs.input"][:2] == (32.0, 0.25)


def test_rollout_larger_than_the_scratch_area_is_reduced_in_slices() -> None:
    """The slices merge to the whole, non-finite elements included, also when flattening would copy."""
    big = torch.randn(3, 40_000, generator=torch.Generator().manual_seed(2))
    big[2, 39_999] = math.inf
    small = {"max_staged_bytes": 64 * 1024}
    for observations in (big, big.t()):
        row = measured({"observations": observations, "rewards": big[:2]}, **small)
        assert row["obs.input.nonfinite"] == 1.0
        assert row["reward.step"] == pytest.approx(
            (80_000.0, float(big[:2].double().mean()), float(big[:2].double().var(correction=0)) * 80_000)
        )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rollout_nonfinite_reward_is_counted(value: float) -> None:
    """Rewards are the first stage a fault of an environment is seen in."""
    row = measured({"rewards": torch.tensor([1.0, value, value])})
    assert row["reward.step.nonfinite"] == 2.0
    assert not math.isfinite(row["reward.step"][1])


def test_rollout_unknown_argument_is_hinted(caplog: pytest.LogCaptureFixture) -> None:
    """With the nearest name."""
    measured({"reward": torch.zeros(1)})
    assert "did you mean 'rewards'" in caplog.text


def test_rollout_below_normal_collects_nothing() -> None:
    """Not at MINIMAL."""
    assert measured({"rewards": torch.zeros(1)}, level=Level.MINIMAL)["reward.step"] is Status.LEVEL
