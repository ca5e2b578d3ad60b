"""The optimizers of a script: which there are, which of them are watched, and for which another one the run begins anew."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Optimizers:
    """Keeps none of them alive.

    A script may train one model after the other, or add one late; it may also make an optimizer for each of many small problems
    while its model trains on. So one that comes while the others go on, or before an update has ended, is let in at once, the
    next of them after an update, then after 4, 16, 64: a script of whatever kind is cut into few attempts.
    """

    def __init__(self) -> None:
        self._last: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        """Those met → the update in which it stepped last, -1 before its first step."""
        self._watched: weakref.WeakSet[Any] = weakref.WeakSet()
        """Those whose parameters the running attempt watches, all of them."""
        self._parameters: frozenset[int] = frozenset()
        """The ids of those parameters, which live as long as the attempt."""
        self._updates = self._began = self._patience = 0

    def __bool__(self) -> bool:
        """Whether the script trains."""
        return bool(self._last)

    def meet(self, optimizer: Any) -> bool:
        """Whether it was not known before."""
        if optimizer in self._last:
            return False
        self._last[optimizer] = -1
        return True

    def step(self, optimizer: Any = None) -> None:
        """It takes a step; None: some that are watched do, and nobody sees which."""
        for one in self._watched if optimizer is None else (optimizer,):
            self._last[one] = self._updates

    def end(self) -> None:
        """An update ends."""
        self._updates += 1

    def other_than_watched(self, parameter: torch.Tensor | None = None) -> Any:
        """An optimizer, of this parameter or of any, with parameters that are not watched; None if there is none."""
        if parameter is not None and id(parameter) in self._parameters:
            return None
        found = (one for one in self._last if parameter is None or any(held is parameter for held in _held(one)))
        return next((one for one in found if not self._is_watched(one)), None)

    def admits(self, optimizer: Any) -> bool:
        """Whether to begin anew for it, which is about to step or has."""
        if self._is_watched(optimizer):
            return False
        ended = self._updates - self._began
        others = any(self._last[one] >= max(0, self._updates - 1) for one in self._watched)
        if ended and not others:
            return True
        if ended < self._patience:
            return False
        self._patience = self._patience * 4 or 1
        return True

    def begin(self, newest: Any = None) -> list[torch.optim.Optimizer]:
        """An attempt begins: those that it watches, `newest` among them, new ones first. One that took no step in the whole
        attempt before has been let go by the script, though it may be alive."""
        watched, began = self._watched, self._began
        kept = [one for one, last in self._last.items() if one is newest or last >= began or (last < 0 and one not in watched)]
        chosen = sorted(kept, key=lambda one: one in watched)
        self._began, self._watched = self._updates, weakref.WeakSet(chosen)
        self._parameters = frozenset(id(parameter) for one in chosen for parameter in _held(one))
        return chosen

    def _is_watched(self, optimizer: Any) -> bool:
        if optimizer not in self._watched and all(id(parameter) in self._parameters for parameter in _held(optimizer)):
            self._watched.add(optimizer)
        return optimizer in self._watched


def _held(optimizer: Any) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
