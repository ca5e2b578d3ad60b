"""Labels by outcome, from the trainer's own numbers: when a fault began, when it showed, when it was too late.

A fault that never shows is excluded and reported, never scored as a miss; a run declared healthy that loses what it had learned
is a natural failure, never scored as a false alarm.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.corpus.truth import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.corpus.cases import Case
    from benchmarks.corpus.recording import Recording

WINDOW = 15
"""Updates to either side that an envelope is taken over."""

MARGIN = 0.1
"""Share of its width by which an envelope is widened: with 20 seeds the range alone is left by one healthy value in 300."""

SMOOTH, LOST = 10, 0.5
"""A run has failed when the mean return of `SMOOTH` updates stays below this share of what it had gained, for as long."""

LOGS = frozenset({"kl", "value_loss", "grad_norm", "value_std", "nmse", "move"})
RETURN, FINITE = NAMES.index("return"), NAMES.index("finite")


@dataclass(frozen=True, slots=True)
class Label:
    """What became of a run. `inject` is None where nothing was done to it; `manifest` and `fatal` None where it never came."""

    inject: int | None
    manifest: int | None
    fatal: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """What healthy seeds of one setting do: `low` and `high` f64[updates, NAMES], in the domain of `_domain`."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, truths: Sequence[NDArray[np.float32]]) -> Envelope:
        """The range of all seeds within `WINDOW` updates, widened."""
        length = min(len(truth) for truth in truths)
        stacked = np.stack([_domain(truth[:length]) for truth in truths])
        low, high = np.empty(stacked.shape[1:]), np.empty(stacked.shape[1:])
        for update in range(length):
            near = stacked[:, max(update - WINDOW, 0) : update + WINDOW + 1].reshape(-1, stacked.shape[2])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a number that this trainer does not have
                low[update], high[update] = np.nanmin(near, 0), np.nanmax(near, 0)
        margin = MARGIN * (high - low)
        return cls(low - margin, high + margin)

    def outside(self, truth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """bool[updates, NAMES]: where a run leaves it; beyond its end the last update holds. NaN is not outside."""
        seen = _domain(truth)
        place = np.minimum(np.arange(len(seen)), len(self.low) - 1)
        with np.errstate(invalid="ignore"):
            left: NDArray[np.bool_] = (seen < self.low[place]) | (seen > self.high[place])
        return left


def label(case: Case, recording: Recording, envelope: Envelope) -> Label:
    """The label of one run; `envelope` is of the healthy seeds of its setting."""
    truth = recording.truth
    if case.healthy:
        return Label(None, None, _failed(truth, 0))
    manifest = _manifest(truth, envelope, case.inject)
    ended = [int(np.argmax(truth[:, FINITE] == 0.0))] if (truth[:, FINITE] == 0.0).any() else []
    failed = _failed(truth, case.inject)
    fatal = min([*ended, *([failed] if failed is not None else [])], default=None)
    return Label(case.inject, manifest, fatal)


def exceedance(truths: Sequence[NDArray[np.float32]]) -> float:
    """Share of the values of a healthy seed that lie outside the envelope of the others."""
    if len(truths) < 3:
        return float("nan")
    shares = [
        float(Envelope.of([*truths[:place], *truths[place + 1 :]]).outside(truth)[:, :FINITE].mean())
        for place, truth in enumerate(truths)
    ]
    return float(np.mean(shares))


def _manifest(truth: NDArray[np.float32], envelope: Envelope, inject: int) -> int | None:
    """First update from `inject` on at which a number is outside, as it is in 2 of 3 updates from there; or not finite."""
    outside = envelope.outside(truth)
    outside[:, FINITE] = False
    padded = np.concatenate([outside, np.zeros((2, outside.shape[1]), np.bool_)])
    lasting = (outside & (padded[1:-1] | padded[2:])).any(1) | (truth[:, FINITE] == 0.0)
    lasting[:inject] = False
    return int(np.argmax(lasting)) if lasting.any() else None


def _failed(truth: NDArray[np.float32], begin: int) -> int | None:
    """First update of a lasting loss of half of what had been gained; what comes before `begin` only sets the mark."""
    returns = truth[:, RETURN]
    known = np.flatnonzero(np.isfinite(returns))
    if len(known) < 4 * SMOOTH:
        return None
    smooth = np.convolve(returns[known], np.ones(SMOOTH) / SMOOTH, "valid")
    at = known[SMOOTH - 1 :]
    first, best = float(np.median(returns[known[:3]])), np.maximum.accumulate(smooth)
    noise = 1.48 * float(np.median(np.abs(np.diff(returns[known])))) / np.sqrt(2.0 * SMOOTH)
    told = (best - first > 5.0 * noise) & (best - smooth > 5.0 * noise)  # both the gain and the loss stand out
    lost = (smooth < first + LOST * (best - first)) & told & (at >= begin)
    held = np.convolve(lost, np.ones(SMOOTH), "full")[: len(lost)] >= SMOOTH
    return int(at[max(int(np.argmax(held)) - SMOOTH + 1, 0)]) if held.any() else None


def _domain(truth: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scale-like numbers as logarithms."""
    found = truth.astype(np.float64)
    for place, name in enumerate(NAMES):
        if name in LOGS:
            with np.errstate(divide="ignore", invalid="ignore"):
                found[:, place] = np.log(np.maximum(found[:, place], 1e-12))
    return found
