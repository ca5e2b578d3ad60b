"""Reductions on the device: a block of staged minibatches, or a list of tensors, becomes one short vector.

Nothing here reads a value, so nothing waits for the device. Sums are taken in float64 wherever the device has it: a
float32 sum of squares overflows at 1e19 and loses the variance of values with a large mean. Casts are multiplications
by a float64 one and copies are `stack(out=)`, so that the only `copy_` of an update is the transfer to the host, and a
test can count it. Whatever is one number per minibatch goes to the host as it is: adding up 16 floats there costs a
microsecond, a kernel launch five.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from gradwatch_agent.device.transfer import host_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

set_grad: Callable[[bool], object] = getattr(torch._C, "_set_grad_enabled", torch.set_grad_enabled)
"""Switch gradients without the context manager, which costs 3 microseconds a call. Inside the `try` that switches them back:
before it, Ctrl-C could leave a notebook without gradients."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one block [rows, channels, samples] is reduced.

    `moments` channels come first. `ratio`: channels 0 and 1 are new and old log-probabilities and become log r and
    k3 = (r - 1) - log r. `errors`: pairs (a, b), channel a becomes channel a - channel b. `clip`: bound of |r - 1|, None
    for no count. `masked`: one more channel, the last, is 1 where a sample counts. `saturation`: count the |x| of channel 0
    above it. `peak`: the channel whose largest |x| is wanted. The last two are not for masked blocks. `ranges`: the least and
    the largest value of every moments channel as it was staged. `zeros`: the channel whose zeros are counted. `shape`: the
    channel whose third and fourth powers are wanted. `weights`: the sums of r - 1 and (r - 1)^2.
    `batch`: channel 0 is [layers, sequences, units], flat, and the sum of squares of its sums over sequences is wanted.
    `reset`: the channel that is 1 where channel 0 should be 0, and the elements that are not are counted.
    """

    moments: int
    ratio: bool = False
    errors: tuple[tuple[int, int], ...] = ()
    clip: float | None = None
    masked: bool = False
    saturation: float | None = None
    peak: int | None = None
    ranges: bool = False
    zeros: int | None = None
    shape: int | None = None
    weights: bool = False
    batch: tuple[int, int, int] | None = None
    reset: int | None = None

    @property
    def channels(self) -> int:
        """Staged channels, the mask included."""
        return self.moments + self.masked

    def numbers(self, rows: int) -> int:
        """How many numbers `Reducer.block` makes of `rows` rows."""
        return self.moments * (rows + 2) + rows * (2 * self.ratio + self.masked) + self.extremes

    @property
    def extremes(self) -> int:
        """Numbers about the block as a whole, which come last."""
        clipped = 2 * (self.ratio and self.clip is not None)
        asked = (self.saturation, self.peak, self.zeros, self.batch, self.reset)
        singles = sum([one is not None for one in asked])
        return 2 * self.weights + clipped + 2 * self.moments * self.ranges + singles + 2 * (self.shape is not None)


@dataclass(frozen=True, slots=True)
class RatioFacts:
    """What a block says about the policy ratio, in log space so that no exponential is needed on the device.

    `k3`: mean of each row, None where the row has no valid sample. `first_dev` is max |r - 1| over the rows before the
    first optimizer step, None when there is none. `clipped`: samples with r - 1 > clip and with r - 1 < -clip, None without a
    clip. `weights`: sums of r - 1 and (r - 1)^2, None when not asked for.
    """

    logratio_min: float
    logratio_max: float
    k3: tuple[float | None, ...]
    clipped: tuple[float, float] | None
    first_dev: float | None
    weights: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """One reduced block on the host. Per channel: number of values, sum, sum of squared deviations from the mean,
    number of non-finite values, and the first row that held one (None for none). `saturated`, `peak`, `zeros`: see Plan;
    `ranges`: least and largest per channel; `powers`: sums of the third and fourth powers of the deviations; `between` and
    `leaked`: what `batch` and `reset` of the Plan ask for."""

    n: list[float]
    total: list[float]
    m2: list[float]
    nonfinite: list[float]
    first_row: list[int | None]
    ratio: RatioFacts | None = None
    saturated: float | None = None
    peak: float | None = None
    zeros: float | None = None
    ranges: list[tuple[float, float]] | None = None
    powers: tuple[float, float] | None = None
    between: float | None = None
    leaked: float | None = None


@dataclass(slots=True)
class Reducer:
    """The reductions of one device. `one` is 1 in the accumulator dtype: times it, anything becomes that dtype. `spent_ns`:
    what the optional parts of blocks took of the calling thread, by field of `Plan`."""

    device: torch.device
    dtype: torch.dtype = field(init=False)
    one: Tensor = field(init=False)
    on_host: bool = field(init=False)
    zeros: dict[int, Tensor] = field(default_factory=dict)
    spent_ns: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Choose the accumulator dtype: float64, or float32 on a device that has none (Apple's)."""
        with torch.inference_mode(False):
            try:
                self.one = torch.ones(1, dtype=torch.float64, device=self.device)
            except TypeError:
                self.one = torch.ones(1, dtype=torch.float32, device=self.device)
        self.dtype = self.one.dtype
        self.on_host = self.device.type == "cpu"

    def block(self, staged: Tensor, plan: Plan) -> Tensor:
        """Reduce `staged` [rows, plan.channels, samples] to the vector that `read_block` reads.

        The temporaries take about three times the float64 size of the block, so the caller bounds the block. Two passes
        for the squares, as the one-pass formula cancels. x - x is 0 for finite x and NaN for the others, which
        `count_nonzero` counts; a finite sum needs no count.
        """
        rows, _, samples = staged.shape
        x = torch.mul(staged, self.one)
        absent = self._apply_mask(x, plan) if plan.masked else None
        channels = x.unbind(1)
        extremes: list[Tensor] = []
        if plan.ranges:
            begin = time.perf_counter_ns()
            extremes = self._ranges(x[:, : plan.moments], absent)
            self._spend("ranges", begin)
        deviation = _take_ratio(channels[0], channels[1]) if plan.ratio else None
        for minuend, subtrahend in plan.errors:
            torch.sub(channels[minuend], channels[subtrahend], out=channels[minuend])
        moments = x if absent is None else x[:, : plan.moments]
        row_sum = moments.sum(2)
        parts = [row_sum.reshape(-1)]
        if deviation is not None:
            parts += _ratio_bounds(channels[0], absent)
            extremes = self._ratio(deviation, plan, absent) + extremes
        count: Tensor | int = rows * samples
        if absent is not None:
            present = torch.logical_not(absent).sum((1, 2), dtype=self.dtype)
            parts.append(present)
            count = present.sum()
        centre = (row_sum.sum(0) if rows > 1 else row_sum[0]) / count
        parts.append(self._nonfinite(moments, row_sum))
        extremes += self._extremes(channels, plan, absent)
        torch.sub(moments, centre.unsqueeze(1), out=moments)
        if absent is not None:
            moments.masked_fill_(absent, 0.0)
        powers = [] if plan.shape is None else self._powers(channels[plan.shape])
        torch.mul(moments, moments, out=moments)
        parts.append(moments.sum((0, 2)))
        return torch.cat(parts + extremes + powers)

    def _spend(self, part: str, begin_ns: int) -> None:
        """Note what an optional part took."""
        self.spent_ns[part] = self.spent_ns.get(part, 0) + time.perf_counter_ns() - begin_ns

    def _powers(self, deviations: Tensor) -> list[Tensor]:
        """Sum of the third powers, and the root of the sum of the fourth."""
        begin = time.perf_counter_ns()
        squares = torch.mul(deviations, deviations)
        cubes = torch.mul(deviations, squares)
        powers = [cubes.sum().reshape(1), torch.linalg.vector_norm(squares).reshape(1)]
        self._spend("shape", begin)
        return powers

    def _nonfinite(self, moments: Tensor, row_sum: Tensor) -> Tensor:
        """Non-finite elements of each channel. On the CPU they are counted only when a sum says that there are some."""
        if self.on_host and math.isfinite(host_value(row_sum.sum()) or 0.0):
            return self._zeros(row_sum.shape[1])
        return torch.mul(torch.count_nonzero(moments - moments, (0, 2)), self.one)

    def _zeros(self, count: int) -> Tensor:
        """So many zeros; nobody writes to them."""
        found = self.zeros.get(count)
        if found is None:
            with torch.inference_mode(False):
                found = self.zeros[count] = torch.zeros(count, dtype=self.dtype, device=self.device)
        return found

    def _ranges(self, x: Tensor, absent: Tensor | None) -> list[Tensor]:
        """Least and largest of each channel; of no samples, inf and -inf. NaN is both."""
        if absent is None:
            return [x.amin((0, 2)), x.amax((0, 2))]
        return [x.masked_fill(absent, math.inf).amin((0, 2)), x.masked_fill(absent, -math.inf).amax((0, 2))]

    def _extremes(self, channels: Sequence[Tensor], plan: Plan, absent: Tensor | None) -> list[Tensor]:
        """Number of saturated elements, largest size and number of zeros. NaN saturates nothing, and is the largest."""
        parts = []
        if plan.saturation is not None:
            parts.append(torch.mul(torch.count_nonzero(channels[0].abs() > plan.saturation), self.one))
        if plan.peak is not None:
            parts.append(channels[plan.peak].abs().amax().reshape(1))
        if plan.zeros is not None:
            begin = time.perf_counter_ns()
            zero = channels[plan.zeros] == 0
            parts.append(torch.mul(torch.count_nonzero(zero if absent is None else zero & ~absent[:, 0]), self.one))
            self._spend("zeros", begin)
        if plan.batch is not None:
            whole = math.prod(plan.batch) == channels[0].shape[1]  # a slice of a large state has no such shape
            sums = channels[0].view(-1, *plan.batch).sum(2) if whole else torch.mul(self.one, math.nan)
            parts.append(torch.linalg.vector_norm(sums).reshape(1))
        if plan.reset is not None:
            leaked = (channels[0] != 0) & (channels[plan.reset] != 0)
            parts.append(torch.mul(torch.count_nonzero(leaked), self.one))
        return parts

    def _apply_mask(self, x: Tensor, plan: Plan) -> Tensor:
        """Zero the samples that do not count, whatever they hold; return where they are, [rows, 1, samples]."""
        absent = x[:, plan.moments :] < 0.5
        x[:, : plan.moments].masked_fill_(absent, 0.0)
        return absent

    def _ratio(self, deviation: Tensor, plan: Plan, absent: Tensor | None) -> list[Tensor]:
        """Sum of r - 1 and root of the sum of its squares, and how many samples are clipped above and below."""
        parts = []
        if plan.weights:  # absent samples are 0 here
            begin = time.perf_counter_ns()
            parts += [deviation.sum().reshape(1), torch.linalg.vector_norm(deviation).reshape(1)]
            self._spend("weights", begin)
        if plan.clip is not None:
            if absent is not None:
                deviation.masked_fill_(absent[:, 0], math.nan)
            sides = [torch.count_nonzero(deviation > plan.clip), torch.count_nonzero(deviation < -plan.clip)]
            parts.append(torch.mul(torch.stack(sides), self.one))
        return parts

    def norms(self, tensors: Sequence[Tensor]) -> Tensor:
        """L2 norm of each non-empty dense tensor, [len(tensors)].

        float32 tensors on the CPU are accumulated in float32, as `clip_grad_norm_` does it: relative error some 1e-6, and 0
        for norms below 1e-22. float64 takes 5 to 20 times as long there (measured on 5M numbers), so it comes only after a
        norm that is not finite, to tell numbers above 1e19 from infinite ones. Anything else is accumulated in float64.
        """
        private = getattr(torch, "_foreach_norm", None)
        if private is not None and self.device.type == "cpu" and all(tensor.dtype is torch.float32 for tensor in tensors):
            norms = torch.stack(private(list(tensors), 2.0))
            if not is_overflow(norms.sum()):
                return norms
        return torch.stack(foreach_norm(tensors, self.dtype))

    def vector(self, scalars: list[Tensor]) -> Tensor:
        """0-dim real tensors as one vector in the accumulator dtype."""
        return torch.mul(torch.stack(scalars), self.one)

    def join(self, vectors: list[Tensor]) -> Tensor:
        """Vectors of this device as one."""
        return torch.cat(vectors)


