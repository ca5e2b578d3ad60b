"""The transitions of an update whose policy ratio is furthest from 1, for a table at DEBUG.

A minibatch is copied beside the ones before it, and the worst few of them all are chosen on the device at once, which takes
a sixteenth of choosing from each; their number, ratio and what else the trainer passed travel with the other values of the
update.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from operator import is_
from typing import TYPE_CHECKING

import torch

from gradwatch_agent.collect.layers import pack
from gradwatch_agent.collect.pile import MASK, NEW, OLD, Given, Pile
from gradwatch_agent.collect.tensors import is_plain
from gradwatch_agent.device.reduce import is_grad_enabled, set_grad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.collectors import Switches
    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.collect.parts import Parts
    from gradwatch_agent.collect.staging import Staging

EXEMPLARS_MAX = 8
ACTIONS_MAX = 8
"""Components of one action that are shown."""

ROWS_MAX = 32
"""Minibatches gathered before the worst of them are chosen."""

HELD_MAX = 32
"""Choices held before the worst of these are chosen."""

KINDS_MAX = 16
"""Sets of features told apart in one update: a trainer passes the same arguments each time."""

SCORE, MINIBATCH, INDEX = "severity", "minibatch", "index"
LEADING = (SCORE, MINIBATCH, INDEX)

Kind = tuple[torch.device, tuple[str, ...]]


class ExemplarCollector:
    """The worst transitions of the running update, by the features that came with them."""

    __slots__ = ("_held", "_pile", "_spent_ns", "_switches", "staging")

    def __init__(self, staging: Staging, switches: Switches) -> None:
        self.staging = staging
        self._switches = switches
        self._spent_ns = 0
        self.clear()

    def clear(self) -> None:
        """Forget the running update."""
        self._held: dict[Kind, list[torch.Tensor]] = {}
        self._pile: Pile | None = None

    def observe(self, minibatch: int, given: Given) -> None:
        """Take a minibatch to choose the worst transitions from. What does not fit the log-probabilities is left out: `ppo`
        has said so in the statuses. Samples that a mask excludes are no transitions."""
        begin, pile = time.perf_counter_ns(), self._pile
        enabled = is_grad_enabled()
        try:
            set_grad(False)
            if pile is None or _is_captured(given[0]) or not pile.repeat(minibatch, given):
                self._examine(minibatch, given)
        finally:
            set_grad(enabled)
            self._spent_ns += time.perf_counter_ns() - begin

    def _examine(self, minibatch: int, given: Given) -> None:
        """Take what fits of a minibatch that is not like the last one."""
        new_logp, old_logp, mask, actions, values, advantages = given
        if not is_plain(new_logp) or not is_plain(old_logp) or new_logp.shape != old_logp.shape or not new_logp.numel():
            return
        if new_logp.device != old_logp.device or new_logp.device.type == "meta" or not _is_dense(new_logp, old_logp):
            return
        if new_logp.is_complex() or old_logp.is_complex() or _is_captured(new_logp):
            return
        features = {NEW: new_logp, OLD: old_logp}
        if is_plain(mask) and mask.dtype is torch.bool and _fits(mask, new_logp):
            features[MASK] = mask
        features.update(_actions(actions, new_logp))
        for name, tensor in (("value", values), ("advantage", advantages)):
            if is_plain(tensor) and _fits(tensor, new_logp) and not tensor.is_complex():
                features[name] = tensor
        if new_logp.dim() != 1:
            features = {name: tensor.reshape(-1) for name, tensor in features.items()}
        self._gather(minibatch, features)
        taken = [tensor for tensor in given if tensor is not None]
        if self._pile is not None and len(taken) == len(features) and all(map(is_, taken, features.values())):
            self._pile.know(given)

    def _gather(self, minibatch: int, features: dict[str, torch.Tensor]) -> None:
        """Copy a minibatch beside those before it; one that is too large is chosen from piece by piece."""
        device, samples = features[NEW].device, features[NEW].shape[0]
        room = self.staging.scratch // (16 * len(features))
        if samples > room:
            self._flush()
            for start in range(0, samples, room):
                self._gather(minibatch, {name: tensor[start : start + room] for name, tensor in features.items()})
                if self._pile is not None:
                    self._pile.sample = start
                self._flush()
            return
        pile = self._pile
        if pile is None or not pile.takes(device, features, minibatch):
            self._flush()
            self._pile = pile = Pile(device, features, min(ROWS_MAX, room // samples), minibatch)
        pile.put(list(features.values()))

    def _flush(self) -> None:
        """Choose from what is gathered."""
        pile, self._pile = self._pile, None
        if pile is None or not pile.rows:
            return
        kind = (pile.device, (*LEADING, *pile.names))
        if kind not in self._held and len(self._held) >= KINDS_MAX:
            return
        found = pile.choose(
            self.staging.reducer(pile.device).one, EXEMPLARS_MAX
        )  # before its kind is noted: Ctrl-C may come in between
        held = self._held.get(kind)
        if held is None:
            self._held[kind] = [found]
            return
        held.append(found)
        if len(held) >= HELD_MAX:
            self._held[kind] = [_worst(held)]

    def finish(self, parts: Parts) -> None:
        """Hand over the worst of the update. Gradients must be off."""
        if not self._spent_ns:
            return
        begin = time.perf_counter_ns() - self._spent_ns
        self._spent_ns = 0
        self._flush()
        table = ExemplarTable(waiting=len(self._held))
        for (_, names), held in self._held.items():
            rows = held[0] if len(held) == 1 else _worst(held)
            parts.put([rows.reshape(-1)], ExemplarReader(table, names))
        self._held = {}
        self._switches.charge("exemplars", time.perf_counter_ns() - begin)


@dataclass(slots=True)
class ExemplarTable:
    """The rows of all kinds as they arrive, and how many kinds are still to come."""

    waiting: int
    rows: list[dict[str, float]] = field(default_factory=list)

    def tell(self, tally: Tally) -> None:
        """Add the table, worst first. Its index is "minibatch:index in it"; a feature that a row lacks is NaN."""
        rows = sorted((row for row in self.rows if row[SCORE] > -math.inf), key=_place)[:EXEMPLARS_MAX]
        if not rows:
            return
        names = tuple(dict.fromkeys(name for row in rows for name in row if name not in LEADING))
        index = tuple(f"{int(row[MINIBATCH])}:{int(row[INDEX])}" for row in rows)
        numbers = [[_ratio(row), *(row.get(name, math.nan) for name in names)] for row in rows]
        tally.tables.append(("exemplars", index, ("ratio", *names), pack(numbers)))


@dataclass(frozen=True, slots=True)
class ExemplarReader:
    """The worst transitions with one set of features."""

    table: ExemplarTable
    names: tuple[str, ...]

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See host.Reader; the last one tells for all."""
        width = len(self.names)
        for at in range(0, len(values), width):
            self.table.rows.append(dict(zip(self.names, values[at : at + width], strict=True)))
        self.table.waiting -= 1
        if not self.table.waiting:
            self.table.tell(tally)


