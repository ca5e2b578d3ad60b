"""What is noted of a clip and of an optimizer step, to be worked up when the update ends.

Right after a backward pass each function and object that is touched costs what ten do in a loop: so a call only notes.
"""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING, NamedTuple, Union

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gradwatch_agent.collect.groups import Covered
    from gradwatch_agent.collect.skipped import Gradient
    from gradwatch_agent.collect.tensor_norms import Runs
    from gradwatch_agent.device.clip import Clip

NOTES_MAX = 64
"""Notes held before they are worked up: of 400 parameters, 100 kB of norms."""


Named = tuple["Runs", tuple[int, ...]]
"""Of parameters the runs of each group, and their numbers."""


class Usual(NamedTuple):
    """A clip that was examined: its parameters, all of the model and all with a gradient, their groups and numbers, the
    optimizers that use them (see `ParameterGroups.covered`), and the norm that it allows, if any."""

    parameters: list[torch.Tensor]
    named: Named
    covered: Covered
    max_norm: float
    bound: float | None

    def fits(self, clip: Clip) -> bool:
        """Whether another clip is like this one, so that it need not be examined: only its norms are other ones."""
        parameters, _, parts, max_norm, norm_type, gradients = clip
        known = self.parameters
        return (
            max_norm is self.max_norm
            and norm_type == 2.0
            and parts is not None
            and len(parameters) == gradients == len(known)
            and all(map(is_, parameters, known))
        )


class Clipped:
    """What clipping has taken the norms of since each optimizer, by id, stepped last: `whole`, all of its gradients; `rest`,
    only some, with the parameters of the others."""

    __slots__ = ("rest", "whole")

    def __init__(self) -> None:
        self.whole: set[int] = set()
        self.rest: dict[int, list[torch.Tensor]] = {}

    def add(self, covered: Covered) -> None:
        """Gradients were clipped."""
        self.whole |= covered[0]
        self.leave(covered[1])

    def leave(self, rest: dict[int, list[torch.Tensor]]) -> None:
        """Clipping left these; several clips before one step may leave fewer and fewer."""
        for name, left in rest.items():
            before = self.rest.get(name)
            self.rest[name] = left if before is None else [one for one in left if any(one is other for other in before)]

    def take(self, name: int) -> list[torch.Tensor] | None:
        """An optimizer steps: the parameters whose gradients nobody has looked at, None for all of them."""
        rest = self.rest.pop(name, None)
        if name in self.whole:
            self.whole.discard(name)
            return []
        return rest

    def inherit(self, gone: Sequence[int], heir: int) -> None:
        """Another optimizer has taken the place of these."""
        for name in gone:
            if name in self.whole:
                self.whole.add(heir)
            elif name in self.rest:
                self.rest[heir] = self.rest.pop(name)

    def clear(self) -> None:
        """A new update."""
        self.whole.clear()
        self.rest.clear()


Note = tuple[Union[Usual, None], float, Union["torch.Tensor", None], Union["Gradient", None], int]
"""Of a clip: (what is usual of it, total norm, norm of each gradient, the first gradient, minibatches so far). Of a step:
(None, 0.0, None, first gradient of the optimizer, its id)."""
