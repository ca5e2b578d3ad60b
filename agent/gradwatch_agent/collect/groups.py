"""The parameter groups of the trainer's optimizers, and which of them each gradient belongs to."""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING, Any

from gradwatch_contracts import limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gradwatch_agent.collect.tensor_norms import Runs

Covered = tuple[frozenset[int], dict[int, list["torch.Tensor"]]]
"""See `ParameterGroups.covered`."""

GROUPS_MAX = 64
"""Parameter groups told apart; more are not."""


class ParameterGroups:
    """Names of the groups, empty unless there are several: the norm of a single one would be the global norm again."""

    __slots__ = ("_given", "_group_of", "_optimizers", "names", "owners")

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._optimizers = optimizers
        self._given: list[tuple[int, list[torch.Tensor]]] = []
        """(id of the optimizer, parameters) of each group at the last look."""
        self._group_of: dict[int, int] = {}
        self.names: list[str] = []
        self.owners: dict[int, int] = {}
        """id of a parameter → id of its optimizer."""

    def look(self) -> bool:
        """See what groups there are; they, their parameters and the optimizers may be others than at the last look, and whether
        they are. Parameters that are exchanged within an update count from the next one, or the next clip unlike the last."""
        groups = [(optimizer, group) for optimizer in self._optimizers for group in optimizer.param_groups]
        if len(groups) == len(self._given) and all(map(_same, groups, self._given)):
            return False
        self._given = [(id(optimizer), list(group["params"])) for optimizer, group in groups]
        given = [group.get("name") for _, group in groups]
        several = 1 < len(groups) <= GROUPS_MAX
        self.names = [_name(name, number, given) for number, name in enumerate(given)] if several else []
        self.owners = {id(part): id(optimizer) for optimizer, group in groups for part in group["params"]}
        self._group_of = {id(part): number for number, (_, group) in enumerate(groups) for part in group["params"]}
        return True

    def forget(self) -> None:
        """Look as if for the first time, and keep no parameter alive."""
        self._given = []

    def covered(self, parameters: Sequence[torch.Tensor]) -> Covered:
        """By id, the optimizers all of whose parameters are among these, and of each that has some there the others."""
        given = set(map(id, parameters))
        whole, rest = [], {}
        for optimizer in self._optimizers:
            held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            others = [parameter for parameter in held if id(parameter) not in given]
            if not others:
                whole.append(id(optimizer))
            elif len(others) < len(held):
                rest[id(optimizer)] = others
        if not whole and not rest and len(self._optimizers) == 1:  # it steps copies of its own
            whole.append(id(self._optimizers[0]))
        return frozenset(whole), rest

    def runs(self, present: Sequence[int]) -> Runs:
        """Where among these parameters, given by id, those of each group are: usually in one piece."""
        runs: dict[int, list[tuple[int, int]]] = {}
        for at, key in enumerate(present):
            group = self._group_of.get(key)
            if group is None:
                continue
            pieces = runs.setdefault(group, [])
            if pieces and pieces[-1][1] == at:
                pieces[-1] = (pieces[-1][0], at + 1)
            else:
                pieces.append((at, at + 1))
        return tuple((self.names[group], tuple(pieces)) for group, pieces in sorted(runs.items()))


def _same(now: tuple[torch.optim.Optimizer, dict[str, Any]], then: tuple[int, list[torch.Tensor]]) -> bool:
    """Whether a group is what it was: its tensors are compared object by object, since `==` would compute."""
    (optimizer, group), (name, known) = now, then
    given = group["params"]
    return id(optimizer) == name and len(given) == len(known) and all(map(is_, given, known))


def _name(name: object, number: int, given: Sequence[object]) -> str:
    """What the trainer calls a group, if no other is called so; else its index."""
    if isinstance(name, str) and name and given.count(name) == 1:
        return name[: limits.NAME_CHARS_MAX]
    return str(number)
