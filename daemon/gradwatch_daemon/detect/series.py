"""What is tracked against its own past, and on which scale it is compared.

A signal has one usual value, whoever asks for it. Any signal can be tracked, on the scale that its unit asks for: by ratio
what is a size, by odds what is a fraction, by difference what has a sign. Listed here is what differs from that: a few
least spreads, and the series that are computed from signals before the baselines see them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_contracts.signals import SIGNALS, Unit
from gradwatch_daemon.detect import derived

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gradwatch_contracts.signals import Signal
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import F64

    Compute = Callable[[View], F64]
    """The series over the block for the present subject, NaN where it is not known."""

LINEAR, LOG, LOGIT = "linear", "log", "logit"

FRACTION_LEAST = 1e-3
"""Fractions nearer to 0 or 1 than this count as this near: below it a fraction is a handful of samples."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How values are compared: `log` by ratio, `logit` by odds, `linear` by difference. Values below `least` count as it.

    `mad_least` is the smallest MAD believed, so that a nearly constant signal does not make every wobble an outlier.
    """

    kind: str
    mad_least: float
    least: float = 0.0

    def back(self, x: float) -> float:
        """Scale → value."""
        if self.kind == LINEAR:
            return x
        if self.kind == LOGIT:
            return 1.0 / (1.0 + math.exp(-max(min(x, 700.0), -700.0)))
        return math.exp(min(x, 700.0))


@dataclass(frozen=True, slots=True)
class Series:
    """One tracked series. `signal` gives its subjects, and its values unless `compute` does.

    `stride` thins what it learns from: with 4 its 64 values span 256 updates, an anchor that a slow slide does not carry along.
    """

    name: str
    signal: str
    scale: Scale
    compute: Compute | None = None
    stride: int = 1


KL, RATIO, NORM, HEALTH = "policy.kl.k3", "policy.ratio.max", "grad.norm.mean", "grad.health"
ERROR, SQUARED_ERROR, NORM_ANCHOR = "value error", "squared value error", "grad.norm.mean over 256"
ENTROPY_SLOPE, ENTROPY_LEFT, STD_LEFT = "entropy slope", "entropy updates left", "std updates left"
NORM_DRIFT, HEALTH_DRIFT = "norm drift", "health drift"
AT_BEST, RETURN_STILL = "return at best", "updates since the return rose"
KL_TAIL, KL_OF_RATE, NORM_OVER_CLIP = "k3 over k2", "k3 over the squared rate", "norm over clip limit"
"""Names of computed series: no signal has a blank in its name."""

_LISTED = (
    Series(KL, KL, Scale(LOG, 0.05, 1e-8)),
    Series(RATIO, RATIO, Scale(LOG, 0.05, 1e-6)),
    Series(HEALTH, HEALTH, Scale(LINEAR, 0.02)),
    Series(NORM_ANCHOR, NORM, Scale(LOG, 0.05, 1e-12), stride=4),
    Series(ERROR, "value.nmse", Scale(LOG, 0.05, 1e-6), derived.value_error),
    Series(SQUARED_ERROR, "value.nmse", Scale(LOG, 0.05, 1e-12), derived.squared_value_error),
    Series(ENTROPY_SLOPE, "policy.entropy.norm", Scale(LINEAR, 0.002), derived.entropy_slope),
    Series(ENTROPY_LEFT, "policy.entropy.norm", Scale(LINEAR, 1.0), derived.entropy_left),
    Series(STD_LEFT, "policy.std.min", Scale(LINEAR, 1.0), derived.std_left),
    Series(NORM_DRIFT, NORM, Scale(LINEAR, 0.1), derived.norm_drift),
    Series(HEALTH_DRIFT, HEALTH, Scale(LINEAR, 0.1), derived.health_drift),
    Series(KL_TAIL, KL, Scale(LOG, 0.05, 1e-6), derived.kl_tail),
    Series(KL_OF_RATE, KL, Scale(LOG, 0.05, 1e-12), derived.kl_of_rate),
    Series(NORM_OVER_CLIP, NORM, Scale(LOG, 0.05, 1e-12), derived.norm_over_clip),
    Series(AT_BEST, "episode.return.mean", Scale(LINEAR, 0.1), derived.return_at_best),
    Series(RETURN_STILL, "episode.return.mean", Scale(LINEAR, 1.0), derived.return_still),
)


def _of_signal(signal: Signal) -> Series:
    """On the scale of its unit."""
    if signal.sign == "signed":
        scale = Scale(LINEAR, 1e-6)
    elif signal.unit is Unit.FRACTION:
        scale = Scale(LOGIT, 0.1, FRACTION_LEAST)
    else:
        scale = Scale(LOG, 0.05, 1e-12)
    return Series(signal.name, signal.name, scale)


SERIES: Mapping[str, Series] = {
    **{signal.name: _of_signal(signal) for signal in SIGNALS.values()},
    **{series.name: series for series in _LISTED},
}
"""Every series by name."""


def series_of(name: str) -> Series:
    """The series of this name.

    Raises:
        KeyError: for what is neither listed nor a signal.
    """
    return SERIES[name]
