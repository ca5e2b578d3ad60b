"""What is wanted of a block of staged minibatches, where each number of it lies in the reduced vector, and its reading.

Whatever is one number per minibatch goes to the host as it is: adding up 16 floats there costs a microsecond, a kernel
launch five.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

POWERS = 2
"""Channels that the third and fourth powers need."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one block [channels, rows, samples] is reduced.

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
    slots: Slots = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Lay the channels out."""
        object.__setattr__(self, "slots", Slots.of(self))

    @property
    def channels(self) -> int:
        """Staged channels, the mask included."""
        return self.moments + self.masked

    def numbers(self, rows: int) -> int:
        """How many numbers a block of `rows` rows becomes."""
        slots = self.slots
        per_row = slots.summed + 2 * slots.bounded + self.masked
        return rows * per_row + slots.squared + self.moments + (self.batch is not None)


class Slots(NamedTuple):
    """Where the channels lie while a block is reduced: the staged ones; log r and r - 1 with a ratio; then flags, 1 where
    something is to be counted, which the powers take the place of when they are summed.

    So everything that is summed is side by side, `summed` channels from `first` on, of which the first `centred` are moments
    and `squared`, powers included, are summed again as squares; `flags` of them are counts. `bounds` is the first of `bounded`
    channels whose least and largest value is wanted.
    """

    first: int
    log_ratio: int
    flag: int
    flags: int
    summed: int
    squared: int
    bounds: int
    bounded: int
    width: int

    @classmethod
    def of(cls, plan: Plan) -> Slots:
        """The layout of a plan."""
        k, first = plan.moments, int(plan.ratio)
        top = k + 2 * plan.ratio
        counted = (plan.saturation, plan.zeros, plan.reset)
        flags = 2 * (plan.ratio and plan.clip is not None) + sum([one is not None for one in counted])
        powers = POWERS * (plan.shape is not None)
        bounds, bounded = 0, 0
        if plan.ranges or (plan.ratio and plan.peak is not None):
            bounded = k + plan.ratio
        elif plan.ratio:
            bounds, bounded = k, 1
        elif plan.peak is not None:
            bounds, bounded = plan.peak, 1
        return cls(first, k, top, flags, top + flags - first, top + powers - first, bounds, bounded, top + max(flags, powers))

    @property
    def centred(self) -> int:
        """Channels of which the squares are taken about the mean."""
        return self.flag - self.first


class RatioFacts(NamedTuple):
    """What a block says about the policy ratio, in log space so that no exponential is needed on the device.

    `k3`: mean of each row, None where the row has no valid sample. `first_dev` is max |r - 1| over the rows before the
    first optimizer step, None when there is none. `clipped`: samples with r - 1 > clip and with r - 1 < -clip, None without a
    clip. `weights`: sum of r - 1 and of the squared deviations from its mean, None when not asked for.
    """

    logratio_min: float
    logratio_max: float
    k3: tuple[float | None, ...]
    first_dev: float | None
    clipped: tuple[float, float] | None = None
    weights: tuple[float, float] | None = None


class BlockFacts(NamedTuple):
    """One reduced block on the host. Per channel: number of values, sum, sum of squared deviations from the mean,
    number of non-finite values, and the first row that held one (None for none). `saturated`, `peak`, `zeros`: see Plan;
    `low` and `high`: least and largest per channel and row, channel by channel, empty when not asked for; `powers`: sums of the
    third and fourth powers of the deviations; `between` and `leaked`: what `batch` and `reset` of the Plan ask for."""

    rows: int
    n: list[float]
    total: list[float]
    m2: list[float]
    nonfinite: list[float]
    first_row: list[int | None]
    ratio: RatioFacts | None = None
    saturated: float | None = None
    peak: float | None = None
    zeros: float | None = None
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    powers: tuple[float, float] | None = None
    between: float | None = None
    leaked: float | None = None

    def range_of(self, channel: int) -> tuple[float, float]:
        """Least and largest value of a channel as it was staged; of no samples, inf and -inf. Only where it was asked for."""
        return _extent(self.low, self.high, channel, self.rows)


def read_block(values: Sequence[float], plan: Plan, rows: int, samples: int, before_step: int) -> BlockFacts:
    """Name the numbers of a reduced block [channels, rows, samples], `before_step` of whose rows precede the first optimizer
    step."""
    slots, k = plan.slots, plan.moments
    at = slots.summed * rows
    sums = [values[start : start + rows] for start in range(0, at, rows)]
    width = slots.bounded * rows
    low, high = values[at : at + width], values[at + width : at + 2 * width]
    at += 2 * width
    squares = values[at : at + slots.squared]
    at += slots.squared
    bad = values[at : at + k]
    at += k
    row_n = list(values[at : at + rows]) if plan.masked else [float(samples)] * rows
    # With a ratio log r, channel 0, lies behind the others.
    order = (k - 1, *range(k - 1)) if plan.ratio else range(k)
    flags = iter([sum(rows_) for rows_ in sums[slots.centred :]])
    ratio = None
    if plan.ratio:
        start = (slots.log_ratio - slots.bounds) * rows
        low_, high_ = low[start : start + rows], high[start : start + rows]
        before = [row for row in range(before_step) if row_n[row]]
        ratio = RatioFacts(
            logratio_min=least(low_),  # a row without a sample has inf and -inf
            logratio_max=largest(high_),
            k3=tuple([total / n if n else None for total, n in zip(sums[0], row_n, strict=True)]),
            first_dev=largest([max(_expm1(high_[row]), -_expm1(low_[row])) for row in before]) if before else None,
            clipped=(next(flags), next(flags)) if plan.clip is not None else None,
            weights=(sum(sums[k]), squares[k]) if plan.weights else None,
        )
    peak = None
    if plan.peak is not None:
        lowest, highest = _extent(low, high, plan.peak - slots.bounds, rows)
        peak = math.nan if math.isnan(lowest) or math.isnan(highest) else max(abs(lowest), abs(highest))
    return BlockFacts(
        rows,
        n=[sum(row_n)] * k,
        total=[sum(sums[place]) for place in order],
        m2=[squares[place] for place in order],
        nonfinite=[bad[place] for place in order],
        first_row=[_first_nonfinite(sums[place]) if bad[place] else None for place in order],
        ratio=ratio,
        saturated=next(flags) if plan.saturation is not None else None,
        peak=peak,
        zeros=next(flags) if plan.zeros is not None else None,
        low=low if plan.ranges else (),
        high=high if plan.ranges else (),
        powers=(squares[-2], squares[-1]) if plan.shape is not None else None,
        between=values[-1] * values[-1] if plan.batch is not None else None,
        leaked=next(flags) if plan.reset is not None else None,
    )


def _first_nonfinite(row_sums: Sequence[float]) -> int | None:
    """The sum over a row is non-finite when an element is."""
    return next((row for row, value in enumerate(row_sums) if not math.isfinite(value)), None)


def _extent(low: Sequence[float], high: Sequence[float], channel: int, rows: int) -> tuple[float, float]:
    start, end = channel * rows, (channel + 1) * rows
    return least(low[start:end]), largest(high[start:end])


def least(values: Sequence[float]) -> float:
    """Minimum in which a NaN wins, inf of no values."""
    if math.isnan(sum(values)) and any(map(math.isnan, values)):  # the sum of inf and -inf is NaN too
        return math.nan
    return min(values, default=math.inf)


def largest(values: Sequence[float]) -> float:
    """Maximum, likewise."""
    return -least([-value for value in values]) if math.isnan(sum(values)) else max(values, default=-math.inf)


def _expm1(value: float) -> float:
    try:
        return math.expm1(value)
    except OverflowError:
        return math.inf
