"""The named formulas of the signal registry, over whole blocks.

A formula takes one `Slots` per column: arrays f64[rows, signals], of which `n`, `mean`, `m2` are filled for moments and
`x` for the other kinds (the rest are empty). It returns the value and where it is undefined (n = 0, zero variance,
limit <= 0). NaN and infinities in the inputs pass through as the arithmetic has them: a measured non-finite value is
not an undefined one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gradwatch_daemon.records import F64

Undefined = NDArray[np.bool_]


class Slots(NamedTuple):
    """The slots of one column for several signals at once, each f64[rows, signals]."""

    x: F64
    n: F64
    mean: F64
    m2: F64


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


def gradient_health(vanishing: Slots, exploding: Slots, tensors: Slots, nonfinite: Slots) -> tuple[F64, Undefined]:
    """1 - 0.5 x share vanishing - 0.8 x share exploding, at least 0; 0 with a non-finite norm, whatever the counts are."""
    health = 1.0 - (0.5 * vanishing.x + 0.8 * exploding.x) / tensors.x
    clamped: F64 = np.where(health < 0, 0.0, health)
    return np.where(nonfinite.x > 0, 0.0, clamped), tensors.x <= 0


def _variance(a: Slots) -> F64:
    """M2 / n; a sum that rounding left a hair below 0 counts as 0."""
    variance = a.m2 / a.n
    negative: F64 = np.where(variance < 0, 0.0, variance)
    return negative


class Formula(NamedTuple):
    """A formula and which of its columns are moments."""

    function: Callable[..., tuple[F64, Undefined]]
    moments: tuple[bool, ...]


FORMULAS: Mapping[str, Formula] = {
    "value": Formula(value, (False,)),
    "mean": Formula(mean, (True,)),
    "negative_mean": Formula(negative_mean, (True,)),
    "std": Formula(std, (True,)),
    "rms": Formula(rms, (True,)),
    "count": Formula(count, (True,)),
    "rate": Formula(rate, (False, True)),
    "share": Formula(share, (True, False)),
    "explained_variance": Formula(explained_variance, (True, True)),
    "tail_index": Formula(tail_index, (False, True)),
    "nmse": Formula(nmse, (True, True)),
    "quotient": Formula(quotient, (False, False)),
    "mean_ratio": Formula(mean_ratio, (True, True)),
    "gradient_health": Formula(gradient_health, (False, False, False, False)),
}
"""Name in `Signal.formula` → formula. Every name the registry uses is here; a test compares the two."""
