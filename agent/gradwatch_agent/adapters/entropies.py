"""The entropy of the policy, as a script asks torch's distributions for it: in each minibatch, whatever it logs of that."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HEADS_MAX = 16
"""Distributions asked between two gradients; with more of them they are no heads of one policy."""


class Choices:
    """Stands for the action space that the distributions are over: `n` of one discrete head, `nvec` of several."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        if len(sizes) == 1:
            self.n = sizes[0]
        else:
            self.nvec = list(sizes)


class Entropies:
    """What was asked since the last gradient, in order: with each gradient the same heads. Only what is trained counts."""

    def __init__(self) -> None:
        self._asked: list[tuple[Any, int | None]] = []
        self._heads: int | None = None

    def see(self, distribution: Any, entropy: Any) -> None:
        """An entropy was asked for. Without a gradient to come it is none of a minibatch."""
        if getattr(entropy, "requires_grad", False) and len(self._asked) <= HEADS_MAX:
            logits = vars(distribution).get("logits", vars(distribution).get("probs"))
            self._asked.append((entropy.detach(), None if logits is None else int(logits.shape[-1])))

    @property
    def space(self) -> Choices | None:
        """Of the actions, where all heads are discrete."""
        sizes = tuple(size for _, size in self._asked if size is not None)
        return Choices(sizes) if sizes and len(sizes) == len(self._asked) <= HEADS_MAX else None

    def take(self) -> Any:
        """As `ppo(entropy=)` takes it: a tensor, or one for each head; None where nothing was asked, or not as at first. A
        Gaussian has an entropy for each dimension of an action, which add up to that of the action."""
        asked, self._asked = self._asked, []
        if not asked or len(asked) > HEADS_MAX or self._heads not in {None, len(asked)}:
            return None
        self._heads = len(asked)
        tensors = [entropy if size is not None or entropy.dim() < 2 else entropy.sum(-1) for entropy, size in asked]
        return tensors[0] if len(tensors) == 1 else {str(head): tensor for head, tensor in enumerate(tensors)}


def look_at_entropies(see: Callable[[Any, Any], None]) -> None:
    """Let `entropy()` of the distributions that policies are made of also tell `see`. A compiled one is left alone."""
    import torch

    def tell(distribution: Any, entropy: Any) -> None:  # dynamo cannot look at a bound method, and wants to
        see(distribution, entropy)

    for name in ("Categorical", "Normal"):
        kind = getattr(torch.distributions, name)
        kind.entropy = _telling(kind.entropy, tell, torch.compiler.is_compiling)


def _telling(original: Callable[..., Any], see: Callable[[Any, Any], None], compiling: Callable[[], bool]) -> Any:
    @functools.wraps(original)
    def entropy(self: Any) -> Any:
        found = original(self)
        if not compiling():
            see(self, found)
        return found

    return entropy
