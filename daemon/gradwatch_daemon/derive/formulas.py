"""The named formulas of the signal registry, over whole blocks.

A formula takes one `Slots` per column: arrays f64[signals, rows], of which `n`, `mean`, `m2` are filled for moments, `m3`
and `m4` too for moments4, and `x` for the other kinds (the rest are empty). It returns the value and where it is undefined
(n = 0, zero variance, limit <= 0). NaN and infinities in the inputs pass through as the arithmetic has them: a measured
non-finite value is not an undefined one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwatch_contracts.columns import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gradwatch_daemon.records import F64

Undefined = NDArray[np.bool_]

FLAT = 1e-24
"""Variance over squared mean: float64 makes 1e-32 of equal samples, and of float32 ones that differ at all some 1e-15."""


NOTHING: NDArray[np.float64] = np.empty((0, 0))


class Slots(NamedTuple):
    """The slots of one column for several signals at once, each f64[signals, rows]."""

    x: F64 = NOTHING
    n: F64 = NOTHING
    mean: F64 = NOTHING
    m2: F64 = NOTHING
    m3: F64 = NOTHING
    m4: F64 = NOTHING


def value(a: Slots) -> tuple[F64, Undefined]:
    """The column as it is."""
    return a.x, np.zeros(a.x.shape, np.bool_)


def mean(a: Slots) -> tuple[F64, Undefined]:
    """Mean; undefined without samples."""
    return a.mean, a.n <= 0


def negative_mean(a: Slots) -> tuple[F64, Undefined]:
    """Minus the mean: k1 = mean(-log r)."""
    return -a.mean, a.n <= 0


def std(a: Slots) -> tuple[F64, Undefined]:
    """Population standard deviation sqrt(M2 / n); 0 for one sample."""
    return np.sqrt(_variance(a)), a.n <= 0


def rms(a: Slots) -> tuple[F64, Undefined]:
    """Root mean square sqrt(mean^2 + M2 / n)."""
    return np.sqrt(a.mean * a.mean + _variance(a)), a.n <= 0


def count(a: Slots) -> tuple[F64, Undefined]:
    """Number of samples; 0 is a measured value."""
    return a.n, np.zeros(a.n.shape, np.bool_)


def rate(a: Slots, b: Slots) -> tuple[F64, Undefined]:
    """Count of `a` per sample of `b`."""
    return a.x / b.n, b.n <= 0


def share(a: Slots, b: Slots) -> tuple[F64, Undefined]:
    """Mean of `a` over the limit `b`; undefined without samples or with a limit of 0 or below (one action, Box)."""
    return a.mean / b.x, (a.n <= 0) | (b.x <= 0)


def explained_variance(a: Slots, b: Slots) -> tuple[F64, Undefined]:
    """1 - Var(error) / Var(target); undefined when the targets do not vary."""
    target = _variance(b)
    return 1.0 - _variance(a) / target, (a.n <= 0) | (b.n <= 0) | (target == 0)


def tail_index(a: Slots, b: Slots) -> tuple[F64, Undefined]:
    """max |log r| / (std(log r) sqrt(2 ln N)), about 1 for Gaussian log-ratios whatever N; undefined without spread."""
    spread = np.sqrt(_variance(b))
    # One logarithm per distinct N by libm: numpy's vector log may differ in the last bit between array shapes,
    # and a split of a stream must derive the same numbers.
    logs = {n: math.log(n) if n > 1 else math.nan for n in set(b.n.ravel().tolist())}
    # `get`, because an unmeasured slot may hold NaN, which is not even equal to itself.
    expected = np.sqrt(2.0 * np.array([logs.get(n, math.nan) for n in b.n.ravel().tolist()]).reshape(b.n.shape))
    return a.x / (spread * expected), (b.n <= 1) | (spread == 0)


def nmse(error: Slots, target: Slots) -> tuple[F64, Undefined]:
    """Mean squared error over the variance of the targets; unlike explained variance it sees a constant bias."""
    variance = _variance(target)
    squared = error.mean * error.mean + _variance(error)
    return squared / variance, (error.n <= 0) | (target.n <= 0) | (variance == 0)


def quotient(a: Slots, b: Slots) -> tuple[F64, Undefined]:
    """`a` over `b`; undefined where `b` is 0."""
    return a.x / b.x, b.x == 0


def mean_ratio(a: Slots, b: Slots) -> tuple[F64, Undefined]:
    """Mean of `a` over mean of `b`; undefined without samples of either or where the latter is 0."""
    return a.mean / b.mean, (a.n <= 0) | (b.n <= 0) | (b.mean == 0)


def half_mean_square(a: Slots) -> tuple[F64, Undefined]:
    """(mean^2 + M2 / n) / 2: k2 of log-ratios."""
    return (a.mean * a.mean + _variance(a)) / 2.0, a.n <= 0


def effective_share(a: Slots) -> tuple[F64, Undefined]:
    """mean^2 / (mean^2 + M2 / n): the effective sample size of weights `a` over their number; undefined if all are 0."""
    square = a.mean * a.mean
    whole = square + _variance(a)
    return square / whole, (a.n <= 0) | (whole == 0)


def rms_rate(a: Slots, b: Slots) -> tuple[F64, Undefined]:
    """Root of the sum `a` per sample of `b`; a sum that rounding left a hair below 0 counts as 0."""
    return np.sqrt(np.where((a.x < 0) & np.isfinite(a.x), 0.0, a.x) / b.n), b.n <= 0


def count_ratio(a: Slots, b: Slots) -> tuple[F64, Undefined]:
    """Number of samples of `a` over that of `b`."""
    return a.n / b.n, b.n <= 0


def std_ratio(a: Slots, b: Slots) -> tuple[F64, Undefined]:
    """Standard deviation of `a` over that of `b`; undefined when `b` does not vary."""
    reference = _variance(b)
    return np.sqrt(_variance(a) / reference), (a.n <= 0) | (b.n <= 0) | (reference == 0)


def correlation(a: Slots, b: Slots, difference: Slots) -> tuple[F64, Undefined]:
    """Pearson's r of `a` and `b` from the spread of `b` - `a`: 2 cov = Var(a) + Var(b) - Var(b - a). Undefined when either
    does not vary, or when the three are not of the same samples."""
    left, right = _variance(a), _variance(b)
    found = (left + right - _variance(difference)) / (2.0 * np.sqrt(left) * np.sqrt(right))
    alike = (a.n == b.n) & (a.n == difference.n) & (a.n > 0)
    return np.clip(found, -1.0, 1.0), ~alike | _flat(a) | _flat(b) | (left < FLAT * right)


def envelope(a_min: Slots, a_max: Slots, b_min: Slots, b_max: Slots) -> tuple[F64, Undefined]:
    """Largest |a| over largest |b|, each from its least and largest value; undefined when all of b are 0."""
    reference = np.maximum(np.abs(b_min.x), np.abs(b_max.x))
    return np.maximum(np.abs(a_min.x), np.abs(a_max.x)) / reference, reference == 0


def skew(a: Slots) -> tuple[F64, Undefined]:
    """Third standardised moment sqrt(n) M3 / M2^1.5; undefined without spread."""
    return np.sqrt(a.n) * a.m3 / (a.m2 * np.sqrt(a.m2)), (a.n <= 0) | _flat(a)


def kurtosis(a: Slots) -> tuple[F64, Undefined]:
    """Fourth standardised moment n M4 / M2^2, 3 for a Gaussian; undefined without spread."""
    return a.n * a.m4 / (a.m2 * a.m2), (a.n <= 0) | _flat(a)


def gradient_health(vanishing: Slots, exploding: Slots, tensors: Slots, nonfinite: Slots) -> tuple[F64, Undefined]:
    """1 - 0.5 x share vanishing - 0.8 x share exploding, at least 0; 0 with a non-finite norm, whatever the counts are."""
    health = 1.0 - (0.5 * vanishing.x + 0.8 * exploding.x) / tensors.x
    clamped: F64 = np.where(health < 0, 0.0, health)
    return np.where(nonfinite.x > 0, 0.0, clamped), tensors.x <= 0


def _flat(a: Slots) -> Undefined:
    """Whether the samples differ by no more than the rounding of their mean makes of equal ones."""
    variance = _variance(a)
    flat: Undefined = (variance < FLAT * a.mean * a.mean) | (variance == 0)
    return flat


def _variance(a: Slots) -> F64:
    """M2 / n; a sum that rounding left a hair below 0 counts as 0."""
    variance = a.m2 / a.n
    negative: F64 = np.where(variance < 0, 0.0, variance)
    return negative


class Formula(NamedTuple):
    """A formula and the kind of each of its columns, LAST standing for every kind of one slot."""

    function: Callable[..., tuple[F64, Undefined]]
    kinds: tuple[Kind, ...]


_ONE, _SET, _SHAPE = Kind.LAST, Kind.MOMENTS, Kind.MOMENTS4

FORMULAS: Mapping[str, Formula] = {
    "value": Formula(value, (_ONE,)),
    "mean": Formula(mean, (_SET,)),
    "negative_mean": Formula(negative_mean, (_SET,)),
    "std": Formula(std, (_SET,)),
    "rms": Formula(rms, (_SET,)),
    "count": Formula(count, (_SET,)),
    "rate": Formula(rate, (_ONE, _SET)),
    "share": Formula(share, (_SET, _ONE)),
    "explained_variance": Formula(explained_variance, (_SET, _SET)),
    "tail_index": Formula(tail_index, (_ONE, _SET)),
    "nmse": Formula(nmse, (_SET, _SET)),
    "quotient": Formula(quotient, (_ONE, _ONE)),
    "mean_ratio": Formula(mean_ratio, (_SET, _SET)),
    "gradient_health": Formula(gradient_health, (_ONE, _ONE, _ONE, _ONE)),
    "half_mean_square": Formula(half_mean_square, (_SET,)),
    "effective_share": Formula(effective_share, (_SET,)),
    "rms_rate": Formula(rms_rate, (_ONE, _SET)),
    "count_ratio": Formula(count_ratio, (_SET, _SET)),
    "std_ratio": Formula(std_ratio, (_SET, _SET)),
    "correlation": Formula(correlation, (_SET, _SET, _SET)),
    "envelope": Formula(envelope, (_ONE, _ONE, _ONE, _ONE)),
    "skew": Formula(skew, (_SHAPE,)),
    "kurtosis": Formula(kurtosis, (_SHAPE,)),
}
"""Name in `Signal.formula` → formula. Every name the registry uses is here; a test compares the two."""
