"""Gradients that were computed and then thrown away: optimizer steps that did not happen."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gradwatch_agent.collect.host import Tally

Gradient = weakref.ref["torch.Tensor"]
"""The identity of a gradient. It is another tensor after `zero_grad()`, and the same one while gradients accumulate. All
references to one tensor are one object, which outlives it while it is held: so identities are compared by `is`, at any time."""


class SkippedSteps:
    """Counts, in one update, the gradients that no step used.

    Where the trainer clips: clip calls followed by no step before the next clip call of another gradient, or the end of
    the update. Where it does not: minibatches told by `ppo()` that left a gradient which was gone, unused, later on.
    Clipping or calling `ppo()` several times for one accumulated gradient is one step. `zero_grad(set_to_none=False)`
    keeps the tensor, so what it drops in the middle of an update looks accumulated: where two steps used one tensor, that
    nothing was skipped is not known. What is left over at the end of the update is counted all the same.
    """

    __slots__ = (
        "_clipped",
        "_dropped",
        "_keepers",
        "_missed",
        "_open",
        "_owners",
        "_parameters",
        "_seen",
        "_used",
        "firsts",
        "kept",
        "stepped",
        "used_clip",
    )

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = parameters
        self._owners: dict[int, int] = {}
        self.firsts: dict[int, torch.Tensor] = {}
        """id of an optimizer → its first parameter."""
        self._used: dict[int, Gradient] = {}
        self._keepers: set[int] = set()
        self.begin()

    def belong(self, owners: dict[int, int]) -> None:
        """Whose the parameters are: id of a parameter → id of its optimizer. The same object while nothing changed."""
        if owners is not self._owners:
            self._owners = owners
            watched = [parameter for parameter in self._parameters if id(parameter) in owners]
            self.firsts = {owners[id(parameter)]: parameter for parameter in reversed(watched)}

    def begin(self) -> None:
        """A new update."""
        self._clipped: dict[int, Gradient] = {}
        self._missed = self._dropped = 0
        self.stepped: set[int] = set()
        """The ids of the optimizers that stepped."""
        self._seen: Gradient | None = None
        self.kept: Gradient | None = None
        """What a minibatch left that nothing used so far."""
        self._open = self.used_clip = False

    def clip(self, parameters: Sequence[torch.Tensor]) -> None:
        """Gradients of `parameters` were clipped; these are a set apart from those that begin with another one."""
        gradient = _first(parameters)
        if gradient is not None:
            self.clip_of(id(parameters[0]), gradient)

    def clip_of(self, key: int, gradient: Gradient) -> None:
        """See `clip`: of the parameters that begin with the one of this id, whose first gradient was this one."""
        self.used_clip = True
        waiting = self._clipped.get(key)
        if waiting is not None and waiting is not gradient:
            self._missed += 1
        self._clipped[key] = gradient

    def minibatch(self) -> None:
        """A minibatch begins. Not to be called any more in an update in which anything was clipped (`used_clip`): then clips
        alone are counted."""
        gradient = _first(self._parameters)
        if self._open:
            self._settle(gradient)
        self._open = True
        self._seen = gradient

    def step(self, optimizer: int) -> None:
        """The optimizer with this id uses the gradients of its parameters."""
        if self.kept is not None and self.kept is not _first(self._parameters):
            self._dropped += 1
        parameter = self.firsts.get(optimizer)
        gradient = None if parameter is None else parameter.grad
        self.step_with(optimizer, None if gradient is None else weakref.ref(gradient))

    def step_with(self, optimizer: int, gradient: Gradient | None) -> None:
        """See `step`: whose first parameter had this gradient, while nothing was `kept`."""
        clipped, owners = self._clipped, self._owners
        self.stepped.add(optimizer)
        for key in tuple(clipped):
            if owners.get(key, optimizer) == optimizer:
                del clipped[key]
        self._see_kept(optimizer, gradient)
        self._open, self.kept = False, None

    def tell(self, tally: Tally) -> None:
        """Add the count of this update; that there was none is UNDEFINED where some could be hidden."""
        if self.used_clip:
            count = self._missed + len(self._clipped)
        else:
            if self._open:
                self._settle(_first(self._parameters))
            count = self._dropped + (self.kept is not None)
        if self._keepers and not count:
            tally.refuse("opt.skipped", Status.UNDEFINED)
        else:
            tally.add("opt.skipped", (float(count),))

    def _see_kept(self, optimizer: int, gradient: Gradient | None) -> None:
        """Whether this step uses the very tensor that the step before it used."""
        if gradient is None:
            return
        if self._used.get(optimizer) is gradient:
            self._keepers.add(optimizer)
            return
        self._keepers.discard(optimizer)
        self._used[optimizer] = gradient

    def _settle(self, gradient: Gradient | None) -> None:
        """The last minibatch ended without a step: keep the gradient that it left, and count one kept before and gone."""
        if self.kept is not None and self.kept is not gradient:
            self._dropped += 1
            self.kept = None
        if gradient is not None and self._seen is not gradient:
            self.kept = gradient


def _first(parameters: Sequence[torch.Tensor]) -> Gradient | None:
    """The first gradient there is."""
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None:
            return weakref.ref(gradient)
    return None
