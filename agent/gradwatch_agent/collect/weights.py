"""The norms of the weights on the host, added up over the devices of a model."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gradwatch_agent.blackbox import LAYERS_MAX, WEIGHT, Norms
from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.collect.layers import Broken, Layers


@dataclass(slots=True)
class Weights:
    """Adds up the weights of a model spread over devices: sums of squares, norms by number of the parameter, and how many
    devices are still to come. `layers` is there at DEBUG only."""

    names: Sequence[str]
    broken: Broken
    layers: Layers | None
    norms: dict[int, float] = field(default_factory=dict)
    waiting: int = 0
    square: float = 0.0
    moved_square: float = 0.0


@dataclass(frozen=True, slots=True)
class WeightReader:
    """Norms of the weights with numbers `members` and, after them, if they were copied, of their changes."""

    weights: Weights
    members: tuple[int, ...]

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See Reader; the last device tells for all."""
        weights, tensors = self.weights, len(self.members)
        norms, moved = values[:tensors], values[tensors:]
        if tensors <= LAYERS_MAX:
            tally.norms.append(Norms(WEIGHT, self.members, (), array("d", norms)))
        weights.norms.update(zip(self.members, norms, strict=True))
        weights.square += sum([norm * norm for norm in norms])
        weights.moved_square += sum([norm * norm for norm in moved]) if moved else math.nan
        weights.waiting -= 1
        if weights.waiting:
            return
        total = math.sqrt(weights.square)
        tally.add("param.norm", (total,))
        tally.add("param.nonfinite", (float(sum([not math.isfinite(norm) for norm in weights.norms.values()])),))
        weights.broken.tell(tally, weights.names, weights.norms, always=weights.layers is not None)
        if weights.layers is not None:
            weights.layers.weights = weights.norms
            weights.layers.tell(tally)
        if moved and total == 0:
            tally.refuse("opt.update_ratio", Status.UNDEFINED)
        elif moved:
            tally.add("opt.update_ratio", (math.sqrt(weights.moved_square) / total,))
