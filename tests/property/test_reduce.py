"""Every reduction against a float64 reference that looks at one minibatch after the other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gradwatch_contracts.columns import Status
from harness.recording import monitoring

CLIP = 0.2
NAMES = ("new_logp", "old_logp", "values", "returns", "advantages", "entropy")
SPECIAL = [math.nan, math.inf, -math.inf, 0.0, 1e20, -3.0, 1e-40, 5e-324]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@st.composite
def updates(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Minibatches: ragged, one dtype each, some with special values, masked, non-contiguous or two-dimensional."""
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    sizes = draw(st.lists(st.sampled_from([1, 2, 6, 33]), min_size=1, max_size=6))
    dtype = draw(st.sampled_from(DTYPES))
    masked = draw(st.booleans())
    calls = []
    for size in sizes:
        call: dict[str, Any] = {name: torch.randn(size, generator=generator).to(dtype) for name in NAMES}
        for _ in range(draw(st.integers(0, 2))):
            value = draw(st.sampled_from(SPECIAL))
            call[draw(st.sampled_from(NAMES))][draw(st.integers(0, size - 1))] = value
        shape = draw(st.sampled_from(["flat", "strided", "square"]))
        if shape == "strided":
            call = {name: torch.stack([tensor, tensor], 1)[:, 0] for name, tensor in call.items()}
        elif shape == "square" and size % 2 == 0:
            call = {name: tensor.reshape(2, -1) for name, tensor in call.items()}
        if masked:
            call["mask"] = torch.rand(call["values"].shape, generator=generator) > 0.3
        calls.append({**call, "loss": call["values"].sum(), "clip": CLIP})
    return calls


def reference(calls: list[dict[str, Any]]) -> dict[str, Any]:
    """The same columns, eagerly, in float64."""
    found: dict[str, Any] = {}
    rows = []
    for call in calls:
        keep = call.get("mask", torch.ones_like(call["values"], dtype=torch.bool))
        rows.append({name: call[name].double()[keep] for name in NAMES})
    log_ratios = [row["new_logp"] - row["old_logp"] for row in rows]
    k3s = [torch.expm1(log_ratio) - log_ratio for log_ratio in log_ratios]
    series = {
        "policy.logratio": log_ratios,
        "policy.kl.k3": k3s,
        "value.new": [row["values"] for row in rows],
        "value.new.error": [row["returns"] - row["values"] for row in rows],
        "adv.used": [row["advantages"] for row in rows],
        "policy.entropy": [row["entropy"] for row in rows],
        "loss.total": [call["loss"].double().reshape(1) for call in calls],
    }
    for name, parts in series.items():
        whole = torch.cat(parts)
        bad = [i for i, part in enumerate(parts) if not torch.isfinite(part).all()]
        found[name] = (len(whole), whole.mean(), ((whole - whole.mean()) ** 2).sum()) if len(whole) else Status.UNDEFINED
        found[f"{name}.nonfinite"] = float((~torch.isfinite(whole)).sum()) if len(whole) else Status.UNDEFINED
        found[f"{name}.nonfinite_mb"] = float(bad[0]) if bad else Status.UNDEFINED
    whole = torch.cat(log_ratios)
    if len(whole):
        deviation = torch.expm1(whole).abs()
        means = [part.mean() for part in k3s if len(part)]
        found["policy.ratio.max"], found["policy.ratio.min"] = whole.max().exp(), whole.min().exp()
        found["policy.logratio.absmax"] = whole.abs().max()
        found["policy.clipped"] = (deviation > CLIP).sum()
        found["policy.kl.k3.max"], found["policy.kl.k3.last"] = torch.stack(means).max(), means[-1]
        ratio, new_logp = torch.exp(whole), torch.cat([row["new_logp"] for row in rows])
        found["policy.ratio"] = (len(whole), ratio.mean(), ((ratio - ratio.mean()) ** 2).sum())
        found["policy.kl.k3.sample_max"] = (torch.expm1(whole) - whole).max()
        found["policy.clipped.high"] = (torch.expm1(whole) > CLIP).sum()
        found["policy.clipped.low"] = (torch.expm1(whole) < -CLIP).sum()
        found["policy.logp.min"], found["policy.logp.max"] = new_logp.min(), new_logp.max()
        used = torch.cat([row["advantages"] for row in rows])
        deviations = used - used.mean()
        found["adv.used.absmax"] = used.abs().max()
        found["adv.used.shape"] = (len(used), used.mean(), *((deviations**power).sum() for power in (2, 3, 4)))
        found["policy.ratio.first_mb_dev"] = torch.expm1(log_ratios[0]).abs().max() if len(log_ratios[0]) else Status.UNDEFINED
    return found


def same(got: Any, expected: Any, scale: float) -> bool:
    """Equal up to float64 rounding of values as large as `scale`; what is not finite only has to be so in both, as merging
    turns an infinity into NaN."""
    if isinstance(expected, Status) or isinstance(got, Status):
        return got is expected
    if isinstance(expected, tuple):
        n, mean, *powers = expected
        rest = [same(value, power, n * scale**k) for k, (value, power) in enumerate(zip(got[2:], powers, strict=True), 2)]
        return got[0] == n and same(got[1], mean, scale) and all(rest)
    if not math.isfinite(expected):
        return not math.isfinite(got)
    return math.isclose(got, float(expected), rel_tol=1e-9, abs_tol=1e-12 * scale)


def measured(calls: list[dict[str, Any]], **given_: Any) -> dict[str, Any]:
    """The row of one update."""
    with monitoring(**given_) as (monitor, record):
        for call in calls:
            monitor.ppo(**call)
        monitor.step()
        return record.last


