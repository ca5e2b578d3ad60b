"""What is noted of a clip and of an optimizer step, to be worked up when the update ends.

Right after a backward pass each function and object that is touched costs what ten do in a loop: so a call only notes.
"""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING, NamedTuple, Union

if TYPE_CHECKING:
    import torch

    from gradwatch_agent.collect.skipped import Gradient
    from gradwatch_agent.collect.tensor_norms import Runs
    from gradwatch_agent.device.clip import Clip

NOTES_MAX = 64
"""Notes held before they are worked up: of 400 parameters, 100 kB of norms."""


Named = tuple["Runs", tuple[int, ...]]
"""Of parameters the runs of each group, and their numbers."""


class Usual(NamedTuple):
    """A clip that was examined: its parameters, all of the model and all with a gradient, their groups and numbers, the
    optimizers that use them (by id), and the norm that it allows, if any."""

    parameters: list[torch.Tensor]
    named: Named
    owners: frozenset[int | None]
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


Note = tuple[Union[Usual, None], float, Union["torch.Tensor", None], Union["Gradient", None], int]
"""Of a clip: (what is usual of it, total norm, norm of each gradient, the first gradient, minibatches so far). Of a step:
(None, 0.0, None, first gradient of the optimizer, its id)."""
