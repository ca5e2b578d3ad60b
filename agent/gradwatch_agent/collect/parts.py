"""What the collectors found in one update: vectors on devices, and who reads them on the host."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gradwatch_agent.collect.host import Reader


class Part(NamedTuple):
    """1-D vectors, and their reader, which gets all of their `numbers` one after the other."""

    vectors: Sequence[torch.Tensor]
    reader: Reader
    numbers: int


@dataclass(frozen=True, slots=True)
class Parts:
    """`held`: by device."""

    held: dict[torch.device, list[Part]] = field(default_factory=dict)

    def put(self, vectors: Sequence[torch.Tensor], reader: Reader, numbers: int | None = None) -> None:
        """Add 1-D vectors of real numbers, at least one, all on one device; `numbers` in all, where that is known already.

        Nobody writes to them any more: those on the host are read where they lie, later and on another thread.
        """
        if numbers is None:
            numbers = sum([vector.shape[0] for vector in vectors])
        self.held.setdefault(vectors[0].device, []).append(Part(vectors, reader, numbers))
