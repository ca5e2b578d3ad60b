"""The parameters of a script whose model nobody handed over: those of its optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch


class OptimizerParameters:
    """Stands for a module where `watch` takes one. A name is what the optimizer knows: its own, or place and shape."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._named = list(_name(optimizers))  # and not the optimizers: one that is replaced is not to be kept alive

    def named_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor, in the order of the optimizers, their groups and their parameters."""
        return iter(self._named)

    def parameters(self) -> Iterator[torch.Tensor]:
        """The tensors alone."""
        return (parameter for _, parameter in self.named_parameters())


def _name(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[tuple[str, torch.Tensor]]:
    for number, optimizer in enumerate(optimizers):
        prefix = f"{number}." if len(optimizers) > 1 else ""
        for place, group in enumerate(optimizer.param_groups):
            known = group.get("param_names")
            for index, parameter in enumerate(group["params"]):
                shape = "x".join(map(str, parameter.shape)) or "scalar"
                name = known[index] if known else f"{place}.{index}[{shape}]"
                yield prefix + name, parameter