def check(calls: list[dict[str, Any]], row: dict[str, Any]) -> None:
    """Compare every column of the reference that the registry has."""
    finite = [tensor[torch.isfinite(tensor)].double().abs() for call in calls for tensor in map(call.__getitem__, NAMES)]
    scale = 4.0 * max([1.0, *(float(tensor.max()) for tensor in finite if len(tensor))])
    for name, expected in reference(calls).items():
        if name in row:
            assert same(row[name], expected, scale), (name, row[name], expected)


@given(updates())
@settings(max_examples=150, deadline=None)
def test_reductions_of_any_update_equal_the_reference(calls: list[dict[str, Any]]) -> None:
    """However minibatches are shaped, the staged and merged columns are those of the concatenated samples."""
    check(calls, measured(calls))


@given(updates())
@settings(max_examples=50, deadline=None)
def test_reductions_in_a_tiny_staging_area_equal_the_reference(calls: list[dict[str, Any]]) -> None:
    """Blocks that overflow and minibatches that are sliced merge to the same columns."""
    check(calls, measured(calls, max_staged_bytes=1024))


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
@example([1e20, 1e20])
@example([1e8, 1e8 + 8])
@settings(max_examples=100, deadline=None)
def test_rollout_moments_of_any_floats_equal_the_reference(values: list[float]) -> None:
    """Also where a float32 sum of squares overflows or cancels."""
    with monitoring() as (monitor, record):
        monitor.rollout(rewards=torch.tensor(values))
        monitor.step()
        n, mean, m2 = record.last["reward.step"]
    whole = torch.tensor(values).double()
    assert n == len(values)
    if torch.isfinite(whole).all():
        assert mean == pytest.approx(float(whole.mean()), rel=1e-12, abs=1e-300)
        assert m2 == pytest.approx(
            float(((whole - whole.mean()) ** 2).sum()), rel=1e-6, abs=1e-6 * float(whole.abs().max()) ** 2
        )
    else:
        assert not math.isfinite(mean)


Pair = tuple[torch.Tensor, torch.Tensor]
ROLLOUT_DTYPES = [*DTYPES, torch.int64, torch.uint8, torch.bool]


@st.composite
def tensors(draw: st.DrawFn, dtypes: list[torch.dtype]) -> torch.Tensor:
    """A tensor of any of these dtypes and of one of a few shapes, contiguous or not; floats with special values."""
    shape = draw(st.sampled_from([(1,), (5,), (3, 4), (2, 3, 2), (40, 3)]))
    dtype = draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    tensor = (3.0 * torch.randn(shape, generator=generator)).to(dtype)
    for _ in range(draw(st.integers(0, 2)) if dtype.is_floating_point else 0):
        tensor.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = draw(st.sampled_from(SPECIAL))
    return torch.stack([tensor, tensor], -1)[..., 0] if draw(st.booleans()) else tensor


def moments_of(tensor: torch.Tensor) -> tuple[float, float, float]:
    """(n, mean, M2) in float64."""
    wide = tensor.double().reshape(-1)
    mean = wide.mean()
    return float(len(wide)), float(mean), float(((wide - mean) ** 2).sum())


def scale_of(*given_: torch.Tensor) -> float:
    """The largest finite size: what float64 rounding is relative to."""
    wide = torch.cat([tensor.double().reshape(-1).abs() for tensor in given_])
    return 2.0 * max(1.0, float(torch.where(torch.isfinite(wide), wide, 0.0).max()))


@given(tensors(ROLLOUT_DTYPES), st.sampled_from([64 * 1024, 1024]))
@settings(max_examples=100, deadline=None)
def test_rollout_of_any_tensors_equals_the_reference(rewards: torch.Tensor, room: int) -> None:
    """Five arguments of one shape and dtype, in one staging area and in slices; the error is that of the same elements."""
    values, returns = rewards.flip(0), rewards.roll(1, 0)
    with monitoring(max_staged_bytes=room) as (monitor, record):
        monitor.rollout(rewards=rewards, values=values, returns=returns, advantages=returns, observations=rewards)
        monitor.step()
        row = record.last
    expected = {"reward.step": rewards, "value.pred": values, "value.target": returns, "adv.raw": returns, "obs.input": rewards}
    expected["value.error"] = returns.double() - values.double()
    for name, tensor in expected.items():
        assert same(row[name], moments_of(tensor), scale_of(tensor)), (name, row[name], moments_of(tensor))
        if f"{name}.nonfinite" in row:
            assert row[f"{name}.nonfinite"] == float((~torch.isfinite(tensor.double())).sum())


@given(st.lists(st.tuples(tensors(DTYPES), tensors(DTYPES)), min_size=1, max_size=4), st.sampled_from([64 * 1024, 1024]))
@settings(max_examples=60, deadline=None)
def test_recurrent_states_of_any_tensors_equal_the_reference(
    states: list[tuple[torch.Tensor, torch.Tensor]], room: int
) -> None:
    """Hidden and cell states of any shapes, also unlike ones."""
    with monitoring(max_staged_bytes=room) as (monitor, record):
        for h, c in states:
            monitor.recurrent(h, c)
        monitor.step()
        row = record.last
    for name, which in (("rnn.h", 0), ("rnn.c", 1)):
        whole = torch.cat([state[which].double().reshape(-1) for state in states])
        assert same(row[f"{name}/update"], moments_of(whole), scale_of(whole))
        assert row[f"{name}.nonfinite/update"] == float((~torch.isfinite(whole)).sum())
    hidden, cell = (torch.cat([state[which].double().reshape(-1).abs() for state in states]) for which in (0, 1))
    assert row["rnn.h.saturated/update"] == float((hidden > 0.99).sum())
    assert same(row["rnn.c.absmax/update"], float(cell.max()), scale_of(cell))
