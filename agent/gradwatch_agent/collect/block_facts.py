"""What a reduced block says beside its moments: ranges, zeros and the shape of a distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypedDict

from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.collectors import Switches
    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.collect.staging import Layout
    from gradwatch_agent.device.plan import BlockFacts

LOGRATIO, ADVANTAGE, REWARD = "policy.logratio", "adv.used", "reward.step"

RANGES: dict[str, tuple[str, str]] = {
    LOGRATIO: ("policy.logp.min", "policy.logp.max"),  # staged as new log-probabilities
    "value.pred": ("value.pred.min", "value.pred.max"),
    "value.target": ("value.target.min", "value.target.max"),
}
"""Channel → columns of its least and largest value."""

SIZES: dict[str, str] = {ADVANTAGE: "adv.used.absmax", REWARD: "reward.step.absmax"}
"""Channel → column of its largest |value|."""

ZEROS, SHAPE = "reward.step.zeros", "adv.used.shape"

EXTRA: dict[str, tuple[str, ...]] = {
    LOGRATIO: RANGES[LOGRATIO],
    "value.pred": RANGES["value.pred"],
    "value.target": RANGES["value.target"],
    ADVANTAGE: (SIZES[ADVANTAGE], SHAPE),
    REWARD: (SIZES[REWARD], ZEROS),
}
"""Channel → every column here that comes from it, missing when it is."""


COLLECTOR_OF = {
    "ranges": "ranges",
    "zeros": "reward_zeros",
    "shape": "advantage_shape",
    "batch": "diversity",
}
"""Field of a `Plan` → the collector that asks for it."""


class Wanted(TypedDict):
    """The arguments of a `Plan` that belong to this module."""

    ranges: bool
    zeros: int | None
    shape: int | None


def want(channels: Sequence[str], switches: Switches) -> Wanted:
    """What to ask of a block with these channels, given by their moments column."""

    def place(name: str, collector: str) -> int | None:
        return channels.index(name) if name in channels and switches.on(collector) else None

    ranged = switches.on("ranges") and any(name in RANGES or name in SIZES for name in channels)
    return Wanted(ranges=ranged, zeros=place(REWARD, "reward_zeros"), shape=place(ADVANTAGE, "advantage_shape"))


def tell_extra(tally: Tally, layout: Layout, facts: BlockFacts) -> None:
    """Add the columns of this module; a channel without a sample has none."""
    for place, channel in enumerate(layout.channels):
        name = channel.moments[0]
        if not facts.n[place]:
            for column in EXTRA.get(name, ()):
                tally.refuse(column, Status.UNDEFINED)
        elif facts.low and name in EXTRA:
            low, high = facts.range_of(place)
            if name in RANGES:
                tally.add(RANGES[name][0], (low,))
                tally.add(RANGES[name][1], (high,))
            else:
                tally.add(SIZES[name], (math.nan if math.isnan(low) or math.isnan(high) else max(abs(low), abs(high)),))
    if facts.zeros is not None and layout.plan.zeros is not None and facts.n[layout.plan.zeros]:
        tally.add(ZEROS, (facts.zeros,))
    at = layout.plan.shape
    if facts.powers is not None and at is not None and facts.n[at]:
        tally.add(SHAPE, (facts.n[at], facts.total[at] / facts.n[at], facts.m2[at], *facts.powers))
