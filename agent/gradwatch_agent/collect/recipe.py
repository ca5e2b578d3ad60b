"""How the last minibatch was staged, so that one like it need not be examined again: that is a quarter of the cost."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from gradwatch_agent.collect.tensors import is_plain

if TYPE_CHECKING:
    import torch

    from gradwatch_agent.collect.staging import BlockKey

DTYPE = attrgetter("dtype")

Given = tuple[Any, Any, Any, Any, Any, Any, Any]
"""new_logp, old_logp, values, returns, advantages, entropy, mask; None where there was none."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which arguments were None, type and dtype of the others, the shape and clip they had, and the block they went to."""

    absent: list[bool]
    types: list[type]
    dtypes: list[torch.dtype]
    shape: torch.Size
    clip: object
    key: BlockKey

    @classmethod
    def of(cls, given: Given, clip: object, key: BlockKey) -> Recipe | None:
        """The recipe of flat tensors all of which were accepted; None where one is no plain tensor, or clip no plain number."""
        tensors = [tensor for tensor in given if tensor is not None]
        if not all(map(is_plain, tensors)) or not (clip is None or type(clip) in {float, int}):
            return None
        absent = [tensor is None for tensor in given]
        return cls(absent, list(map(type, tensors)), list(map(DTYPE, tensors)), tensors[0].shape, clip, key)

    def fits(self, given: Given, clip: object) -> bool:
        """Whether a minibatch is like the one of this recipe, as far as `stack` will not say it itself."""
        if type(clip) is not type(self.clip) or clip != self.clip:  # the type first: a tensor would be waited for
            return False
        if [tensor is None for tensor in given] != self.absent:
            return False
        tensors = [tensor for tensor in given if tensor is not None]
        if list(map(type, tensors)) != self.types or list(map(DTYPE, tensors)) != self.dtypes:
            return False
        return bool(tensors[0].shape == self.shape)
