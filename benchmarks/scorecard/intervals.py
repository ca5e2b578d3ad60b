"""Exact 95 % intervals of a share and of a rate, by bisection on the distribution functions: no scipy for two formulas."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TAIL = 0.025


def share_interval(hits: int, trials: int) -> tuple[float, float]:
    """Clopper and Pearson (1934); (0, 1) without a trial."""
    if trials == 0:
        return 0.0, 1.0
    low = 0.0 if hits == 0 else _root(lambda p: 1.0 - _binomial_cdf(hits - 1, trials, p) - TAIL, 0.0, 1.0)
    high = 1.0 if hits == trials else _root(lambda p: TAIL - _binomial_cdf(hits, trials, p), 0.0, 1.0)
    return low, high


def rate_interval(count: int, exposure: float) -> tuple[float, float]:
    """Garwood (1936) for a Poisson count over an exposure, per unit of it; (0, inf) without any."""
    if exposure <= 0:
        return 0.0, math.inf
    most = count + 10.0 * math.sqrt(count + 1.0) + 20.0
    low = 0.0 if count == 0 else _root(lambda m: 1.0 - _poisson_cdf(count - 1, m) - TAIL, 0.0, most)
    return low / exposure, _root(lambda m: TAIL - _poisson_cdf(count, m), 0.0, most) / exposure


def _binomial_cdf(k: int, n: int, p: float) -> float:
    if p in (0.0, 1.0):
        return 1.0 if p == 0.0 else float(k >= n)
    logs = (
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(k + 1)
    )
    return math.fsum(map(math.exp, logs))


def _poisson_cdf(k: int, mean: float) -> float:
    if mean <= 0.0:
        return 1.0
    return math.fsum(math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) for i in range(k + 1))


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is 0."""
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if rising(middle) < 0.0 else (low, middle)
    return 0.5 * (low + high)