def _worst(held: Sequence[torch.Tensor]) -> torch.Tensor:
    """The worst rows of several minibatches."""
    rows = torch.cat(list(held))
    _, index = torch.topk(rows[:, 0], min(EXEMPLARS_MAX, rows.shape[0]))
    return torch.index_select(rows, 0, index)


def _place(row: dict[str, float]) -> tuple[float, float, float]:
    """Worst first; of equal ones the earlier."""
    return -row[SCORE], row[MINIBATCH], row[INDEX]


def _ratio(row: dict[str, float]) -> float:
    try:
        return math.exp(row["new_logp"] - row["old_logp"])
    except OverflowError:
        return math.inf


def _actions(actions: object, like: torch.Tensor) -> dict[str, torch.Tensor]:
    """One number per sample, or the first components of a vector."""
    if not is_plain(actions) or actions.is_complex() or not _is_dense(actions) or actions.device != like.device:
        return {}
    if actions.numel() == like.numel():
        return {"action": actions if actions.dim() == 1 else actions.reshape(-1)}
    if not actions.numel() or actions.shape[: like.dim()] != like.shape:
        return {}
    components = actions.reshape(like.numel(), -1).unbind(1)[:ACTIONS_MAX]
    return {f"action.{number}": component for number, component in enumerate(components)}


def _is_captured(tensor: object) -> bool:
    """Whether a CUDA graph is being captured: what we launched would become a part of it."""
    return isinstance(tensor, torch.Tensor) and tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def _fits(tensor: torch.Tensor, like: torch.Tensor) -> bool:
    return tensor.shape == like.shape and tensor.device == like.device and _is_dense(tensor)


def _is_dense(*tensors: torch.Tensor) -> bool:
    return all(tensor.layout is torch.strided for tensor in tensors)
