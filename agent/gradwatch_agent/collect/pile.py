"""Minibatches copied one beside the other, to choose the worst transitions of them all at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from gradwatch_agent.collect.recipe import dtype_of, pick_of, shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

Given = tuple[Any, Any, Any, Any, Any, Any]
"""new_logp, old_logp, mask, actions, values, advantages; None where there was none."""

NEW, OLD, MASK = "new_logp", "old_logp", "mask"


class Pile:
    """Minibatches of one length and with the same features, [rows, features, samples] for each dtype, of which `rows` are
    filled. `first`: the number of the first one; `sample`: which of its samples is the first here."""

    __slots__ = ("_blocks", "_looks", "_pick", "_places", "_rows_max", "_samples", "device", "first", "names", "rows", "sample")

    def __init__(self, device: torch.device, features: dict[str, torch.Tensor], rows_max: int, first: int) -> None:
        tensors = list(features.values())
        self.device, self.names, self.first, self._rows_max = device, tuple(features), first, rows_max
        self.rows = self.sample = 0
        self._samples = tensors[0].shape[0]
        self._pick = pick_of([0])
        self._looks: tuple[tuple[Any, ...], ...] | None = None
        self._places: list[tuple[int, int]] = [(0, 0)] * len(tensors)
        self._blocks = []
        for block, dtype in enumerate(dict.fromkeys(map(dtype_of, tensors))):
            alike = [at for at, tensor in enumerate(tensors) if tensor.dtype is dtype]
            for row, at in enumerate(alike):
                self._places[at] = block, row
            with torch.inference_mode(False):  # one made inside inference mode could not be written outside it
                buffer = torch.empty((rows_max, len(alike), self._samples), dtype=dtype, device=device)
            self._blocks.append((buffer, buffer.unbind(0), pick_of(alike)))

    def takes(self, device: torch.device, features: dict[str, torch.Tensor], minibatch: int) -> bool:
        """Whether this minibatch is the next one, like those before, and there is room for it."""
        tensors = list(features.values())
        if device != self.device or tuple(features) != self.names or tensors[0].shape[0] != self._samples:
            return False
        dtypes = [self._blocks[block][0].dtype for block, _ in self._places]
        return self._next(minibatch) and list(map(dtype_of, tensors)) == dtypes

    def put(self, tensors: Sequence[torch.Tensor]) -> None:
        """Copy a minibatch into the next row: one operation for all tensors of a dtype. Gradients must be off."""
        for _, rows, pick in self._blocks:
            torch.stack(pick(tensors), out=rows[self.rows])
        self.rows += 1

    def know(self, given: Given) -> None:
        """What was put last is all that was given, as it was: so the next minibatch like it need not be examined."""
        self._pick = pick_of([at for at, tensor in enumerate(given) if tensor is not None])
        self._looks = self._look(given)

    def repeat(self, minibatch: int, given: Given) -> bool:
        """Put a minibatch like the last one; False when it is another one, or not the next. Gradients must be off."""
        if self._looks is None or tuple(map(type, given)) != self._looks[0] or not self._next(minibatch):
            return False
        if self._look(given) != self._looks:
            return False
        try:
            self.put(self._pick(given))
        except RuntimeError:  # on another device
            return False
        return True

    def choose(self, one: torch.Tensor, count: int) -> torch.Tensor:
        """The worst `count` of all: [count, severity, minibatch, sample and features]."""
        wide = [self._widen(buffer[: self.rows].permute(1, 0, 2), one) for buffer, _, _ in self._blocks]
        features = [wide[block][row] for block, row in self._places]
        new, old = features[self.names.index(NEW)], features[self.names.index(OLD)]
        severity = torch.nan_to_num((new - old).abs_(), nan=math.inf, posinf=math.inf)
        if MASK in self.names:
            severity.masked_fill_(features[self.names.index(MASK)] == 0, -math.inf)
        worst, index = torch.topk(severity, min(count, severity.numel()))
        row, sample = torch.div(index, self._samples, rounding_mode="floor"), torch.remainder(index, self._samples)
        leading = [worst, torch.mul(row + self.first, one), torch.mul(sample + self.sample, one)]
        chosen = [torch.index_select(block, 1, index) for block in wide]  # indexing loads three times the code of torch
        return torch.stack(leading + [chosen[block][place] for block, place in self._places], 1)

    def _widen(self, block: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
        """[features, rows, samples] as [features, rows * samples] in the accumulator dtype."""
        return torch.mul(block, one, out=one.new_empty(block.shape)).reshape(block.shape[0], -1)

    def _next(self, minibatch: int) -> bool:
        return minibatch == self.first + self.rows and self.rows < self._rows_max

    def _look(self, given: Given) -> tuple[tuple[Any, ...], ...]:
        tensors = self._pick(given)
        return tuple(map(type, given)), tuple(map(dtype_of, tensors)), tuple(map(shape_of, tensors))