def _take_ratio(log_ratio: Tensor, k3: Tensor) -> Tensor:
    """Turn new and old log-probabilities into log r and k3, in place; return r - 1 [rows, samples]."""
    torch.sub(log_ratio, k3, out=log_ratio)
    ratio_minus_one = torch.expm1(log_ratio)
    torch.sub(ratio_minus_one, log_ratio, out=k3)
    return ratio_minus_one


def _ratio_bounds(log_ratio: Tensor, absent: Tensor | None) -> list[Tensor]:
    """Least and largest log r of each row; of no samples, inf and -inf."""
    if absent is None:
        return list(torch.aminmax(log_ratio, dim=1))
    gone = absent[:, 0]
    return [log_ratio.masked_fill(gone, math.inf).amin(1), log_ratio.masked_fill(gone, -math.inf).amax(1)]


def is_overflow(norm: Tensor) -> bool:
    """Whether a norm is not finite, which numbers of a short dtype may be to blame for. Never said of another device: reading
    it would wait."""
    return not math.isfinite(host_value(norm) or 0.0)


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


def read_block(values: Sequence[float], plan: Plan, rows: int, samples: int, before_step: int) -> BlockFacts:
    """Name the numbers of `Reducer.block` of a block [rows, channels, samples], `before_step` of whose rows precede the
    first optimizer step."""
    k = plan.moments
    width = 2 * rows if plan.ratio else 0
    sums, bounds = values[: rows * k], values[rows * k : rows * k + width]
    at = rows * k + width
    row_n = [float(samples)] * rows
    if plan.masked:
        row_n, at = list(values[at : at + rows]), at + rows
    bad, m2 = list(values[at : at + k]), list(values[at + k : at + 2 * k])
    total = [sum(sums[channel::k]) for channel in range(k)]
    n = [sum(row_n)] * k
    first = [_first_nonfinite(sums[channel::k]) if bad[channel] else None for channel in range(k)]
    rest = iter(values[at + 2 * k :])
    ratio = _read_ratio(bounds, sums[1::k], row_n, before_step, plan=plan, rest=rest) if plan.ratio else None
    ranges = None
    if plan.ranges:
        low = [next(rest) for _ in range(k)]
        ranges = [(least_, next(rest)) for least_ in low]
    saturated = next(rest) if plan.saturation is not None else None
    peak = next(rest) if plan.peak is not None else None
    zeros = next(rest) if plan.zeros is not None else None
    between = _square(next(rest)) if plan.batch is not None else None
    leaked = next(rest) if plan.reset is not None else None
    powers = (next(rest), _square(next(rest))) if plan.shape is not None else None
    return BlockFacts(n, total, m2, bad, first, ratio, saturated, peak, zeros, ranges, powers, between, leaked)


