"""Reductions of one block, and the adapter around the private multi-tensor norm."""

from __future__ import annotations

import math
import struct

import pytest
import torch

from gradwatch_agent.device.plan import Plan, largest, least, read_block
from gradwatch_agent.device.reduce import Reducer, copy_all, foreach_norm, subtract_all

CPU = torch.device("cpu")


def test_foreach_norm_without_the_private_kernel_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The public fallback: an older or newer torch without the kernel, or without its `dtype`."""
    tensors = [torch.randn(7), torch.full((3, 3), 1e20), torch.tensor([math.inf]), torch.tensor([math.nan])]
    expected = [float(norm) for norm in foreach_norm(tensors, torch.float64)]
    monkeypatch.delattr(torch, "_foreach_norm")
    without = [float(norm) for norm in foreach_norm(tensors, torch.float64)]
    monkeypatch.setattr(torch, "_foreach_norm", lambda tensors, p: None, raising=False)
    without_dtype = [float(norm) for norm in foreach_norm(tensors, torch.float64)]
    assert without == pytest.approx(expected, nan_ok=True)
    assert without_dtype == pytest.approx(expected, nan_ok=True)
    assert expected[1] == pytest.approx(3e20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_foreach_norm_is_accumulated_in_float64(dtype: torch.dtype) -> None:
    """A bfloat16 norm of bfloat16 gradients has three digits."""
    tensor = torch.randn(10_001, generator=torch.Generator().manual_seed(0)).to(dtype)
    (norm,) = foreach_norm([tensor], torch.float64)
    assert norm.dtype is torch.float64
    assert float(norm) == pytest.approx(float(tensor.double().norm()), rel=1e-12)


def test_reducer_on_a_device_without_float64_uses_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's GPUs have none; the numbers are the same to float32."""
    ones = torch.ones

    def no_float64(*shape: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        if dtype is torch.float64:
            raise TypeError("no float64 here")
        return ones(*shape, dtype=dtype, device=device)

    monkeypatch.setattr(torch, "ones", no_float64)
    reducer = Reducer(CPU)
    assert reducer.dtype is torch.float32
    vector = reducer.block(torch.tensor([[[1.0, 2.0], [3.0, 6.0]]]), Plan(1))
    assert vector.dtype is torch.float32
    facts = read_block([float(value) for value in vector], Plan(1), 2, 2, 0)
    assert (facts.n, facts.total, facts.m2) == ([4.0], [12.0], [14.0])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("rows", [1, 3])
def test_block_length_is_what_the_plan_says(masked: bool, clip: float | None, rows: int) -> None:
    """The packed vector is cut by these lengths on the host."""
    plan = Plan(5, ratio=True, errors=((3, 2),), clip=clip, masked=masked)
    staged = torch.ones(plan.channels, rows, 4)
    assert Reducer(CPU).block(staged, plan).shape == (plan.numbers(rows),)


def test_block_leaves_the_staged_rows_alone() -> None:
    """They may be reduced while the trainer goes on; a second pass gives the same."""
    staged = torch.randn(3, 2, 5)
    before = staged.clone()
    Reducer(CPU).block(staged, Plan(3, ratio=True, clip=0.2))
    assert torch.equal(staged, before)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], math.inf), ([2.0, 1.0], 1.0), ([math.inf, -math.inf], -math.inf), ([math.inf], math.inf)],
)
def test_least_of_values(values: list[float], expected: float) -> None:
    """Also where the sum is NaN and no value is."""
    assert least(values) == expected


def test_least_with_nan_is_nan() -> None:
    """`min` alone depends on the order."""
    assert math.isnan(least([1.0, math.nan, -1.0]))


@pytest.mark.parametrize("values", [[], [1.0, 2.0], [-0.0, 0.0], [0.0, -0.0], [math.inf, -math.inf], [1.0, math.nan, 3.0]])
def test_largest_is_the_least_of_the_opposites_to_the_last_bit(values: list[float]) -> None:
    """Of NaN and of zeros too, which have signs that travel."""
    assert struct.pack("<d", largest(values)) == struct.pack("<d", -least([-value for value in values]))


def test_copies_and_differences_without_the_private_kernels_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, NaN included; a copy shares no memory."""
    tensors = [torch.randn(3), torch.tensor([math.nan, -0.0, 1e-40])]
    for _ in range(2):
        copies = copy_all(tensors)
        assert all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(copies, tensors, strict=True))
        assert copies[0].data_ptr() != tensors[0].data_ptr()
        assert torch.equal(subtract_all(tensors, [torch.ones(3), torch.ones(3)])[0], tensors[0] - 1)
        monkeypatch.delattr(torch, "_foreach_mul", raising=False)
        monkeypatch.delattr(torch, "_foreach_sub", raising=False)
