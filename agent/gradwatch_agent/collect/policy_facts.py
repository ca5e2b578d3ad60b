"""From reduced blocks of minibatches to columns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gradwatch_agent.collect.block_facts import tell_extra
from gradwatch_agent.device.plan import largest
from gradwatch_contracts.columns import Status
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.collect.staging import Segment
    from gradwatch_agent.device.plan import RatioFacts

LOGRATIO, K3, ENTROPY = "policy.logratio", "policy.kl.k3", "policy.entropy"
PPO_COLUMNS = tuple(name for name, spec in COLUMNS.items() if spec.call == "ppo" and not spec.per)
RATIO_COLUMNS = tuple(
    name
    for name in PPO_COLUMNS
    if name.startswith(("policy.logratio", "policy.ratio", "policy.kl", "policy.clipped", "policy.logp"))
)


@dataclass(slots=True)
class SlicedRows:
    """Sums of k3 over the slices of minibatches too large to be staged: minibatch → (sum, samples)."""

    sums: dict[int, tuple[float, float]] = field(default_factory=dict)

    def add(self, minibatch: int, mean: float, n: float) -> None:
        """Add one slice."""
        held, count = self.sums.get(minibatch, (0.0, 0.0))
        if n > 0:
            self.sums[minibatch] = (held + mean * n, count + n)

    def tell(self, tally: Tally) -> None:
        """Their means, as rows."""
        for minibatch, (total, n) in self.sums.items():
            _tell_k3(tally, [total / n], [minibatch])


def tell_segment(tally: Tally, segment: Segment, values: Sequence[float], sliced: SlicedRows) -> None:
    """Turn one reduced block of minibatches into columns."""
    facts = segment.read(values)
    segment.tell(tally, facts)
    tell_extra(tally, segment.layout, facts)
    if facts.ratio is None:
        return
    if not facts.n[0]:
        for name in RATIO_COLUMNS:
            tally.refuse(name, Status.UNDEFINED)
        return
    _tell_ratio(tally, facts.ratio)
    if facts.ratio.weights is not None:
        n, (excess, m2) = facts.n[0], facts.ratio.weights
        tally.add("policy.ratio", (n, 1.0 + excess / n, m2))
    rows = [(mean, minibatch) for mean, minibatch in zip(facts.ratio.k3, segment.minibatches, strict=True) if mean is not None]
    if segment.whole:
        _tell_k3(tally, [mean for mean, _ in rows], [minibatch for _, minibatch in rows])
    else:
        for mean, minibatch in rows:
            sliced.add(minibatch, mean, facts.n[0])


def _tell_ratio(tally: Tally, ratio: RatioFacts) -> None:
    low, high = ratio.logratio_min, ratio.logratio_max
    tally.add("policy.logratio.absmax", (math.nan if math.isnan(low) or math.isnan(high) else max(abs(low), abs(high)),))
    tally.add("policy.ratio.max", (_exp(high),))
    tally.add("policy.ratio.min", (_exp(low),))
    tally.add("policy.kl.k3.sample_max", (largest((_k3(low), _k3(high))),))  # k3 is convex in log r
    if ratio.clipped is not None:
        high_count, low_count = ratio.clipped
        tally.add("policy.clipped", (high_count + low_count,))
        tally.add("policy.clipped.high", (high_count,))
        tally.add("policy.clipped.low", (low_count,))
    if ratio.first_dev is not None:
        tally.add("policy.ratio.first_mb_dev", (ratio.first_dev,))
    else:
        tally.refuse("policy.ratio.first_mb_dev", Status.UNDEFINED)


def _tell_k3(tally: Tally, means: list[float], minibatches: list[int]) -> None:
    """Largest and last of minibatch means; there is at least one."""
    tally.add("policy.kl.k3.max", (largest(means),))
    tally.add_last("policy.kl.k3.last", minibatches[-1], means[-1])


def _k3(log_ratio: float) -> float:
    """(r - 1) - log r; of infinities too."""
    if math.isinf(log_ratio):
        return math.inf
    try:
        return math.expm1(log_ratio) - log_ratio
    except OverflowError:
        return math.inf


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
