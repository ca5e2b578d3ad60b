"""Reductions on the device: a block of staged minibatches, or a list of tensors, becomes one short vector.

Nothing here reads a value, so nothing waits for the device. Sums are taken in float64 wherever the device has it: a
float32 sum of squares overflows at 1e19 and loses the variance of values with a large mean. Casts are multiplications
by a float64 one and copies are `stack(out=)`, so that the only `copy_` of an update is the transfer to the host, and a
test can count it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from gradwatch_agent.device.block import BlockReduction, numbers_of
from gradwatch_agent.device.transfer import host_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from gradwatch_agent.device.plan import Plan

REDUCTIONS_MAX = 64
"""Shapes of blocks whose reduction is kept: with minibatches of any length, each update has others."""

PIECE = 1 << 18
"""Elements whose squares are added up in float32 at once."""

is_grad_enabled = torch.is_grad_enabled
set_grad: Callable[[bool], object] = getattr(torch._C, "_set_grad_enabled", torch.set_grad_enabled)
"""Switch gradients without the context manager, which costs 3 microseconds a call. Inside the `try` that switches them back:
before it, Ctrl-C could leave a notebook without gradients."""


@dataclass(slots=True)
class Reducer:
    """The reductions of one device. `one` is 1 in the accumulator dtype: times it, anything becomes that dtype. `spent_ns`:
    what the optional parts of blocks took of the calling thread, by field of `Plan`."""

    device: torch.device
    dtype: torch.dtype = field(init=False)
    one: Tensor = field(init=False)
    spent_ns: dict[str, int] = field(default_factory=dict)
    _area: Tensor = field(init=False, repr=False)
    _reductions: dict[tuple[int, int, int], BlockReduction] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Choose the accumulator dtype: float64, or float32 on a device that has none (Apple's)."""
        with torch.inference_mode(False):
            try:
                self.one = torch.ones(1, dtype=torch.float64, device=self.device)
            except TypeError:
                self.one = torch.ones(1, dtype=torch.float32, device=self.device)
        self.dtype = self.one.dtype
        self._area = self.empty(0)

    def empty(self, numbers: int) -> Tensor:
        """A vector in the accumulator dtype; one made inside inference mode could not be written outside it."""
        with torch.inference_mode(False):
            return torch.empty(numbers, dtype=self.dtype, device=self.device)

    def block(self, staged: Tensor, plan: Plan) -> Tensor:
        """Reduce `staged` [plan.channels, rows, samples] to a new vector, which `read_block` reads.

        The area takes up to three times the float64 size of the block, so the caller bounds the block.
        """
        _, rows, samples = staged.shape
        key = (id(plan), rows, samples)
        reduction = self._reductions.get(key) or self._plan_for(key, plan)
        return torch.mul(reduction.run(staged), self.one)

    def _plan_for(self, key: tuple[int, int, int], plan: Plan) -> BlockReduction:
        """A new reduction, for this shape."""
        _, rows, samples = key
        wanted = numbers_of(plan, rows, samples)
        grows = len(self._area) < wanted
        if grows or len(self._reductions) >= REDUCTIONS_MAX:
            self._reductions.clear()
        if grows:
            self._area = self.empty(wanted + wanted // 4)
        made = self._reductions[key] = BlockReduction(plan, rows, samples, self._area, self)
        return made

    def spend(self, part: str, begin_ns: int) -> None:
        """Note what an optional part took."""
        self.spent_ns[part] = self.spent_ns.get(part, 0) + time.perf_counter_ns() - begin_ns

    def norms(self, tensors: Sequence[Tensor]) -> Tensor:
        """L2 norm of each non-empty dense tensor, [len(tensors)].

        float32 tensors on the CPU are accumulated in float32, in pieces of `PIECE` elements: relative error some 1e-6, and 0
        for norms below 1e-22. Torch's of a whole tensor, which clipping takes, is off by 1e-5 at 1M elements and 1e-3 at 20M.
        float64 takes 5 to 20 times as long there (measured on 5M numbers), so it comes only after a norm that is not finite, to
        tell numbers above 1e19 from infinite ones. Anything else is accumulated in float64.
        """
        private = getattr(torch, "_foreach_norm", None)
        if private is not None and self.device.type == "cpu" and all(tensor.dtype is torch.float32 for tensor in tensors):
            norms = torch.stack(_in_pieces(private, list(tensors)))
            if not is_overflow(norms):
                return norms
        return torch.stack(foreach_norm(tensors, self.dtype))

    def vector(self, scalars: list[Tensor]) -> Tensor:
        """0-dim real tensors as one vector in the accumulator dtype."""
        return torch.mul(torch.stack(scalars), self.one)


def _in_pieces(private: Callable[..., Sequence[Tensor]], tensors: list[Tensor]) -> list[Tensor]:
    """The norms of float32 tensors, of a large one as that of the norms of its pieces, which are views."""
    if max(map(torch.numel, tensors)) <= PIECE:
        return list(private(tensors, 2.0))
    cut = [torch.split(tensor.view(-1), PIECE) if tensor.is_contiguous() else (tensor,) for tensor in tensors]
    found = iter(private([piece for pieces in cut for piece in pieces], 2.0))
    norms = [[next(found) for _ in pieces] for pieces in cut]
    return [parts[0] if len(parts) == 1 else torch.linalg.vector_norm(torch.stack(parts)) for parts in norms]


def is_overflow(norms: Tensor) -> bool:
    """Whether one of these norms is not finite, which numbers of a short dtype may be to blame for. Never said of another
    device: reading them would wait."""
    known = host_values(norms)
    return known is not None and not math.isfinite(sum(known))


def copy_all(tensors: Sequence[Tensor]) -> list[Tensor]:
    """A copy of each tensor: times one, so that `copy_` stays the mark of a transfer."""
    private = getattr(torch, "_foreach_mul", None)
    return [torch.mul(tensor, 1.0) for tensor in tensors] if private is None else list(private(list(tensors), 1.0))


def subtract_all(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """The differences, pair by pair."""
    private = getattr(torch, "_foreach_sub", None)
    if private is None:
        return [torch.sub(tensor, other) for tensor, other in zip(tensors, others, strict=True)]
    return list(private(list(tensors), list(others)))


def foreach_norm(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """L2 norm of each tensor in `dtype`.

    One kernel for all tensors where torch has it, since about 2024 with `dtype=`; else one public call per tensor, and on
    the CPU too, where that kernel first makes a copy of each tensor in `dtype`: twice the largest parameter.
    """
    private = getattr(torch, "_foreach_norm", None)
    if private is not None and tensors[0].device.type != "cpu":
        try:
            return list(private(list(tensors), 2, dtype=dtype))
        except (TypeError, RuntimeError):
            pass
    return [torch.linalg.vector_norm(tensor, 2, dtype=dtype) for tensor in tensors]
