"""Series that are computed from signals before the baselines see them, for the present subject; NaN where not known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradwatch_daemon.detect.ema import Average, Ema
from gradwatch_daemon.detect.trend import Best, Rise

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import F64

VARIANCE_SHARE = 0.5
"""Least share of its own moving average that the variance of the returns counts as: returns of a solved task hardly vary, and
an error over next to nothing is no error."""

ENTROPY_FLOOR = 0.05
FALL_LEAST = 1e-6
"""Slower falls than this per update count as none: the time to the floor is then endless."""


RATE_LEAST = 1e-12
"""A learning rate below this is annealing's end."""


def value_error(view: View) -> F64:
    """Mean squared error of the values over the variance of the returns, which counts as at least half of its average.

    An average and not the median: once most rollouts of a solved task contain no end of an episode, a variance of next to
    nothing is the median.
    """
    math = view.math
    nmse, spread = view.input("value.nmse"), view.input("value.target.std")
    average = view.state.memory(Average, "value.target.std")
    variance = spread.values * spread.values
    usable = view.usable(spread)
    usually: Any
    if view.single:
        usually = average.step(variance) if usable else np.nan  # type: ignore[arg-type]
    else:
        usually = np.full(view.n, np.nan)
        usually[usable] = average.steps(variance[usable])
    share = math.divide(variance, VARIANCE_SHARE * usually)
    known = nmse.readable & spread.readable & math.negate(math.unknown(share))
    return math.where(known, nmse.values * math.where(share < 1.0, share, 1.0), np.nan)


def squared_value_error(view: View) -> F64:
    """Mean squared error of the values: what the returns' variance cannot shrink or blow up."""
    nmse, spread = view.input("value.nmse"), view.input("value.target.std")
    return view.math.where(nmse.readable & spread.readable, nmse.values * (spread.values * spread.values), np.nan)


def entropy_slope(view: View) -> F64:
    """Slope of the normalised entropy per update."""
    return view.slopes("policy.entropy.norm")


def entropy_left(view: View) -> F64:
    """Updates until the normalised entropy is at its floor, at its present slope; infinite where it does not fall."""
    math = view.math
    slopes, norm = view.computed("entropy slope"), view.input("policy.entropy.norm")
    height = math.larger(norm.values - ENTROPY_FLOOR, 0.0)
    falling = slopes < -FALL_LEAST
    left = math.where(falling, math.divide(height, math.where(falling, -slopes, 1.0)), np.inf)
    return math.where(norm.readable & math.finite(slopes), left, np.nan)


def std_left(view: View) -> F64:
    """Updates until the smallest standard deviation of an action is nothing, at its present slope."""
    math, given = view.math, view.input("policy.std.min")
    slopes = view.slopes("policy.std.min")
    falling = slopes < -FALL_LEAST
    left = math.where(falling, math.divide(given.values, math.where(falling, -slopes, 1.0)), np.inf)
    return math.where(given.readable & math.finite(slopes), left, np.nan)


def norm_drift(view: View) -> F64:
    """Signed drift of the gradient norm from its moving average, as a share of it."""
    return _drift(view, "grad.norm.mean")


def health_drift(view: View) -> F64:
    """The same of the gradient health."""
    return _drift(view, "grad.health")


def _drift(view: View, name: str) -> F64:
    given, ema = view.input(name), view.state.memory(Ema, name)
    usable = view.usable(given)
    drift: Any
    if view.single:
        return ema.step(view.update, given.values) if usable else np.nan  # type: ignore[arg-type, return-value]
    drift = np.full(view.n, np.nan)
    drift[usable] = ema.steps(view.update[usable], given.values[usable])
    return drift  # type: ignore[no-any-return]


def kl_tail(view: View) -> F64:
    """k3 over k2: near 1 while log-ratios are small, large where a few ratios are huge."""
    return _quotient(view, "policy.kl.k3", "policy.kl.k2")


def norm_over_clip(view: View) -> F64:
    """Gradient norm over the largest norm the trainer allows."""
    return _quotient(view, "grad.norm.mean", "grad.clip_limit")


def kl_of_rate(view: View) -> F64:
    """KL over the square of the learning rate: how far a step of this size moves the policy, whatever the schedule."""
    math = view.math
    k3, rate = view.input("policy.kl.k3"), view.input("opt.lr")
    known = k3.readable & rate.readable & (rate.values > RATE_LEAST)
    return math.where(known, math.divide(k3.values, rate.values * rate.values), np.nan)


def _quotient(view: View, above: str, below: str) -> F64:
    a, b = view.input(above), view.input(below)
    known = a.readable & b.readable & (b.values > 0)
    return view.math.where(known, view.math.divide(a.values, b.values), np.nan)


def return_at_best(view: View) -> F64:
    """1 where the run's return is known to stand at its own best and not to fall, else 0."""
    given, best = view.input("episode.return.mean"), view.state.memory(Best, "episode.return.mean")
    usable = view.usable(given)
    if not view.single:
        return best.near(given.values, usable).astype(np.float64)
    return float(best.step(given.values) if usable else best.standing)  # type: ignore[arg-type, return-value]


def return_still(view: View) -> F64:
    """Updates since the return last reached a new best, NaN while there are too few returns to say."""
    given, rise = view.input("episode.return.mean"), view.state.memory(Rise, "episode.return.mean")
    usable = view.usable(given)
    if view.single:
        return rise.step(view.update, given.values) if usable else rise.since(view.update)  # type: ignore[arg-type, return-value]
    return rise.steps(view.update, given.values, usable)
