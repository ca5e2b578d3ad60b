"""The parameters of the model as they are now.

A trainer may replace some: a head that is made anew, weights that are loaded with `assign=True`, layers that grow. Lazy ones
have no values before the first forward pass. So what the modules hold is compared with what they held, object by object and
without a walk through the model: a few nanoseconds for each of them.
"""

from __future__ import annotations

from itertools import chain
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import is_lazy

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARDED = "FullyShardedDataParallel"
MANAGED = "_is_fsdp_managed_module"
"""What FSDP, of both kinds, leaves on each module whose parameters it splits over the ranks."""

END = (object(),)
"""What comes after the last, so that one more or less is not overlooked."""


class Model:
    """Parameters of the watched modules, each once, those without elements left out.

    `names` by number: a name keeps its number for good, so what was kept of earlier updates stays rightly named. `numbers` by
    id, `tensors` in the order of the modules; all three are the same objects for ever. `version` counts how often others were
    found. `has_empty`: some have no elements; `has_lazy`: some have no values yet. `is_flat`: the first FSDP splits them, so
    that each tensor is this rank's share of one and does not say so.
    """

    __slots__ = (
        "_empty",
        "_full",
        "_held",
        "_lazy",
        "_modules",
        "_settled",
        "every",
        "has_empty",
        "is_flat",
        "names",
        "numbers",
        "tensors",
        "version",
    )

    def __init__(self, modules: Sequence[Any]) -> None:
        self._modules = modules
        self.names: list[str] = []
        self.numbers: dict[int, int] = {}
        self.tensors: list[torch.Tensor] = []
        self.version = 0
        self._read()

    def look(self) -> None:
        """See whether the modules hold others than at the last look. Something that is no `torch.nn.Module` is looked at
        once, and so is what FSDP manages: it puts whole parameters in the place of shares for as long as it needs them."""
        if not self._settled and (
            any(self._empty)
            or not all(map(is_, chain(chain.from_iterable(map(dict.values, self._full)), END), self._held))
            or not all(map(is_lazy, self._lazy))
        ):
            self._read()
            self.version += 1

    def forget(self) -> None:
        """Keep no module and no parameter alive; the names stay."""
        self._modules = ()
        self._read()

    def named(self) -> list[tuple[str, torch.Tensor]]:
        """Name and tensor."""
        return [(self.names[self.numbers[id(tensor)]], tensor) for tensor in self.tensors]

    def _read(self) -> None:
        children = [child for module in self._modules if isinstance(module, torch.nn.Module) for child in module.modules()]
        holders: list[dict[str, Any]] = [held for child in children for held in (child._parameters, child._modules)]
        self._empty = [holder for holder in holders if not holder]
        self._full = [holder for holder in holders if holder]
        found = _named_parameters(self._modules)
        self._lazy = [parameter for _, parameter in found if is_lazy(parameter)]
        self.every = [parameter for _, parameter in found]
        """With those that are empty or lazy."""
        filled = [(name, parameter) for name, parameter in found if not is_lazy(parameter) and parameter.numel()]
        self.has_empty = len(filled) + len(self._lazy) < len(found)
        known = {name: number for number, name in enumerate(self.names)}
        self.numbers.clear()
        for name, parameter in filled:
            self.numbers[id(parameter)] = known.setdefault(name, len(known))
        self.names += list(known)[len(self.names) :]
        self.tensors[:] = [parameter for _, parameter in filled]
        managed = any(type(child).__name__ == SHARDED or getattr(child, MANAGED, False) for child in children)
        self._settled = managed or not all(isinstance(holder, dict) for holder in holders)
        self._held = [] if self._settled else [*chain.from_iterable(map(dict.values, self._full)), *END]
        self.is_flat = managed and not any(hasattr(parameter, "to_local") for parameter in self.every)

    @property
    def has_lazy(self) -> bool:
        """Whether some have no values yet, so that the others are not the whole."""
        return bool(self._lazy)


def _named_parameters(modules: Sequence[Any]) -> list[tuple[str, torch.Tensor]]:
    """Parameters of all modules, each once; of several modules the name begins with the number of the module."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for number, module in enumerate(modules):
        prefix = f"{number}." if len(modules) > 1 else ""
        for name, parameter in _names_of(module):
            found.setdefault(id(parameter), (prefix + name, parameter))
    return list(found.values())


def _names_of(module: Any) -> list[tuple[str, torch.Tensor]]:
    """`named_parameters`, or numbers for something that has only `parameters`."""
    if callable(getattr(module, "named_parameters", None)):
        return list(module.named_parameters())
    return [(str(number), parameter) for number, parameter in enumerate(module.parameters())]
