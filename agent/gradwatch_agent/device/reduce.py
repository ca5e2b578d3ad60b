"""Reductions on the device: a block of staged minibatches, or a list of tensors, becomes one short vector.

Nothing here reads a value, so nothing waits for the device. Sums are taken in float64 wherever the device has it: a
float32 sum of squares overflows at 1e19 and loses the variance of values with a large mean. Casts are multiplications
by a float64 one and copies are `stack(out=)`, so that the only `copy_` of an update is the transfer to the host, and a
test can count it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Plan:
    """How one block [rows, channels, samples] is reduced.

    `moments` channels come first, the last `scalars` of them hold one value per row, repeated along the samples. `ratio`:
    channels 0 and 1 are new and old log-probabilities and become log r and k3 = (r - 1) - log r. `errors`: pairs (a, b),
    channel a becomes channel a - channel b. `clip`: bound of |r - 1|, None for no count. `masked`: one more channel, the
    last, is 1 where a sample counts.
    """

    moments: int
    scalars: int = 0
    ratio: bool = False
    errors: tuple[tuple[int, int], ...] = ()
    clip: float | None = None
    masked: bool = False

    @property
    def channels(self) -> int:
        """Staged channels, the mask included."""
        return self.moments + self.masked


@dataclass(frozen=True, slots=True)
class RatioFacts:
    """What a block says about the policy ratio, in log space so that no exponential is needed on the device.

    `k3_max` is the largest and `k3_last` the last of the rows' k3: means over the row, -inf where a row had no valid
    sample. `first_dev` is max |r - 1| over the rows before the first optimizer step. None = not computed; -inf or
    +inf in min, max and first_dev = no valid sample.
    """

    logratio_min: float
    logratio_max: float
    k3_max: float
    k3_last: float
    clipped: float | None = None
    first_dev: float | None = None


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """One reduced block on the host. Per channel: number of values, sum, sum of squared deviations from the mean,
    number of non-finite values, and the first row that held one (inf for none)."""

    n: tuple[float, ...]
    total: tuple[float, ...]
    m2: tuple[float, ...]
    nonfinite: tuple[float, ...]
    first_row: tuple[float, ...]
    ratio: RatioFacts | None = None


@dataclass(frozen=True, slots=True)
class Absence:
    """Samples that do not count: `where` [rows, 1, samples], and how many do in each row, `row_n` [rows]."""

    where: Tensor
    row_n: Tensor


@dataclass(slots=True)
class Reducer:
    """The reductions of one device, with the few constants they need."""

    device: torch.device
    dtype: torch.dtype = field(init=False)
    _one: Tensor = field(init=False)
    _rows: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Choose the accumulator dtype: float64, or float32 on a device that has none (Apple's)."""
        with torch.inference_mode(False):
            try:
                self._one = torch.ones(1, dtype=torch.float64, device=self.device)
            except TypeError:
                self._one = torch.ones(1, dtype=torch.float32, device=self.device)
            self.dtype = self._one.dtype
            self._rows = torch.arange(16, dtype=self.dtype, device=self.device).unsqueeze(1)

    def block(self, staged: Tensor, plan: Plan, before_step: int = 0) -> Tensor:
        """Reduce `staged` [rows, plan.channels, samples] to the vector that `read_block` reads.

        `before_step` is how many leading rows precede the first optimizer step. The temporaries take about three times
        the float64 size of the block, so the caller bounds the block.
        """
        x = torch.mul(staged, self._one)
        absence = self._apply_mask(x, plan) if plan.masked else None
        deviation = _take_ratio(x) if plan.ratio else None
        for minuend, subtrahend in plan.errors:
            channel = x[:, minuend]
            torch.sub(channel, x[:, subtrahend], out=channel)
        moments = x[:, : plan.moments] if plan.masked else x
        row_sum = moments.sum(2)
        ratio = []
        if deviation is not None:
            ratio.append(self._ratio((x[:, 0], deviation, row_sum[:, 1]), plan, before_step, absence))
        return torch.cat([*self._moments(moments, row_sum, plan.scalars, absence), *ratio])

    def _apply_mask(self, x: Tensor, plan: Plan) -> Absence:
        """Zero the samples that do not count, whatever they hold."""
        absent = x[:, plan.moments :] < 0.5
        x[:, : plan.moments - plan.scalars].masked_fill_(absent, 0.0)
        return Absence(absent, torch.logical_not(absent).sum((1, 2), dtype=self.dtype))

    def _moments(self, x: Tensor, row_sum: Tensor, scalars: int, absence: Absence | None) -> list[Tensor]:
        """Totals, M2, non-finite counts, first non-finite rows, and the number of valid samples when there is a mask.

        Two passes over the values, as the one-pass formula cancels. x - x is 0 for finite x and NaN for the others,
        which `count_nonzero` counts. Overwrites `x`.
        """
        rows, channels, samples = x.shape
        sampled = channels - scalars
        bad = torch.count_nonzero(x - x, 2)
        total = row_sum.sum(0) if rows > 1 else row_sum[0]
        centre = total / (rows * samples)
        counted = []
        if absence is not None:
            valid = absence.row_n.sum(0, keepdim=True)
            centre = torch.cat([total[:sampled] / valid, centre[sampled:]])
            counted.append(valid)
        torch.sub(x, centre.unsqueeze(1), out=x)
        if absence is not None:
            x[:, :sampled].masked_fill_(absence.where, 0.0)
        torch.mul(x, x, out=x)
        parts = [total, x.sum((0, 2)), bad.sum(0, dtype=self.dtype)]
        if rows > 1:
            parts.append(torch.where(bad > 0, self._row_numbers(rows), math.inf).amin(0))
        return parts + counted

    def _ratio(self, sources: tuple[Tensor, Tensor, Tensor], plan: Plan, before_step: int, absence: Absence | None) -> Tensor:
        """The numbers of `RatioFacts` from log r, |r - 1| (both [rows, samples]) and the sums of k3 [rows]."""
        log_ratio, deviation, k3 = sources
        if absence is None:
            low, high = torch.aminmax(log_ratio)
        else:
            gone = absence.where[:, 0]
            low, high = log_ratio.masked_fill(gone, math.inf).amin(), log_ratio.masked_fill(gone, -math.inf).amax()
            deviation.masked_fill_(gone, -math.inf)
            k3 = (k3 / absence.row_n).masked_fill_(gone.all(1), -math.inf)
        facts = [low, high, k3.amax(), k3[-1]]
        if plan.clip is not None:
            facts.append((deviation > plan.clip).sum(dtype=self.dtype))
        if before_step:
            facts.append(deviation[:before_step].amax())
        return torch.stack(facts)

    def _row_numbers(self, rows: int) -> Tensor:
        if len(self._rows) < rows:
            with torch.inference_mode(False):
                self._rows = torch.arange(2 * rows, dtype=self.dtype, device=self.device).unsqueeze(1)
        return self._rows[:rows]

    def norms(self, tensors: Sequence[Tensor]) -> Tensor:
        """L2 norm of each non-empty dense tensor, [len(tensors)], accumulated in float64 without a copy."""
        return torch.stack(foreach_norm(tensors, self.dtype))

    def total_norm(self, norms: Tensor) -> Tensor:
        """L2 norm of the whole from the norms of its parts, and how many parts have a non-finite one: [2]."""
        return torch.stack([torch.linalg.vector_norm(norms, 2), torch.count_nonzero(norms - norms)])


