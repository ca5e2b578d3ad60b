"""Trainers that take turns: how long that goes on, and what one takes more than another, in per cent with 95 % interval."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from table import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RESAMPLES = 2000


class Interval(NamedTuple):
    """A median and the 95 % interval around it."""

    middle: float
    low: float
    high: float

    def map(self, change: Callable[[float], float]) -> Interval:
        """The same in other units; `change` must not turn the order round."""
        return Interval(*map(change, self))

    def figure(self, name: str, unit: str, budget: float | None = None, *, at_least: bool = False) -> Figure:
        """As a row of a table."""
        return Figure(name, self.middle, unit, budget, at_least, interval=(self.low, self.high))


def rounds(seconds: float, least: int) -> Iterator[int]:
    """Numbers until so many seconds have passed, at least `least` of them: what is measured takes as long on any machine, and
    a busy one is told by its intervals."""
    end, number = time.monotonic() + seconds, 0
    while number < least or time.monotonic() < end:
        yield number
        number += 1


def interval(found: Sequence[Sequence[float]], of: Callable[..., Any] = np.median) -> Interval:
    """The median, or what `of` takes along an axis, of the values of all rounds. Whole rounds are resampled, as what disturbs
    one value of a round disturbs the others; all rounds hold as many values."""
    values = np.asarray(found, dtype=np.float64)
    picked = np.random.default_rng(1).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile([of(values[rows].ravel()) for rows in picked], (0.025, 0.975))
    return Interval(float(of(values.ravel())), float(low), float(high))


def added_percent(mine: Sequence[Sequence[float]], off: Sequence[Sequence[float]]) -> Interval:
    """What `mine` takes more than `off`, value by value of each round."""
    logs = [[math.log(a / b) for a, b in zip(*pair, strict=True)] for pair in zip(mine, off, strict=True)]
    return interval(logs).map(lambda log: (math.exp(log) - 1) * 100)


def quietest(mine: Sequence[Sequence[float]], off: Sequence[Sequence[float]]) -> float:
    """Per cent added when of each update the fastest of all rounds counts: what is left where nobody else disturbs."""
    fastest = [sum(min(times) for times in zip(*runs, strict=True)) for runs in (mine, off)]
    return (fastest[0] / fastest[1] - 1) * 100
