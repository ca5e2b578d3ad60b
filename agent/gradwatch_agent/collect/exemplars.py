"""The transitions of an update whose policy ratio is furthest from 1, for a table at DEBUG.

Each minibatch is reduced on the device to its worst few; their number, ratio and what else the trainer passed travel with
the other values of the update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from gradwatch_agent.collect.layers import pack
from gradwatch_agent.collect.tensors import is_plain
from gradwatch_agent.device.reduce import set_grad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.host import Reader, Tally
    from gradwatch_agent.collect.staging import Staging

EXEMPLARS_MAX = 8
ACTIONS_MAX = 8
"""Components of one action that are shown."""

HELD_MAX = 32
"""Minibatches whose worst are held before the worst of these are chosen."""

KINDS_MAX = 16
"""Sets of features told apart in one update: a trainer passes the same arguments each time."""

SCORE, MINIBATCH, INDEX = "severity", "minibatch", "index"
LEADING = (SCORE, MINIBATCH, INDEX)

Kind = tuple[torch.device, tuple[str, ...]]


class ExemplarCollector:
    """The worst transitions of the running update, by the features that came with them."""

    __slots__ = ("_held", "staging")

    def __init__(self, staging: Staging) -> None:
        self.staging = staging
        self._held: dict[Kind, list[torch.Tensor]] = {}

    def clear(self) -> None:
        """Forget the running update."""
        self._held = {}

    def observe(
        self,
        minibatch: int,
        new_logp: object,
        old_logp: object,
        *,
        mask: object = None,
        actions: object = None,
        values: object = None,
        advantages: object = None,
    ) -> None:
        """Choose the worst transitions of a minibatch. What does not fit the log-probabilities is left out: `ppo` has said
        so in the statuses. Samples that a mask excludes are no transitions."""
        if not is_plain(new_logp) or not is_plain(old_logp) or new_logp.shape != old_logp.shape or not new_logp.numel():
            return
        if new_logp.device != old_logp.device or new_logp.device.type == "meta" or not _is_dense(new_logp, old_logp):
            return
        if new_logp.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return
        enabled = torch.is_grad_enabled()
        try:
            set_grad(False)
            others = {"value": values, "advantage": advantages}
            self._choose(minibatch, (new_logp, old_logp), mask, actions, others)
        finally:
            set_grad(enabled)

    def _choose(
        self,
        minibatch: int,
        logps: tuple[torch.Tensor, torch.Tensor],
        mask: object,
        actions: object,
        others: dict[str, object],
    ) -> None:
        new_logp, old_logp = logps
        one = self.staging.reducer(new_logp.device).one
        new, old = torch.mul(new_logp.reshape(-1), one), torch.mul(old_logp.reshape(-1), one)
        severity = torch.nan_to_num((new - old).abs_(), nan=math.inf, posinf=math.inf)
        features: dict[str, torch.Tensor] = {"new_logp": new, "old_logp": old}
        if is_plain(mask) and mask.dtype is torch.bool and _fits(mask, new_logp):
            severity.masked_fill_(torch.logical_not(mask.reshape(-1)), -math.inf)
            features["mask"] = mask.reshape(-1)
        features.update(_actions(actions, new_logp))
        for name, tensor in others.items():
            if is_plain(tensor) and _fits(tensor, new_logp) and not tensor.is_complex():
                features[name] = tensor.reshape(-1)
        worst, index = torch.topk(severity, min(EXEMPLARS_MAX, severity.shape[0]))
        columns = [worst, torch.full_like(worst, minibatch), torch.mul(index, one)]
        columns += [torch.mul(torch.gather(tensor, 0, index), one) for tensor in features.values()]
        kind = (new_logp.device, (*LEADING, *features))
        if kind not in self._held and len(self._held) >= KINDS_MAX:
            return
        found = torch.stack(columns, 1)  # before its kind is noted: Ctrl-C may come in between
        held = self._held.get(kind)
        if held is None:
            self._held[kind] = [found]
            return
        held.append(found)
        if len(held) >= HELD_MAX:
            self._held[kind] = [_worst(held)]

    def finish(self) -> dict[torch.device, list[tuple[torch.Tensor, Reader]]]:
        """The vectors of the update and what they are. Gradients must be off."""
        parts: dict[torch.device, list[tuple[torch.Tensor, Reader]]] = {}
        table = ExemplarTable(waiting=len(self._held))
        for (device, names), held in self._held.items():
            parts.setdefault(device, []).append((_worst(held).reshape(-1), ExemplarReader(table, names)))
        self._held = {}
        return parts


@dataclass(slots=True)
class ExemplarTable:
    """The rows of all kinds as they arrive, and how many kinds are still to come."""

    waiting: int
    rows: list[dict[str, float]] = field(default_factory=list)

    def tell(self, tally: Tally) -> None:
        """Add the table, worst first. Its index is "minibatch:index in it"; a feature that a row lacks is NaN."""
        rows = sorted((row for row in self.rows if row[SCORE] > -math.inf), key=lambda row: -row[SCORE])[:EXEMPLARS_MAX]
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
        return {"action": actions.reshape(-1)}
    if not actions.numel() or actions.shape[: like.dim()] != like.shape:
        return {}
    components = actions.reshape(like.numel(), -1).unbind(1)[:ACTIONS_MAX]
    return {f"action.{number}": component for number, component in enumerate(components)}


def _fits(tensor: torch.Tensor, like: torch.Tensor) -> bool:
    return tensor.shape == like.shape and tensor.device == like.device and _is_dense(tensor)


def _is_dense(*tensors: torch.Tensor) -> bool:
    return all(tensor.layout is torch.strided for tensor in tensors)
