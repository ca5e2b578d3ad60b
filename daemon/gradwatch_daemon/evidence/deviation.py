"""Where series leave what was usual for them: a robust score against the updates before.

`usual` is the median of the updates before, `spread` is 1.4826 times the median distance from it (of a normal distribution
the standard deviation), and the score of a value is (value - usual) / spread. It deviates where the score reaches a bound, and
also 1.5 times the largest score among the updates before: a series that jumps now and then is held to its own jumps. One
that was on its way (a policy that settles, a rate that is annealed) has to leave that way too: signals are compared with the
straight line through the medians of both halves of the updates before, and what is nearer to the line counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gradwatch_daemon.records import F64, I64

Mask = NDArray[np.bool_]

UPDATES_LEAST = 8
"""Updates before, below which nothing is usual."""

LOOK_BACK_MAX = 16
"""Updates before the onset that may deviate already: a finding needs several votes, and a layer moves before its signal."""

LOOK_ON_MAX = 16
"""Updates from the onset on that are looked at."""

MARGIN = 1.5
"""Times the largest score of the updates before."""

NORMAL_MAD = 1.4826


@dataclass(frozen=True, slots=True)
class Scale:
    """How a sort of series is compared: on logarithms or as it is; the least score and step that deviate; the least spread,
    as a share of what is usual (of a logarithm: as it is), for series that hardly move; whether it may be on its way."""

    logarithmic: bool
    score: float
    step: float
    spread_least: float
    moves: bool


NORMS = Scale(logarithmic=True, score=6.0, step=float(np.log(3.0)), spread_least=0.05, moves=False)
SIGNALS = Scale(logarithmic=False, score=8.0, step=0.0, spread_least=0.01, moves=True)

TINY = 1e-30
"""Stands for 0 on the logarithmic scale."""


@dataclass(frozen=True, slots=True, eq=False)
class Deviations:
    """Of each series over the updates looked at: `beyond` and `score` [updates, series], a score being infinite for a value
    that is not finite although it always was; `usual` (NaN where nothing is), `spread`, `bound` [series], on the scale."""

    beyond: Mask
    score: F64
    usual: F64
    spread: F64
    bound: F64
    scale: Scale

    def rises(self, series: int, value: float) -> bool:
        """Whether a value of that series is beyond the bound, upwards or by not being finite."""
        if not np.isfinite(value):
            return True
        step = on_scale(np.float64(value), self.scale) - self.usual[series]
        return bool(step >= self.scale.step and step / self.spread[series] >= self.bound[series])

    def typical(self, series: int) -> float:
        """What was usual, as a value."""
        return float(np.exp(self.usual[series]) if self.scale.logarithmic else self.usual[series])


def split(update: I64, onset: int) -> tuple[int, int] | None:
    """Of ascending updates: how many say what is usual, and where those to look at end. None where there are too few."""
    before = int(np.searchsorted(update, onset))
    if before < UPDATES_LEAST:
        return None
    look = min(LOOK_BACK_MAX, before - UPDATES_LEAST)
    return before - look, int(np.searchsorted(update, onset + LOOK_ON_MAX))


def on_scale(values: F64, scale: Scale) -> F64:
    """Values as they are compared; NaN for what is not finite."""
    finite = np.where(np.isfinite(values), values, np.nan)
    return np.log(np.maximum(finite, TINY)) if scale.logarithmic else finite


def deviations(values: F64, measured: Mask, base: int, scale: Scale) -> Deviations:
    """Judge `values` f64[updates, series], where `measured`; the first `base` updates say what is usual."""
    broken = measured & ~np.isfinite(values)
    x = on_scale(np.where(measured, values, np.nan), scale)
    known = np.isfinite(x[:base]).sum(axis=0) >= UPDATES_LEAST
    past = np.where(known, x[:base], 0.0)
    usual = np.nanmedian(past, axis=0)
    distance = np.abs(past - usual)
    floor = scale.spread_least * (1.0 if scale.logarithmic else np.abs(usual))
    spread = np.maximum(NORMAL_MAD * np.nanmedian(distance, axis=0), np.maximum(floor, TINY))
    bound = np.maximum(scale.score, MARGIN * np.nanmax(distance, axis=0) / spread)
    with np.errstate(invalid="ignore", over="ignore"):
        away = x[base:] - usual
        if scale.moves:
            off = x[base:] - _line(np.where(np.isfinite(past), past, usual), len(x))
            away = np.where(np.abs(off) < np.abs(away), off, away)
        score = away / spread
        beyond = known & (np.abs(score) >= bound) & (np.abs(away) >= scale.step)
    new = broken[base:] & ~broken[:base].any(axis=0)
    unknown = np.where(known, 0.0, np.nan)
    return Deviations(beyond | new, np.where(new, np.inf, score), usual + unknown, spread, bound, scale)


def _line(past: F64, end: int) -> F64:
    """Where the updates before lead, f64[end - len(past), series]: through the medians of their two halves."""
    half = len(past) // 2
    early, late = np.median(past[:half], axis=0), np.median(past[half:], axis=0)
    slope = (late - early) * 2 / len(past)
    middle = half + (len(past) - half - 1) / 2
    line: F64 = late + slope * (np.arange(len(past), end)[:, None] - middle)
    return line
