"""Norms of gradients and weights against a float64 reference that takes one tensor after the other.

Of any dtype, layout and size, with NaN, infinities, numbers that overflow and numbers that vanish. The same suite runs with
what torch keeps to itself (`_foreach_norm`, the two functions that clip) and without it.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import clip_grad

from gradwatch_agent.device.clip import PARAMETERS
from gradwatch_agent.device.reduce import Reducer
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TORCHES = ("private", "no foreach", "no clip internals")
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
DTYPES = [*FLOATS, torch.complex64, torch.complex128]
SPECIAL = [math.nan, math.inf, -math.inf, 0.0, 1e20, -1e20, 1e-40, 1e-7]
SCALES = [1.0, 1.0, 1e-3, 1e4, 1e-25, 1e20]
MAX_NORM = 0.5
VANISHING = 1e-7

PRECISION = {
    torch.float32: (2e-6, 1e-18),  # norms below are of squares that float32 cannot hold
    torch.float64: (1e-12, 1e-150),
    torch.bfloat16: (2e-2, 1e-18),  # clip_grad_norm_ itself gives three digits
    torch.float16: (2e-3, 1e-4),
    torch.complex64: (2e-6, 1e-18),
    torch.complex128: (1e-12, 1e-150),
}
"""Relative and absolute error of a norm by dtype; of several dtypes the worst."""


class Still(torch.optim.Optimizer):
    """Steps that change nothing, so that any parameter may be given to it."""

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        super().__init__(list(parameters), {"lr": 0.1})

    def step(self, closure: Any = None) -> None:
        """Do nothing."""


@dataclass
class Model:
    """Parameters by name, as a module has them."""

    tensors: list[torch.nn.Parameter]

    def parameters(self) -> list[torch.nn.Parameter]:
        """See torch.nn.Module."""
        return self.tensors

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """See torch.nn.Module."""
        return [(f"p{number}", tensor) for number, tensor in enumerate(self.tensors)]


def filled(draw: st.DrawFn, generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor at some scale with a few special values, contiguous or not."""
    real = torch.randn(shape, generator=generator, dtype=torch.float64) * draw(st.sampled_from(SCALES))
    tensor = (torch.complex(real, -real) if dtype.is_complex else real).to(dtype)
    if tensor.numel() and draw(st.integers(0, 3)) == 0:
        tensor.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = draw(st.sampled_from(SPECIAL))
    layout = draw(st.sampled_from(["plain", "strided", "transposed"]))
    if layout == "strided" and tensor.numel():
        return torch.stack([tensor, torch.zeros_like(tensor)], -1)[..., 0]
    return tensor.t().contiguous().t() if layout == "transposed" and tensor.dim() == 2 else tensor


