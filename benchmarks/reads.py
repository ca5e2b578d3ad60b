"""How often a tensor's values are asked for one by one: on a GPU each is a copy to the host and waits for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

READING = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
"""Operators whose result's value, or size, is in the values of a tensor."""

MASKS = (torch.bool, torch.uint8)


class Reads(TorchDispatchMode):
    """Counts them on the thread that is within it, by what torch itself says of its operators. A tensor of the host that is
    turned into a list or an array is none: nothing waits."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See TorchDispatchMode."""
        if any(tag in func.tags for tag in READING):
            # Rows picked by their numbers are as many as the numbers; only those picked by a mask have to be counted first.
            picked = args[1] if func is torch.ops.aten.index.Tensor else None
            self.found += picked is None or any(at is not None and at.dtype in MASKS for at in picked)
        return func(*args, **(kwargs or {}))
