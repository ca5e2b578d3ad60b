"""Which parameters of the model the norms of one call belong to."""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

KNOWN_MAX = 16
"""Sets of parameters remembered: one for each network that is clipped by itself."""

OUTSIDE = -1
"""Number of a parameter that is not of the model."""


class Members:
    """Parameters to their numbers, which are `numbers` by id. Trainers give the same parameters again and again, so a set met
    before is only compared: object by object, since `==` on tensors would compute."""

    __slots__ = ("_known", "_numbers")

    def __init__(self, numbers: Mapping[int, int]) -> None:
        self._numbers = numbers
        self._known: dict[tuple[int, int], tuple[list[torch.Tensor], tuple[int, ...]]] = {}

    def number(self, parameter: torch.Tensor) -> int:
        """Its number, `OUTSIDE` for one that is not of the model."""
        return self._numbers.get(id(parameter), OUTSIDE)

    def of(self, parameters: Sequence[torch.Tensor], count: int) -> tuple[int, ...]:
        """The numbers of those that have a gradient, of which there are `count`; the same tuple again for the same ones."""
        if len(parameters) != count:
            parameters = [parameter for parameter in parameters if parameter.grad is not None]
        key = (id(parameters[0]), len(parameters)) if parameters else (0, 0)
        given, members = self._known.get(key, ((), ()))
        if len(given) != len(parameters) or not all(map(is_, given, parameters)):
            members = tuple([self.number(parameter) for parameter in parameters])
            if OUTSIDE not in members:  # else we would keep alive what the trainer makes anew each time, such as clones
                if len(self._known) >= KNOWN_MAX:
                    self._known.clear()
                self._known[key] = list(parameters), members
        return members

    def forget(self) -> None:
        """Keep no parameter alive; the numbers may be others."""
        self._known.clear()
