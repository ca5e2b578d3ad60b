"""The transitions of an update whose policy ratio is furthest from 1, for a table at DEBUG.

A minibatch is copied beside the ones before it, and the worst few of them all are chosen on the device at once, which takes
a sixteenth of choosing from each; their number, ratio and what else the trainer passed travel with the other values of the
update.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from gradwatch_agent.collect.layers import pack
from gradwatch_agent.collect.tensors import is_plain
from gradwatch_agent.device.reduce import is_grad_enabled, set_grad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.collectors import Switches
    from gradwatch_agent.collect.host import Reader, Tally
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

SCORE, MINIBATCH, INDEX, MASK = "severity", "minibatch", "index", "mask"
LEADING = (SCORE, MINIBATCH, INDEX)

Kind = tuple[torch.device, tuple[str, ...]]


@dataclass(slots=True)
class Pile:
    """Minibatches one after the other, of one length and with the same features: [rows, features, samples], of which `rows`
    are filled. `first`: the number of the first one; `sample`: which of its samples is the first here."""

    buffer: torch.Tensor
    device: torch.device
    names: tuple[str, ...]
    first: int
    rows: int = 0
    sample: int = 0

    def takes(self, device: torch.device, names: tuple[str, ...], samples: int, minibatch: int) -> bool:
        """Whether this minibatch is the next one, and there is room for it."""
        rows, _, length = self.buffer.shape
        like = samples == length and names == self.names and device == self.device
        return like and self.rows < rows and minibatch == self.first + self.rows

    def choose(self, one: torch.Tensor) -> torch.Tensor:
        """The worst of all, [worst, LEADING and features]."""
        gathered = self.buffer[: self.rows]
        severity = torch.nan_to_num((gathered[:, 0] - gathered[:, 1]).abs_(), nan=math.inf, posinf=math.inf)
        if MASK in self.names:
            severity.masked_fill_(gathered[:, self.names.index(MASK)] == 0, -math.inf)
        samples = severity.shape[1]
        worst, index = torch.topk(severity.reshape(-1), min(EXEMPLARS_MAX, severity.numel()))
        row, sample = torch.div(index, samples, rounding_mode="floor"), torch.remainder(index, samples)
        leading = torch.stack([worst, torch.mul(row + self.first, one), torch.mul(sample + self.sample, one)], 1)
        return torch.cat([leading, gathered[row, :, sample]], 1)


class ExemplarCollector:
    """The worst transitions of the running update, by the features that came with them."""

    __slots__ = ("_held", "_pile", "_switches", "staging")

    def __init__(self, staging: Staging, switches: Switches) -> None:
        self.staging = staging
        self._switches = switches
        self.clear()

    def clear(self) -> None:
        """Forget the running update."""
        self._held: dict[Kind, list[torch.Tensor]] = {}
        self._pile: Pile | None = None

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
        """Take a minibatch to choose the worst transitions from. What does not fit the log-probabilities is left out: `ppo`
        has said so in the statuses. Samples that a mask excludes are no transitions."""
        if not is_plain(new_logp) or not is_plain(old_logp) or new_logp.shape != old_logp.shape or not new_logp.numel():
            return
        if new_logp.device != old_logp.device or new_logp.device.type == "meta" or not _is_dense(new_logp, old_logp):
            return
        if new_logp.is_complex() or old_logp.is_complex():
            return
        if new_logp.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return
        enabled = is_grad_enabled()
        try:
            set_grad(False)
            features = {"new_logp": new_logp, "old_logp": old_logp}
            if is_plain(mask) and mask.dtype is torch.bool and _fits(mask, new_logp):
                features[MASK] = mask
            features.update(_actions(actions, new_logp))
            for name, tensor in (("value", values), ("advantage", advantages)):
                if is_plain(tensor) and _fits(tensor, new_logp) and not tensor.is_complex():
                    features[name] = tensor
            if new_logp.dim() != 1:
                features = {name: tensor.reshape(-1) for name, tensor in features.items()}
            self._gather(minibatch, features)
        finally:
            set_grad(enabled)

    def _gather(self, minibatch: int, features: dict[str, torch.Tensor]) -> None:
        """Copy a minibatch beside those before it; one that is too large is chosen from piece by piece."""
        new_logp = features["new_logp"]
        device, samples, names = new_logp.device, new_logp.shape[0], tuple(features)
        room = self.staging.scratch // (16 * len(names))
        if samples > room:
            self._flush()
            for start in range(0, samples, room):
                piece = {name: tensor[start : start + room] for name, tensor in features.items()}
                self._gather(minibatch, piece)
                if self._pile is not None:
                    self._pile.sample = start
                self._flush()
            return
        pile = self._pile
        if pile is None or not pile.takes(device, names, samples, minibatch):
            self._flush()
            rows = min(ROWS_MAX, room // samples)
            buffer = self.staging.reducer(device).empty(rows * len(names) * samples)
            self._pile = pile = Pile(buffer.view(rows, len(names), samples), device, names, minibatch)
        torch.stack(list(features.values()), out=pile.buffer[pile.rows])
        pile.rows += 1

    def _flush(self) -> None:
        """Choose from what is gathered."""
        pile, self._pile = self._pile, None
        if pile is None or not pile.rows:
            return
        kind = (pile.device, (*LEADING, *pile.names))
        if kind not in self._held and len(self._held) >= KINDS_MAX:
            return
        found = pile.choose(self.staging.reducer(pile.device).one)  # before its kind is noted: Ctrl-C may come in between
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
        if not self._held and self._pile is None:
            return parts
        begin = time.perf_counter_ns()
        self._flush()
        table = ExemplarTable(waiting=len(self._held))
        for (device, names), held in self._held.items():
            rows = held[0] if len(held) == 1 else _worst(held)
            parts.setdefault(device, []).append((rows.reshape(-1), ExemplarReader(table, names)))
        self._held = {}
        self._switches.charge("exemplars", time.perf_counter_ns() - begin)
        return parts


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
        return {"action": actions.reshape(-1)}
    if not actions.numel() or actions.shape[: like.dim()] != like.shape:
        return {}
    components = actions.reshape(like.numel(), -1).unbind(1)[:ACTIONS_MAX]
    return {f"action.{number}": component for number, component in enumerate(components)}


def _fits(tensor: torch.Tensor, like: torch.Tensor) -> bool:
    return tensor.shape == like.shape and tensor.device == like.device and _is_dense(tensor)


def _is_dense(*tensors: torch.Tensor) -> bool:
    return all(tensor.layout is torch.strided for tensor in tensors)
