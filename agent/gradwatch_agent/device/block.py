"""One shape of block, reduced again and again: all views are made once, and a pass is a handful of operators.

In the trainer an operator costs five to twenty microseconds whatever its size, since training has driven its code from the
caches, and making a view costs as much. So whatever is summed lies side by side and is summed at once, counts are sums of
zeros and ones, and every operator writes where its result is wanted. Nothing here waits for a device.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch

from gradwatch_agent.device.plan import POWERS
from gradwatch_agent.device.transfer import host_values

if TYPE_CHECKING:
    from torch import Tensor

    from gradwatch_agent.device.plan import Plan
    from gradwatch_agent.device.reduce import Reducer


class BlockReduction:
    """The pass over a block [channels, rows, samples] by `plan`. `result` [plan.numbers(rows)] holds what the last one found:
    copy it before the next.

    `area`: one-dimensional, of at least `numbers_of(plan, rows, samples)` elements in the accumulator dtype; its content is
    lost at each pass, so all reductions of a device share it.
    """

    __slots__ = (
        "_bad",
        "_batch",
        "_bounded",
        "_centre",
        "_centred",
        "_count",
        "_counted",
        "_errors",
        "_finite",
        "_flags",
        "_high",
        "_low",
        "_many",
        "_masked",
        "_moments",
        "_plan",
        "_present",
        "_reducer",
        "_shape",
        "_slots",
        "_squared",
        "_squares",
        "_staged",
        "_summed",
        "_sums",
        "_total",
        "_totals",
        "result",
    )

    def __init__(self, plan: Plan, rows: int, samples: int, area: Tensor, reducer: Reducer) -> None:
        self._plan, self._reducer = plan, reducer
        slots, k = plan.slots, plan.moments
        first, summed, squared = slots.first, slots.summed, slots.squared
        x = area[: numbers_of(plan, rows, samples)].view(slots.width, rows, samples)
        self._slots = x.unbind(0)
        self._staged, self._errors = x[:k], [(x[a], x[b]) for a, b in plan.errors]
        self._summed, self._moments = x[first : first + summed], x[first : first + k]
        self._centred, self._squared = x[first : slots.flag], x[first : first + squared]
        self._bounded = x[slots.bounds : slots.bounds + slots.bounded]
        self._flags = x[slots.flag : slots.flag + slots.flags]
        self._masked = plan.masked
        self._count = rows * samples
        self.result = reducer.empty(plan.numbers(rows)).zero_()
        lengths = [summed * rows, slots.bounded * rows, slots.bounded * rows, squared, k, rows * plan.masked]
        sums, low, high, self._squares, self._bad, self._present, between = torch.split(
            self.result, [*lengths, int(plan.batch is not None)]
        )
        self._sums = sums.view(summed, rows)
        self._low, self._high = low.view(slots.bounded, rows), high.view(slots.bounded, rows)
        self._many = rows > 1
        self._totals = reducer.empty(summed) if self._many else sums
        self._total, self._finite = self._totals[: slots.centred].view(-1, 1, 1), self._totals[:k]
        self._centre = reducer.empty(slots.centred).view(-1, 1, 1)
        self._counted = False
        self._shape = None if plan.shape is None else (x[plan.shape], x[slots.flag], x[slots.flag + POWERS - 1])
        self._batch: tuple[Tensor | None, Tensor] | None = None
        if plan.batch is not None:
            whole = math.prod(plan.batch) == samples  # a slice of a large state has no such shape
            self._batch = (x[0].view(-1, *plan.batch) if whole else None), between.view(())

    def run(self, staged: Tensor) -> Tensor:
        """Reduce `staged` [plan.channels, rows, samples] to `result`, which `read_block` reads. Gradients must be off.

        Two passes for the squares, as the one-pass formula cancels. x - x is 0 for finite x and NaN for the others, which
        `count_nonzero` counts; a finite sum needs no count.
        """
        plan, slots = self._plan, self._slots
        absent = None
        if self._masked:
            absent = self._apply_mask(staged)
        else:
            torch.mul(staged, self._reducer.one, out=self._staged)
        if plan.ratio:
            log_ratio, deviation = slots[plan.moments], slots[plan.moments + 1]
            torch.sub(slots[0], slots[1], out=log_ratio)
        if plan.ranges:
            begin = time.perf_counter_ns()
            self._take_ranges(absent)
            self._reducer.spend("ranges", begin)
        elif plan.slots.bounded:
            self._take_bounds(absent)
        if plan.ratio:
            torch.expm1(log_ratio, out=deviation)
            torch.sub(deviation, log_ratio, out=slots[1])
        for minuend, subtrahend in self._errors:
            torch.sub(minuend, subtrahend, out=minuend)
        self._raise_flags(absent)
        torch.sum(self._summed, 2, out=self._sums)
        if self._many:
            torch.sum(self._sums, 1, out=self._totals)
        self._count_nonfinite()
        torch.div(self._total, self._count if absent is None else self._present.sum(), out=self._centre)
        torch.sub(self._centred, self._centre, out=self._centred)
        if absent is not None:
            self._centred.masked_fill_(absent, 0.0)
        if self._shape is not None:
            self._take_powers(*self._shape)
        torch.mul(self._centred, self._centred, out=self._centred)
        torch.sum(self._squared, (1, 2), out=self._squares)
        return self.result

    def _apply_mask(self, staged: Tensor) -> Tensor:
        """Zero the samples that do not count, whatever they hold; return where they are, [1, rows, samples]."""
        k = self._plan.moments
        torch.mul(staged[:k], self._reducer.one, out=self._staged)
        absent = staged[k:] < 0.5
        self._staged.masked_fill_(absent, 0.0)
        torch.sum(torch.logical_not(absent[0]), 1, dtype=self.result.dtype, out=self._present)
        return absent

    def _take_ranges(self, absent: Tensor | None) -> None:
        """Bounds of all channels, and not only of those that the core needs."""
        self._take_bounds(absent)

    def _take_bounds(self, absent: Tensor | None) -> None:
        """Least and largest of each row; of no samples, inf and -inf. NaN is both."""
        x = self._bounded
        torch.amin(x if absent is None else x.masked_fill(absent, math.inf), 2, out=self._low)
        torch.amax(x if absent is None else x.masked_fill(absent, -math.inf), 2, out=self._high)

    def _raise_flags(self, absent: Tensor | None) -> None:
        """1 where something is counted: clipped above and below, saturated, zero, not reset. NaN is none of the first four."""
        plan, slots = self._plan, self._slots
        at = plan.slots.flag
        if plan.ratio and plan.clip is not None:
            deviation = slots[at - 1]
            torch.gt(deviation, plan.clip, out=slots[at])
            torch.lt(deviation, -plan.clip, out=slots[at + 1])
            at += 2
        if plan.saturation is not None:
            torch.gt(torch.abs(slots[0], out=slots[at]), plan.saturation, out=slots[at])
            at += 1
        if plan.zeros is not None:
            begin = time.perf_counter_ns()
            torch.eq(slots[plan.zeros], 0, out=slots[at])
            self._reducer.spend("zeros", begin)
            at += 1
        if plan.reset is not None:
            torch.logical_and(slots[0], slots[plan.reset], out=slots[at])
        if absent is not None and plan.slots.flags:
            self._flags.masked_fill_(absent, 0.0)
        if self._batch is not None:
            begin = time.perf_counter_ns()
            layers, between = self._batch
            sums = torch.mul(self._reducer.one, math.nan) if layers is None else layers.sum(2)
            torch.linalg.vector_norm(sums, out=between)
            self._reducer.spend("batch", begin)

    def _count_nonfinite(self) -> None:
        """Non-finite elements of each channel. On the CPU they are counted only when a sum says that there are some."""
        sums = host_values(self._finite)
        if sums is not None and math.isfinite(sum(sums)):
            if self._counted:
                self._bad.zero_()
                self._counted = False
            return
        self._counted = True
        found = torch.count_nonzero(self._moments - self._moments, (1, 2))
        torch.mul(found, self._reducer.one, out=self._bad)

    def _take_powers(self, deviation: Tensor, cubes: Tensor, fourth: Tensor) -> None:
        """Third and fourth powers of a centred channel."""
        begin = time.perf_counter_ns()
        torch.mul(deviation, deviation, out=cubes)
        torch.mul(cubes, cubes, out=fourth)
        torch.mul(cubes, deviation, out=cubes)
        self._reducer.spend("shape", begin)


def numbers_of(plan: Plan, rows: int, samples: int) -> int:
    """Elements of the area that a pass needs."""
    return plan.slots.width * rows * samples
