"""Series of one stream put over one axis.

They have one already wherever every row had every signal. A trainer that began to send a signal later has rows without it, and
the store then gives that signal fewer points, or points of fewer updates. Here each point goes to the place of the shared axis
that its update belongs to; places of an axis where a signal has no point are not measured.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from gradwatch_contracts.columns import Status
from gradwatch_daemon.store.protocol import Series


@dataclass(frozen=True, slots=True)
class Axis:
    """First update, time (unix ns) and env steps (-1: not given) of each point; points are of up to `bucket` updates."""

    bucket: int
    update: list[int]
    t_ns: list[int]
    env_steps: list[int]


@dataclass(frozen=True, slots=True)
class Points:
    """One signal on an axis: extremes of the finite values and the last value (NaN where there is none), counts, status."""

    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    measured: list[int] = field(default_factory=list)
    nonfinite: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)


def points_of(series: Series) -> Points:
    """As the store gave them."""
    return Points(
        series.low.tolist(),
        series.high.tolist(),
        series.last.tolist(),
        series.measured.tolist(),
        series.nonfinite.tolist(),
        series.status.tolist(),
    )


def on_one_axis(found: Sequence[Series]) -> tuple[Axis, list[Points]]:
    """The shared axis, and each series on it, in their order."""
    axes = [series.update.tolist() for series in found]
    widest = max(range(len(found)), key=lambda at: (found[at].bucket, found[at].rows))
    bucket = max(series.bucket for series in found)
    if all(axis == axes[widest] for axis in axes):
        of = found[widest]
        return Axis(bucket, axes[widest], of.t_ns.tolist(), of.env_steps.tolist()), [points_of(series) for series in found]
    axis = _joined(found, axes, widest, bucket)
    return axis, [_fit(points_of(series), updates, axis.update) for series, updates in zip(found, axes, strict=True)]


def _joined(found: Sequence[Series], axes: list[list[int]], widest: int, bucket: int) -> Axis:
    """Single updates: all of them. Buckets: those of the coarsest series, and what lies before or behind them."""
    places: dict[int, tuple[int, int]] = {}
    first, last = axes[widest][0], axes[widest][-1] + bucket
    for at in [widest, *(i for i in range(len(found)) if i != widest)]:
        rows = zip(axes[at], found[at].t_ns.tolist(), found[at].env_steps.tolist(), strict=True)
        for update, t_ns, env_steps in rows:
            if at == widest or bucket == 1 or not first <= update < last:
                places.setdefault(update, (t_ns, env_steps))
    updates = sorted(places)
    return Axis(bucket, updates, [places[update][0] for update in updates], [places[update][1] for update in updates])


def _fit(points: Points, updates: list[int], axis: list[int]) -> Points:
    """A series' points at the places of the axis; several that fall into one become one."""
    n = len(axis)
    nan = math.nan
    fitted = Points([nan] * n, [nan] * n, [nan] * n, [0] * n, [0] * n, [int(Status.NOT_CALLED)] * n)
    for i, update in enumerate(updates):
        at = max(0, bisect_right(axis, update) - 1)
        if fitted.measured[at] == 0:
            fitted.status[at] = points.status[i]
        if points.measured[i] == 0:
            continue
        fitted.low[at] = _least(fitted.low[at], points.low[i])
        fitted.high[at] = -_least(-fitted.high[at], -points.high[i])
        fitted.last[at] = points.last[i]
        fitted.measured[at] += points.measured[i]
        fitted.nonfinite[at] += points.nonfinite[i]
        fitted.status[at] = int(Status.MEASURED)
    return fitted


def _least(a: float, b: float) -> float:
    """The smaller one; NaN stands for none."""
    return b if math.isnan(a) else a if math.isnan(b) else min(a, b)
