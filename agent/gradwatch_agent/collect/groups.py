"""The parameter groups of the trainer's optimizers, and which of them each gradient belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts import limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gradwatch_agent.collect.tensor_norms import Runs

GROUPS_MAX = 64
"""Parameter groups told apart; more are not."""


class ParameterGroups:
    """Names of the groups, empty unless there are several: the norm of a single one would be the global norm again."""

    __slots__ = ("_group_of", "_optimizers", "_sizes", "names", "owners")

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._optimizers = optimizers
        self._sizes: list[int] = []
        self._group_of: dict[int, int] = {}
        self.names: list[str] = []
        self.owners: dict[int, int] = {}
        """id of a parameter → id of its optimizer."""

    def look(self) -> bool:
        """See what groups there are; they may grow between updates. Whether they are others than at the last look."""
        groups = [(optimizer, group) for optimizer in self._optimizers for group in optimizer.param_groups]
        sizes = [len(group["params"]) for _, group in groups]
        if sizes == self._sizes:
            return False
        self._sizes = sizes
        given = [group.get("name") for _, group in groups]
        several = 1 < len(groups) <= GROUPS_MAX
        self.names = [_name(name, number, given) for number, name in enumerate(given)] if several else []
        self.owners = {id(part): id(optimizer) for optimizer, group in groups for part in group["params"]}
        self._group_of = {id(part): number for number, (_, group) in enumerate(groups) for part in group["params"]}
        return True

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


def _name(name: object, number: int, given: Sequence[object]) -> str:
    """What the trainer calls a group, if no other is called so; else its index."""
    if isinstance(name, str) and name and given.count(name) == 1:
        return name[: limits.NAME_CHARS_MAX]
    return str(number)
