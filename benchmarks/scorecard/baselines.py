"""What people use instead, on the same recordings: a NaN check, the folk thresholds, and ZClip's score of the gradient norm.

Each is given every benefit: an alarm that goes on, or returns within `EPISODE` updates, is one, and any alarm in time counts as
having found a fault, whatever it is about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.corpus.replay import Alert
from gradwatch_contracts.control import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gradwatch_daemon.records import SignalBlock

EPISODE = 32


def nan_only(blocks: Sequence[SignalBlock]) -> list[Alert]:
    """NaN or infinity anywhere."""
    found = []
    for block in blocks:
        bad = ~np.isfinite(block.values)
        for row, key in enumerate(block.signals):
            if key.name.endswith(".nonfinite"):
                bad[row] |= block.values[row] > 0
        found += _episodes("nonfinite", block.update[(bad & (block.status == 0)).any(0)])
    return found


def folk(blocks: Sequence[SignalBlock]) -> list[Alert]:
    """KL above 0.02, clip fraction above 0.3, explained variance below 0, normalised entropy below 0.1, and NaN."""
    rules = (
        ("policy.kl.k3", 0.02, 1.0, "kl_spike"),
        ("policy.clip_fraction", 0.3, 1.0, "ratio_explosion"),
        ("value.explained_variance", 0.0, -1.0, "value_collapse"),
        ("policy.entropy.norm", 0.1, -1.0, "entropy_collapse"),
    )
    found = nan_only(blocks)
    for block in blocks:
        for name, limit, sign, kind in rules:
            values = _series(block, name)
            found += _episodes(kind, block.update[sign * (values - limit) > 0])
    return found


def zclip(blocks: Sequence[SignalBlock]) -> list[Alert]:
    """Gradient norm more than 2.5 deviations above its exponential mean, both with momentum 0.97 after 25 updates; outliers
    enter clipped to the limit (Kumar et al., 2025)."""
    found: list[Alert] = []
    for block in blocks:
        norms = _series(block, "grad.norm.mean")
        breached: list[int] = []
        mean = spread = float("nan")
        for place, norm in enumerate(norms):
            if not np.isfinite(norm):
                continue
            if place < 25 or not np.isfinite(mean):
                seen = norms[: place + 1][np.isfinite(norms[: place + 1])]
                mean, spread = float(seen.mean()), float(seen.var())
                continue
            limit = mean + 2.5 * np.sqrt(spread)
            if norm > limit:
                breached.append(int(block.update[place]))
            taken = min(float(norm), float(limit))
            mean, spread = 0.97 * mean + 0.03 * taken, 0.97 * spread + 0.03 * (taken - mean) ** 2
        found += _episodes("gradient_exploding", np.array(breached, np.int64))
    return found


BASELINES = {"NaN only": nan_only, "folk thresholds": folk, "ZClip": zclip}
"""Name → baseline."""


def _series(block: SignalBlock, name: str) -> NDArray[np.float64]:
    """A signal, of its first subject; NaN where it was not measured."""
    rows = [row for row, key in enumerate(block.signals) if key.name == name]
    if not rows:
        return np.full(len(block), np.nan)
    values = np.where(block.status[rows[0]] == 0, block.values[rows[0]], np.nan)
    return values.astype(np.float64)


def _episodes(kind: str, updates: NDArray[np.int64]) -> list[Alert]:
    found: list[Alert] = []
    last = None
    for update in updates.tolist():
        if last is None or update > last + EPISODE:
            found.append(Alert(update, kind, "", Severity.WARNING, ((kind, update),), ""))
        last = update
    return found