def _take_ratio(x: Tensor) -> Tensor:
    """Turn channels 0 and 1 into log r and k3, in place; return |r - 1| [rows, samples]."""
    log_ratio, k3 = x[:, 0], x[:, 1]
    torch.sub(log_ratio, k3, out=log_ratio)
    ratio_minus_one = torch.expm1(log_ratio)
    torch.sub(ratio_minus_one, log_ratio, out=k3)
    return ratio_minus_one.abs_()


def foreach_norm(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """L2 norm of each tensor in `dtype`: the only place that calls the private multi-tensor kernel.

    One kernel for all tensors where torch has it, since about 2024 with `dtype=`; else one public call per tensor.
    """
    private = getattr(torch, "_foreach_norm", None)
    if private is not None:
        try:
            return list(private(list(tensors), 2, dtype=dtype))
        except (TypeError, RuntimeError):
            pass
    return [torch.linalg.vector_norm(tensor, 2, dtype=dtype) for tensor in tensors]


def block_length(plan: Plan, rows: int, before_step: int) -> int:
    """How many numbers `Reducer.block` returns."""
    per_channel = 4 if rows > 1 else 3
    ratio = (4 + (plan.clip is not None) + (before_step > 0)) if plan.ratio else 0
    return plan.moments * per_channel + plan.masked + ratio


def read_block(values: Sequence[float], plan: Plan, rows: int, samples: int, before_step: int) -> BlockFacts:
    """Name the numbers of `Reducer.block` of a block [rows, channels, samples]."""
    k = plan.moments
    total, m2, bad = values[:k], values[k : 2 * k], values[2 * k : 3 * k]
    at = 4 * k if rows > 1 else 3 * k
    first = values[3 * k : at] if rows > 1 else [0.0 if count else math.inf for count in bad]
    n = [float(rows * samples)] * k
    if plan.masked:
        n[: k - plan.scalars] = [values[at]] * (k - plan.scalars)
        at += 1
    for channel in range(k - plan.scalars, k):
        n[channel] = float(rows)
    share = [1.0] * (k - plan.scalars) + [float(samples)] * plan.scalars
    return BlockFacts(
        n=tuple(n),
        total=tuple(value / part for value, part in zip(total, share, strict=True)),
        m2=tuple(value / part for value, part in zip(m2, share, strict=True)),
        nonfinite=tuple(value / part for value, part in zip(bad, share, strict=True)),
        first_row=tuple(first),
        ratio=_read_ratio(values[at:], plan, samples, before_step) if plan.ratio else None,
    )


def _read_ratio(values: Sequence[float], plan: Plan, samples: int, before_step: int) -> RatioFacts:
    low, high, k3_max, k3_last = values[:4]
    share = 1.0 if plan.masked else float(samples)
    return RatioFacts(
        logratio_min=low,
        logratio_max=high,
        k3_max=k3_max / share,
        k3_last=k3_last / share,
        clipped=values[4] if plan.clip is not None else None,
        first_dev=values[5 if plan.clip is not None else 4] if before_step else None,
    )
