"""One number per minibatch: losses, gradient norms. Held by reference, gathered by one `stack`, read one by one on the host."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

from gradwatch_agent.collect.host import Tally, add_series

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from gradwatch_agent.collect.parts import Parts
    from gradwatch_agent.collect.staging import Staging

NUMBERS_MAX = 16_384
"""Numbers of one series in one update: 128 kB."""

HELD_MAX = 256
"""Numbers held by reference: each takes 512 bytes of a CUDA allocator."""

Held = tuple["torch.Tensor", Union[int, None], int, Union[float, None]]
"""(number, the version it had, minibatch, bound)."""

Known = tuple[float, int, Union[float, None]]
"""(number, minibatch, bound)."""


@dataclass(slots=True)
class Chunk:
    """Numbers from one device: what was gathered, their minibatches, and the bound of each."""

    gathered: list[torch.Tensor] = field(default_factory=list)
    minibatches: list[int] = field(default_factory=list)
    bounds: list[float | None] = field(default_factory=list)


class Series:
    """The numbers of column `name`, `subject` in the running update.

    A number is a tensor of one element that torch has just made. Keeping it costs a tenth of copying it; its version
    tells whether anybody wrote to it since, and then the series is INCOMPLETE. One that lies on the host is taken as what it
    is: nothing waits, and nothing is to be copied.
    """

    __slots__ = ("_chunks", "_held", "_known", "_name", "_room", "_staging", "_subject", "overwritten")

    def __init__(self, staging: Staging, name: str, subject: str = "") -> None:
        self._staging = staging
        self._name, self._subject = name, subject
        self._chunks: dict[torch.device, Chunk] = {}
        self._held: list[Held] = []
        self._known: list[Known] = []
        self._room = NUMBERS_MAX
        self.overwritten = False

    def add(self, number: torch.Tensor | float, minibatch: int, bound: float | None = None) -> bool:
        """Take a number, and the bound it is compared with, if any; False when the series is full."""
        if not self._room:
            return False
        self._room -= 1
        if isinstance(number, float):
            self._known.append((number, minibatch, bound))
            return True
        try:
            self._held.append((number.detach(), number._version, minibatch, bound))
        except RuntimeError:  # an inference tensor has no version
            self._held.append((number.clone(), None, minibatch, bound))
        if len(self._held) >= HELD_MAX:
            self._gather()
        return True

    def extend(self, known: Sequence[Known]) -> None:
        """Take numbers that are on the host; the caller bounds them."""
        self._known.extend(known)

    def finish(self, tally: Tally, parts: Parts) -> None:
        """Hand over the vectors of each device; then the series is empty. Gradients must be off."""
        if self._known:
            values, minibatches, bounds = map(list, zip(*self._known, strict=True))
            tally.put_off(SeriesReader(self._name, self._subject, minibatches, bounds), values)
            self._known = []
        if self._held:
            self._gather()
        for chunk in self._chunks.values():
            parts.put(chunk.gathered, SeriesReader(self._name, self._subject, chunk.minibatches, chunk.bounds))
        self._chunks, self._room = {}, NUMBERS_MAX

    def _gather(self) -> None:
        """Copy what is held, one vector a device."""
        taken: dict[torch.device, list[torch.Tensor]] = {}
        for held, version, minibatch, bound in self._held:
            self.overwritten |= version is not None and held._version != version
            device = held.device
            chunk = self._chunks.get(device)
            if chunk is None:
                chunk = self._chunks[device] = Chunk()
            chunk.minibatches.append(minibatch)
            chunk.bounds.append(bound)
            taken.setdefault(device, []).append(held if held.dim() == 0 else held.reshape(()))
        self._held = []
        for device, numbers in taken.items():
            self._chunks[device].gathered.append(self._staging.reducer(device).vector(numbers))


@dataclass(frozen=True, slots=True)
class SeriesReader:
    """The numbers of one column on the host."""

    name: str
    subject: str
    minibatches: list[int]
    bounds: list[float | None]

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See host.Reader."""
        add_series(tally, self.name, list(values), self.minibatches, self.subject)
        if self.name != "grad.norm":
            return
        bounded = [(value, bound) for value, bound in zip(values, self.bounds, strict=True) if bound is not None]
        if bounded:
            tally.add("grad.clipped", (float(sum([value > bound for value, bound in bounded])),))
