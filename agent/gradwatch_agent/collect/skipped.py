"""Gradients that were computed and then thrown away: optimizer steps that did not happen."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

Gradient = weakref.ref["torch.Tensor"]
"""The identity of a gradient. It is another tensor after `zero_grad()`, and the same one while gradients accumulate."""


class SkippedSteps:
    """Counts, in one update, the gradients that no step used.

    Where the trainer clips: clip calls followed by no step before the next clip call of another gradient, or the end of
    the update. Where it does not: minibatches told by `ppo()` that left a gradient which was gone, unused, later on.
    Clipping or calling `ppo()` several times for one accumulated gradient is one step. `zero_grad(set_to_none=False)`
    keeps the tensor, so what it drops looks accumulated and is not counted before the end of the update.
    """

    __slots__ = ("_clipped", "_dropped", "_kept", "_missed", "_open", "_parameters", "_seen", "_used_clip", "owners")

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = parameters
        self.owners: dict[int, int] = {}
        self.begin()

    def begin(self) -> None:
        """A new update."""
        self._clipped: dict[int, Gradient] = {}
        self._missed = self._dropped = 0
        self._seen: Gradient | None = None
        self._kept: Gradient | None = None
        self._open = self._used_clip = False

    def clip(self, parameters: Sequence[torch.Tensor]) -> None:
        """Gradients of `parameters` were clipped; these are a set apart from those that begin with another one."""
        gradient = _first(parameters)
        if gradient is None:
            return
        self._used_clip = True
        key = id(parameters[0])
        waiting = self._clipped.get(key)
        if waiting is not None and waiting() is not gradient:
            self._missed += 1
        self._clipped[key] = weakref.ref(gradient)

    def minibatch(self) -> None:
        """A minibatch begins."""
        gradient = _first(self._parameters)
        if self._open:
            self._settle(gradient)
        self._open = True
        self._seen = None if gradient is None else weakref.ref(gradient)

    def step(self, optimizer: int) -> None:
        """The optimizer with this id uses the gradients of its parameters."""
        for key in list(self._clipped):
            if self.owners.get(key, optimizer) == optimizer:
                del self._clipped[key]
        if self._kept is not None and self._kept() is not _first(self._parameters):
            self._dropped += 1
        self._open, self._kept = False, None

    def finish(self) -> int:
        """The count of this update."""
        if self._used_clip:
            return self._missed + len(self._clipped)
        if self._open:
            self._settle(_first(self._parameters))
        return self._dropped + (self._kept is not None)

    def _settle(self, gradient: torch.Tensor | None) -> None:
        """The last minibatch ended without a step: keep the gradient that it left, and count one kept before and gone."""
        if self._kept is not None and self._kept() is not gradient:
            self._dropped += 1
            self._kept = None
        if gradient is not None and (self._seen is None or self._seen() is not gradient):
            self._kept = weakref.ref(gradient)


def _first(parameters: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """The first gradient there is."""
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None:
            return gradient
    return None
