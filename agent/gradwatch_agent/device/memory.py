"""What torch has allocated on CUDA devices: a counter of its allocator on the host, so reading it waits for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

READ_EVERY = 16
"""Updates between two readings: torch gathers all counters of the allocator into a dict for each."""


def allocated_bytes(devices: Iterable[torch.device]) -> int | None:
    """Bytes on those of the devices that are CUDA; None when none is."""
    found = [torch.cuda.memory_allocated(device) for device in set(devices) if device.type == "cuda"]
    return sum(found) if found else None
