"""How the last minibatch was staged, so that one like it need not be examined again: that is a quarter of the cost."""

from __future__ import annotations

from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

from gradwatch_agent.collect.tensors import is_plain

if TYPE_CHECKING:
    import torch

    from gradwatch_agent.collect.staging import BlockKey

DTYPE = attrgetter("dtype")

Given = tuple[Any, Any, Any, Any, Any, Any, Any]
"""new_logp, old_logp, values, returns, advantages, entropy, mask; None where there was none."""


class Recipe:
    """Type of each argument, dtype of the tensors among them, the shape and clip they had, and the block they went to."""

    __slots__ = ("_clip", "_dtypes", "_pick", "_shape", "_types", "entropy", "key", "ratio")

    def __init__(self, given: Given, clip: object, key: BlockKey) -> None:
        places = [place for place, tensor in enumerate(given) if tensor is not None]
        # One place would give the tensor alone.
        self._pick = itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))
        tensors = self._pick(given)
        self._types, self._dtypes = tuple(map(type, given)), tuple(map(DTYPE, tensors))
        self._shape, self._clip = tensors[0].shape, clip
        self.key, self.ratio, self.entropy = key, key[0].plan.ratio, given[5] is not None

    @classmethod
    def of(cls, given: Given, clip: object, key: BlockKey) -> Recipe | None:
        """The recipe of flat tensors all of which were accepted; None where one is no plain tensor, or clip no plain number."""
        if not all(tensor is None or is_plain(tensor) for tensor in given) or not (clip is None or type(clip) in {float, int}):
            return None
        return cls(given, clip, key)

    def tensors(self, given: Given, clip: object) -> tuple[torch.Tensor, ...] | None:
        """The tensors of a minibatch like the one of this recipe, as far as `stack` will not say it itself; None of another."""
        if tuple(map(type, given)) != self._types:
            return None
        tensors: tuple[torch.Tensor, ...] = self._pick(given)
        if tuple(map(DTYPE, tensors)) != self._dtypes or tensors[0].shape != self._shape:
            return None
        if clip is not self._clip and (type(clip) is not type(self._clip) or clip != self._clip):
            return None  # the type first: a tensor would be waited for
        return tensors
