"""Which actions were taken: how dominant one of a discrete head is, how many continuous ones lie on their bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gradwatch_agent.collect.host import to_float, to_floats
from gradwatch_agent.collect.samples import sample_rows
from gradwatch_agent.collect.spaces import flat
from gradwatch_agent.collect.tensors import numbers_of
from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.collect.parts import Parts
    from gradwatch_agent.collect.staging import Staging

HEADS_MAX = 64
ACTIONS_MAX = 4096
"""Actions of one head that are counted apart."""

DOMINANCE, SATURATED, ACTION = "policy.action.dominance", "policy.action.saturated", "policy.action"


@dataclass(frozen=True, slots=True)
class Discrete:
    """Heads by name and number of actions; `start` is the number of the first action of a single head."""

    heads: tuple[tuple[str, int], ...]
    start: int = 0


@dataclass(frozen=True, slots=True)
class Box:
    """Bounds of a continuous action, flat; infinite where there is none."""

    low: torch.Tensor
    high: torch.Tensor
    bounded: bool


def read_space(space: object) -> Discrete | Box | None:
    """What a gymnasium space says, by its attributes: Discrete, MultiDiscrete or Box; None for anything else."""
    count = to_float(getattr(space, "n", None))
    if count is not None and type(space).__name__ != "MultiBinary":
        start = to_float(getattr(space, "start", 0)) or 0.0
        return Discrete((("", int(count)),), int(start)) if 0 < count <= ACTIONS_MAX else None
    if getattr(space, "nvec", None) is not None:
        counts = to_floats(flat(getattr(space, "nvec", ()))) or []
        known = 0 < len(counts) <= HEADS_MAX and all(0 < n <= ACTIONS_MAX for n in counts)
        return Discrete(tuple((str(head), int(n)) for head, n in enumerate(counts))) if known else None
    low, high = (to_floats(flat(getattr(space, bound, ()))) or [] for bound in ("low", "high"))
    if not low or len(low) != len(high):
        return None
    bounds = [torch.tensor(bound, dtype=torch.float64) for bound in (low, high)]
    return Box(bounds[0], bounds[1], bounded=any(map(math.isfinite, (*low, *high))))


class ActionCollector:
    """The actions of the running update: counts by head, or moments and how many are on a bound, on the device."""

    __slots__ = ("_bounds", "_counts", "_numbers", "_space", "staging")

    def __init__(self, staging: Staging, action_space: object) -> None:
        self.staging = staging
        self._space = None if action_space is None else read_space(action_space)
        self._bounds: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}
        self.clear()

    def clear(self) -> None:
        """Forget the running update."""
        self._counts: dict[tuple[torch.device, str], torch.Tensor] = {}
        self._numbers: list[tuple[torch.Tensor, int]] = []

    def observe(self, tally: Tally, given: object) -> None:
        """Reduce the actions of one rollout: one number a step for a Discrete space, else one for each head or dimension."""
        space = self._space
        if space is None:
            return
        actions = numbers_of(given)
        if actions is None:
            self._refuse(tally, Status.DTYPE)
            return
        width = len(space.heads) if isinstance(space, Discrete) else space.low.shape[0]
        if not actions.numel() or actions.numel() % width or (width > 1 and actions.shape[-1] != width and actions.dim() < 2):
            self._refuse(tally, Status.SHAPE if actions.numel() else Status.UNDEFINED)
            return
        rows = sample_rows(actions, width)
        if isinstance(space, Discrete):
            self._count(space, rows)
        else:
            self._bound(space, rows)

    def _count(self, space: Discrete, rows: torch.Tensor) -> None:
        one = self.staging.reducer(rows.device).one
        for column, (head, n) in enumerate(space.heads):
            taken, last = rows[:, column], space.start + n - 1
            if rows.is_floating_point():  # before it is an integer, as NaN and 1e30 are none
                taken = torch.nan_to_num(taken).clamp(space.start, last)
            # An action out of range would be an index out of range, which on a GPU ends the process.
            places = taken.long().clamp(space.start, last)
            if space.start:
                places.sub_(space.start)
            counts = torch.zeros(n, dtype=one.dtype, device=rows.device).scatter_add_(0, places, one.expand(len(places)))
            held = self._counts.get((rows.device, head))
            self._counts[rows.device, head] = counts if held is None else held + counts

    def _bound(self, space: Box, rows: torch.Tensor) -> None:
        device, one = rows.device, self.staging.reducer(rows.device).one
        if device not in self._bounds:
            self._bounds[device] = (space.low.to(device, one.dtype), space.high.to(device, one.dtype))
        low, high = self._bounds[device]
        x = torch.mul(rows, one)
        on_bound = torch.mul(torch.count_nonzero((x <= low) | (x >= high)), one)
        self._numbers.append((torch.cat([on_bound, torch.stack(torch.var_mean(x, correction=0))]), rows.numel()))

    def finish(self, parts: Parts) -> None:
        """Hand over what was counted."""
        for (_, head), counts in self._counts.items():
            parts.put([torch.stack([counts.amax(), counts.sum()])], DominanceReader(head))
        bounded = isinstance(self._space, Box) and self._space.bounded
        for vector, n in self._numbers:
            parts.put([vector], BoundReader(n, bounded))
        self.clear()

    def _refuse(self, tally: Tally, status: Status) -> None:
        if isinstance(self._space, Discrete):
            for head, _ in self._space.heads:
                tally.refuse(DOMINANCE, status, head)
        else:
            tally.refuse(ACTION, status)
            tally.refuse(SATURATED, status)


@dataclass(frozen=True, slots=True)
class DominanceReader:
    """Count of the most frequent action, and of all."""

    head: str

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See host.Reader."""
        tally.add(DOMINANCE, (values[0] / values[1],), self.head)


@dataclass(frozen=True, slots=True)
class BoundReader:
    """Of `n` numbers those on a bound, variance and mean."""

    n: int
    bounded: bool

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See host.Reader."""
        tally.add(ACTION, (float(self.n), values[2], self.n * values[1]))
        if self.bounded:
            tally.add(SATURATED, (values[0],))
        else:
            tally.refuse(SATURATED, Status.UNDEFINED)