@st.composite
def models(draw: st.DrawFn) -> Model:
    """A few tensors of one dtype, or of several; some without a gradient, some empty."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    common = draw(st.sampled_from([*DTYPES, None]))
    tensors = []
    for _ in range(draw(st.integers(1, 6))):
        dtype = common or draw(st.sampled_from(DTYPES))
        shape = draw(st.sampled_from([(), (1,), (7,), (3, 5), (2, 3, 4), (0,), (300,)]))
        parameter = torch.nn.Parameter(filled(draw, generator, shape, dtype))
        if draw(st.integers(0, 4)):
            parameter.grad = filled(draw, generator, shape, dtype)
        tensors.append(parameter)
    return Model(tensors)


@contextmanager
def torch_of(kind: str) -> Iterator[None]:
    """A torch with its private functions, without the multi-tensor ones, or with others where clipping is wrapped."""
    with pytest.MonkeyPatch.context() as patch:
        if kind != "private":
            for name in ("_foreach_norm", "_foreach_mul", "_foreach_sub"):
                patch.delattr(torch, name)
        if kind == "no clip internals":
            for name in PARAMETERS:
                patch.setattr(clip_grad, name, lambda tensors, order: None)
        yield


def norm_of(tensor: torch.Tensor) -> float:
    """In float64, one element after the other in effect: scaled so that no square overflows or vanishes."""
    wide = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
    wide = wide.double().abs().reshape(-1)
    if not bool(torch.isfinite(wide).all()):
        return math.nan if bool(torch.isnan(wide).any()) else math.inf
    peak = float(wide.max())
    return peak * math.sqrt(float((wide / peak).square().sum())) if peak else 0.0


def total_of(norms: Sequence[float]) -> float:
    """Of all tensors."""
    if any(map(math.isnan, norms)):
        return math.nan
    return math.hypot(*norms)


def same(got: float, expected: float, dtypes: set[torch.dtype]) -> bool:
    """Equal to the precision of the dtypes; NaN is NaN and an infinity is one."""
    if not math.isfinite(expected) or not math.isfinite(got):
        return math.isnan(got) == math.isnan(expected) and math.isinf(got) == math.isinf(expected)
    relative, absolute = (max(PRECISION[dtype][part] for dtype in dtypes) for part in (0, 1))
    return math.isclose(got, expected, rel_tol=relative, abs_tol=absolute)


def measured(model: Model, kind: str, clip: bool) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """The row of an update with one step, at DEBUG, and its table of layers."""
    optimizer = Still(model.parameters())
    with torch_of(kind), monitoring(modules=(model,), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, record):
        if clip:
            clip_grad.clip_grad_norm_(model.parameters(), MAX_NORM, foreach=None if kind == "private" else False)
        optimizer.step()
        monitor.step()
        return record.last, record.table("layers")


def check_gradients(row: dict[str, Any], norms: list[float], dtypes: set[torch.dtype], clip: bool) -> None:
    """Every column of gradients."""
    if not norms:
        assert row["grad.norm"] is row["grad.tensors"] is Status.NO_GRADIENT
        return
    total = total_of(norms)
    n, mean, _ = row["grad.norm"]
    assert n == 1.0
    assert same(mean, total, dtypes), (mean, total)
    assert same(row["grad.norm.max"], total, dtypes)
    assert row["grad.norm.nonfinite"] == float(not math.isfinite(total))
    assert row["grad.tensors"] == len(norms)
    finite = [norm for norm in norms if math.isfinite(norm)]
    if len(finite) == len(norms):
        assert same(row["grad.tensor_norm.max"], max(norms), dtypes)
        assert same(row["grad.tensor_norm.min"], min(norms), dtypes)
    else:
        assert not math.isfinite(row["grad.tensor_norm.max"])
    count(row["grad.vanishing"], norms, VANISHING, dtypes, below=True)
    if clip:
        count(row["grad.exploding"], norms, 10 * MAX_NORM, dtypes, below=False)
    else:
        assert row["grad.exploding"] is Status.UNDEFINED


def count(got: float, norms: list[float], bound: float, dtypes: set[torch.dtype], *, below: bool) -> None:
    """How many are beyond a bound; those that rounding may move across it may be counted or not."""
    near = sum(same(norm, bound, dtypes) for norm in norms)
    sure = sum((norm < bound if below else norm > bound) and not same(norm, bound, dtypes) for norm in norms)
    assert sure <= got <= sure + near, (got, sure, near, norms)


def check(model: Model, kind: str, clip: bool) -> None:
    """Compare the row and the table of one update with the reference."""
    filled_ = [(name, tensor) for name, tensor in model.named_parameters() if tensor.numel()]
    gradients = {name: norm_of(tensor.grad) for name, tensor in filled_ if tensor.grad is not None}
    weights = {name: norm_of(tensor) for name, tensor in filled_}
    dtypes = {tensor.dtype for _, tensor in filled_} or {torch.float32}
    row, layers = measured(model, kind, clip)
    check_gradients(row, list(gradients.values()), dtypes, clip)
    if weights:
        assert same(row["param.norm"], total_of(list(weights.values())), dtypes)
        assert row["param.nonfinite"] == sum(not math.isfinite(norm) for norm in weights.values())
    for name, numbers in layers.items():
        assert same(numbers["weight_norm"], weights[name], dtypes), name
        if name in gradients:
            assert same(numbers["grad_norm"], gradients[name], dtypes), name
        else:
            assert math.isnan(numbers["grad_norm"])
    assert set(layers) == set(weights)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own errors are raised."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")


@pytest.mark.parametrize("kind", TORCHES)
@given(model=models(), clip=st.booleans())
@settings(max_examples=40, deadline=None)
def test_norms_of_any_model_equal_the_reference(kind: str, model: Model, clip: bool) -> None:
    """Where clipping is another torch's, nothing is clipped and the step is where they are taken."""
    check(model, kind, clip and kind != "no clip internals")


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", TORCHES)
@given(model=models(), clip=st.booleans())
@settings(max_examples=5000, deadline=None)
def test_norms_of_very_many_models_equal_the_reference(kind: str, model: Model, clip: bool) -> None:
    """The same, for an hour's sake."""
    check(model, kind, clip and kind != "no clip internals")


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("kind", TORCHES)
def test_norms_of_many_tensors_equal_the_reference(kind: str, clip: bool) -> None:
    """More than the 400 that one launch of a multi-tensor kernel takes; the special ones at its edges."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.nn.Parameter(torch.randn(3, generator=generator)) for _ in range(850)]
    for number, parameter in enumerate(tensors):
        parameter.grad = torch.randn(3, generator=generator) * 10.0 ** (number % 40 - 20)
    tensors[399].grad, tensors[400].grad = torch.zeros(3), None
    check(Model(tensors), kind, clip and kind != "no clip internals")
    assert tensors[401].grad is not None
    tensors[401].grad[1] = math.inf
    check(Model(tensors), kind, clip and kind != "no clip internals")


@pytest.mark.parametrize("kind", TORCHES)
@pytest.mark.parametrize(
    ("other", "status"),
    [
        (torch.sparse_coo_tensor(torch.tensor([[1]]), torch.tensor([2.0]), (3,), check_invariants=True), Status.DTYPE),
        (torch.nn.Parameter(torch.ones(3)), None),
        (torch.ones(3, device="meta"), Status.DEVICE),
    ],
    ids=["sparse", "parameter", "meta"],
)
def test_norms_of_a_part_never_pass_for_the_whole(kind: str, other: torch.Tensor, status: Status | None) -> None:
    """One gradient that cannot be measured among those that can: no norm is told, and why."""
    plain, odd = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3, device=other.device))
    plain.grad, odd.grad = torch.ones(3), other
    row, _ = measured(Model([plain, odd]), kind, clip=False)
    for name in ("grad.norm", "grad.norm.max", "grad.tensors", "grad.vanishing", "grad.tensor_norm.max"):
        assert isinstance(row[name], Status) == (status is not None), name
        assert status is None or row[name] is status, name


def test_other_torch_is_told_once_by_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Norms taken after clipping are not those before it: the author must know."""
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    measured(Model([parameter]), "no clip internals", clip=False)
    assert sum("after any clipping" in record.getMessage() for record in caplog.records) == 1
    measured(Model([parameter]), "private", clip=True)
    assert sum("after any clipping" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("turned", [False, True])
def test_norms_of_large_tensors_are_as_near_as_those_of_small_ones(turned: bool) -> None:
    """torch's own float32 norm of so many numbers is off by 1e-4; a tensor that lies across memory is taken whole, as it is."""
    generator = torch.Generator().manual_seed(4)
    large = torch.randn(2000, 2000, generator=generator)
    tensors = [torch.randn(3, generator=generator), large.t() if turned else large, torch.randn(300_000, generator=generator)]
    told = Reducer(torch.device("cpu")).norms(tensors).tolist()
    true = [float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) for tensor in tensors]
    assert told == pytest.approx(true, rel=3e-4 if turned else 5e-6)
