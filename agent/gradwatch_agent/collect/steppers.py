"""The optimizers that step a model: our hooks on them, and whether another one took a place of theirs.

A trainer may go on with a new optimizer, told to nobody. Its steps are not seen; that weights moved though no optimizer of
ours stepped, is. From then on every step in the process is looked at, until the one is found that moves them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.compiler import is_dynamo_compiling as is_compiling
from torch.optim import optimizer as optimizers_of_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import torch

    Before = Callable[[torch.optim.Optimizer, tuple[Any, ...], dict[str, Any]], None]


class Steppers:
    """`known`: the optimizers whose steps are told to `before`. `numbers`: of the model's parameters, by id. `stranger` is
    told of a step of any other optimizer of the process, while one is looked for; neither may raise."""

    __slots__ = ("_before", "_handles", "_looking", "_numbers", "_stranger", "_versions", "known")

    def __init__(
        self,
        known: Sequence[torch.optim.Optimizer],
        numbers: Mapping[int, int],
        before: Before,
        stranger: Callable[[torch.optim.Optimizer], None],
    ) -> None:
        self.known: list[torch.optim.Optimizer] = []
        self._numbers = numbers
        self._before, self._stranger = before, stranger
        self._handles: dict[int, list[Any]] = {}
        self._looking: Any = None
        self._versions: dict[int, int] = {}
        for optimizer in known:
            self.add(optimizer)

    @property
    def ids(self) -> list[int]:
        """Of all that are known."""
        return list(self._handles)

    def add(self, optimizer: torch.optim.Optimizer) -> list[int]:
        """Hear of its steps. The ids of those whose parameters it has taken over: they are let go, with all that they hold."""
        mine = _members(optimizer)
        gone = [one for one in self.known if mine and _members(one) <= mine]
        for one in gone:
            self.known.remove(one)
            for handle in self._handles.pop(id(one), ()):
                handle.remove()
        self.known.append(optimizer)
        self._handles[id(optimizer)] = [optimizer.register_step_pre_hook(self._before)]
        return [id(one) for one in gone]

    def hear_of_ends(self, optimizer: torch.optim.Optimizer, after: Before) -> None:
        """Call `after` when a step of it is done, from now on."""
        handles = self._handles.get(id(optimizer), [])
        if len(handles) == 1:
            handles.append(optimizer.register_step_post_hook(after))

    def begin(self) -> None:
        """A new update: remember how often a weight of each optimizer was written to."""
        self._versions = {id(optimizer): self._version(optimizer) for optimizer in self.known}

    def moved_unseen(self, stepped: Collection[int]) -> bool:
        """Whether weights of an optimizer that did not step (`stepped`: the ids of those that did) were written to in this
        update. Then whoever did it is looked for."""
        moved = any(
            id(optimizer) not in stepped and self._version(optimizer) != self._versions.get(id(optimizer), -1)
            for optimizer in self.known
        )
        if moved and self._looking is None:
            self._looking = optimizers_of_torch.register_optimizer_step_pre_hook(self._meet)
        elif not moved:
            self._rest()
        return moved

    def moves_ours(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether it steps parameters of the model."""
        return not _members(optimizer).isdisjoint(self._numbers)

    def _meet(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An optimizer of the process steps. Torch is going through its hooks: none of this kind may be removed here, and one
        that is added to this optimizer is called next."""
        if not is_compiling() and id(optimizer) not in self._handles:
            self._stranger(optimizer)

    def _version(self, optimizer: torch.optim.Optimizer) -> int:
        """How often its last parameter of ours was written to; -1 where it has none, or torch does not count."""
        for group in reversed(optimizer.param_groups if self._numbers else ()):
            for parameter in reversed(group["params"]):
                if id(parameter) in self._numbers and parameter.requires_grad:
                    return -1 if parameter.is_inference() else int(parameter._version)
        return -1

    def _rest(self) -> None:
        if self._looking is not None:
            self._looking.remove()
            self._looking = None

    def detach(self) -> None:
        """Remove every hook, and the way back to whoever is told: a circle would outlive a closed monitor."""
        self._rest()
        self._before = self._stranger = _ignore
        for handles in self._handles.values():
            for handle in handles:
                handle.remove()
        self._handles.clear()


def _ignore(*args: object) -> None:
    """Nobody is told any more."""


def _members(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