def _first_nonfinite(row_sums: Sequence[float]) -> int | None:
    """The sum over a row is non-finite when an element is."""
    return next((row for row, value in enumerate(row_sums) if not math.isfinite(value)), None)


def _read_ratio(
    bounds: Sequence[float], k3: Sequence[float], row_n: list[float], before_step: int, *, plan: Plan, rest: Iterator[float]
) -> RatioFacts:
    rows = len(row_n)
    valid = [row for row in range(rows) if row_n[row]]
    low, high = bounds[:rows], bounds[rows:]
    before = [row for row in valid if row < before_step]
    return RatioFacts(
        logratio_min=least([low[row] for row in valid]),
        logratio_max=-least([-high[row] for row in valid]),
        k3=tuple([k3[row] / row_n[row] if row_n[row] else None for row in range(rows)]),
        weights=(next(rest), _square(next(rest))) if plan.weights else None,
        clipped=(next(rest), next(rest)) if plan.clip is not None else None,
        first_dev=-least([-max(_expm1(high[row]), -_expm1(low[row])) for row in before]) if before else None,
    )


def least(values: Sequence[float]) -> float:
    """Minimum in which a NaN wins, inf of no values."""
    if math.isnan(sum(values)) and any(map(math.isnan, values)):  # the sum of inf and -inf is NaN too
        return math.nan
    return min(values, default=math.inf)


def _expm1(value: float) -> float:
    try:
        return math.expm1(value)
    except OverflowError:
        return math.inf


def _square(value: float) -> float:
    return value * value
