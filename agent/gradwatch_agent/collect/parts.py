"""What the collectors found in one update: vectors on devices, and who reads them on the host."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gradwatch_agent.collect.host import Reader


@dataclass(frozen=True, slots=True)
class Parts:
    """By device. `held`: every one's vectors and its reader, which gets their numbers one after the other."""

    held: dict[torch.device, list[tuple[Sequence[torch.Tensor], Reader]]] = field(default_factory=dict)

    def put(self, vectors: Sequence[torch.Tensor], reader: Reader) -> None:
        """Add 1-D vectors of real numbers, at least one, all on one device. Nobody writes to them any more: those on the host
        are read where they lie, later and on another thread."""
        self.held.setdefault(vectors[0].device, []).append((vectors, reader))
