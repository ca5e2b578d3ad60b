"""The entropy of the policy, as a script asks torch's distributions for it: in each minibatch, whatever it logs of that.

Only where it asks once for each gradient: several may be heads of one policy, or steps of one that trains while it collects,
and which of the two cannot be seen from outside.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Choices:
    """Stands for the space of a discrete action: `n` of them."""

    n: int


class Entropies:
    """What was asked since the last gradient. Only what is trained counts."""

    def __init__(self) -> None:
        self._asked: Any = None
        self._times = 0
        self.space: Choices | None = None
        """Of the actions, where they are discrete."""

    def see(self, distribution: Any, entropy: Any) -> None:
        """An entropy was asked for. Without a gradient to come it is none of a minibatch."""
        if not getattr(entropy, "requires_grad", False):
            return
        self._times += 1
        logits = vars(distribution).get("logits", vars(distribution).get("probs"))
        self.space = None if logits is None else Choices(int(logits.shape[-1]))
        # A Gaussian has an entropy for each dimension of an action; they add up to that of the action.
        several = logits is None and entropy.dim() > 1
        self._asked = entropy.detach().sum(-1) if several else entropy.detach()

    def take(self) -> Any:
        """As `ppo(entropy=)` takes it; None where it was not asked for once."""
        asked, times = self._asked, self._times
        self._asked, self._times = None, 0
        return asked if times == 1 else None


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
