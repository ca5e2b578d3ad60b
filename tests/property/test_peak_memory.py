"""Peak memory of collection: nothing of ours is larger than the largest parameter of the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradwatch_agent.collect import weighing as weighing_module
from gradwatch_contracts.control import Level
from harness.recording import monitoring

SIDE = 512
LAYERS = 6


class Sizes(TorchDispatchMode):
    """The bytes of every storage that an operator makes while it is on: the largest, and all that lived at once."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.largest_by = ""
        self._alive: dict[int, tuple[Any, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().data_ptr() not in given:
                self._note(leaf, str(func))
        return made

    def _note(self, tensor: torch.Tensor, by: str) -> None:
        import weakref

        size = tensor.untyped_storage().nbytes()
        if size > self.largest:
            self.largest, self.largest_by = size, by
        self._alive = {key: entry for key, entry in self._alive.items() if entry[0]() is not None}
        self._alive[id(tensor)] = (weakref.ref(tensor), size)
        self.peak = max(self.peak, sum(entry[1] for entry in self._alive.values()))


def big_model() -> nn.Sequential:
    """Several parameters of 1 MiB, with gradients."""
    model = nn.Sequential(*[nn.Linear(SIDE, SIDE) for _ in range(LAYERS)])
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("clipped", [True, False])
@pytest.mark.parametrize("level", [Level.NORMAL, Level.DEBUG])
def test_collection_makes_no_temporary_above_the_largest_parameter(
    level: Level, clipped: bool, copied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tensor of ours, and together no more than that besides the copy of the weights that DEBUG is allowed."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    model = big_model()
    weights = sum(parameter.numel() * 4 for parameter in model.parameters())
    if not copied:
        monkeypatch.setattr(weighing_module, "COPY_BYTES_MAX", 1)
    largest = max(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with monitoring(modules=(model,), optimizers=(optimizer,), level=level) as (monitor, record), Sizes() as sizes:
        for _ in range(3):
            if clipped:
                clip_grad_norm_(model.parameters(), 1e9)
            optimizer.step()
            monitor.step()
        assert len(record.rows) == 3
    assert 0 < sizes.largest <= largest, sizes.largest_by
    allowed = weights if level is Level.DEBUG and copied else 0
    assert sizes.peak <= allowed + 1.1 * largest, (sizes.peak, sizes.largest_by)
