"""How the last minibatch was staged, so that one like it need not be examined again: that is a quarter of the cost."""

from __future__ import annotations

from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

from gradwatch_agent.collect.tensors import is_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gradwatch_agent.collect.staging import Block, BlockKey

dtype_of, shape_of = attrgetter("dtype"), attrgetter("shape")

Given = tuple[Any, Any, Any, Any, Any, Any, Any]
"""new_logp, old_logp, values, returns, advantages, entropy, mask; None where there was none."""


def pick_of(places: Sequence[int]) -> Callable[[Any], Any]:
    """What takes these places, of which there is at least one, out of a tuple or list, as one of its kind."""
    # One place would give the tensor alone.
    return itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))


class Recipe:
    """Type of each argument, dtype of the tensors among them (`pick` takes these), the shape and clip they had, where they
    go, and the block there that was filled last."""

    __slots__ = ("block", "clip", "dtypes", "entropy", "key", "pick", "ratio", "shape", "types")

    def __init__(self, given: Given, clip: object, key: BlockKey) -> None:
        self.pick = pick_of([place for place, tensor in enumerate(given) if tensor is not None])
        tensors = self.pick(given)
        self.types, self.dtypes = tuple(map(type, given)), tuple(map(dtype_of, tensors))
        self.shape, self.clip = tensors[0].shape, clip
        self.key, self.ratio, self.entropy = key, key[0].plan.ratio, given[5] is not None
        self.block: Block | None = None

    @classmethod
    def of(cls, given: Given, clip: object, key: BlockKey) -> Recipe | None:
        """The recipe of flat tensors all of which were accepted; None where one is no plain tensor, or clip no plain number."""
        if not all(tensor is None or is_plain(tensor) for tensor in given) or not (clip is None or type(clip) in {float, int}):
            return None
        return cls(given, clip, key)
