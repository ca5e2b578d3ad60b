"""The one way from a device to the host: a ring of slots, filled without waiting and read when their copies are done.

Numbers that lie on the host already, such as the loss and the total norm of a clip of a model on the CPU, are read where they
lie: `host_value` and `host_values` ask first. No other module of the agent reads a tensor's values, and nothing here reads
those of a device but a slot whose copy is done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

STRIDED = torch.strided

SLOTS = 4
"""Copies under way at once, per device: a device more than four updates behind the trainer's Python does not occur."""


@dataclass(slots=True)
class Slot:
    """One host buffer (pinned for CUDA), the event that says its copy is done, and the device vector it is read from."""

    host: Tensor
    event: Any = None
    source: Tensor | None = None
    length: int = 0

    @property
    def done(self) -> bool:
        """Whether the copy has arrived. Never waits."""
        return self.event is None or bool(self.event.query())


@dataclass(slots=True)
class Ticket:
    """The vectors of one update, by device: as one in a slot, or as they are on the host."""

    parts: list[Slot | Sequence[Tensor]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether every value is on the host."""
        return all(part.done for part in self.parts if isinstance(part, Slot))

    def bring(self) -> None:
        """Read the slots and give them back, on the thread that queued the copies. Waits for those not done: `mode="sync"`."""
        for at, part in enumerate(self.parts):
            if isinstance(part, Slot):
                if part.event is not None:
                    part.event.synchronize()
                self.parts[at] = [part.host[: part.length].clone()]  # 8 bytes a number; as a list it would be 32
                part.source = None

    def take(self) -> list[list[float]]:
        """The values, one list per device. After `bring`, on any thread."""
        self.bring()
        parts = [part for part in self.parts if not isinstance(part, Slot)]
        return [list(chain.from_iterable([vector.tolist() for vector in part])) for part in parts]

    def release(self) -> None:
        """Give the slots back unread."""
        for part in self.parts:
            if isinstance(part, Slot):
                part.source = None


class Transfer:
    """Rings of host buffers, one per device, each grown to the largest vector seen."""

    __slots__ = ("_rings",)

    def __init__(self) -> None:
        self._rings: dict[torch.device, list[Slot]] = {}

    def submit(self, packed: Sequence[Sequence[Tensor]]) -> Ticket | None:
        """Queue one copy for each device, of its 1-D vectors joined, of which there is one at least; None when a device has no
        free slot: nothing is queued. Vectors on the host are taken as they are; nobody may write to them any more.

        Raises:
            Exception: whatever the device says to a copy it refuses; the slots are free again.
        """
        ticket = Ticket()
        try:
            for vectors in packed:
                if self.is_here(vectors[0]):
                    ticket.parts.append(vectors)
                    continue
                vector = torch.cat(list(vectors))
                slot = self._free(vector)
                if slot is None:
                    ticket.release()
                    return None
                slot.source, slot.length = vector, vector.numel()
                ticket.parts.append(slot)
            for part in ticket.parts:
                if isinstance(part, Slot):
                    _start(part)
        except BaseException:  # a slot that is never read again would be one less for ever
            ticket.release()
            raise
        return ticket

    def is_here(self, vector: Tensor) -> bool:
        """Whether the values lie on the host already."""
        return vector.is_cpu

    def _free(self, vector: Tensor) -> Slot | None:
        ring = self._rings.setdefault(vector.device, [])
        for slot in ring:
            if slot.source is None:
                if len(slot.host) < vector.numel() or slot.host.dtype is not vector.dtype:
                    slot.host = _host_buffer(vector)
                return slot
        if len(ring) >= SLOTS:
            return None
        slot = Slot(_host_buffer(vector))
        ring.append(slot)
        return slot


def host_value(number: Tensor) -> float | None:
    """The value of one dense float that is on the CPU already, of any shape, where nothing waits; None for any other."""
    if not number.is_cpu or number.layout is not STRIDED or number.numel() != 1:
        return None
    value: Any = number.tolist()
    while type(value) is list:
        value = value[0]
    return value if type(value) is float else None


def host_whole(number: Tensor) -> float | None:
    """The same of one dense number, which may be an integer."""
    if not number.is_cpu or number.layout is not STRIDED or number.numel() != 1 or number.is_complex():
        return None
    value: Any = number.tolist()
    while type(value) is list:
        value = value[0]
    return value if type(value) in {float, int} else None


def host_values(vector: Tensor) -> list[float] | None:
    """The values of a vector that is on the CPU already, where nothing waits; None for any other."""
    return vector.tolist() if vector.is_cpu else None


def _host_buffer(vector: Tensor) -> Tensor:
    """A host vector with room to grow; pinned for CUDA, as a copy into pageable memory waits for the device."""
    length = 1 << max(8, vector.numel().bit_length())
    with torch.inference_mode(False):
        return torch.empty(length, dtype=vector.dtype, device="cpu", pin_memory=vector.device.type == "cuda")


def _start(slot: Slot) -> None:
    """Copy the source into the host buffer on the current stream of its device. Without events the copy is finished."""
    source = slot.source
    if source is None:
        return
    slot.host[: slot.length].copy_(source, non_blocking=source.device.type == "cuda")
    if source.device.type == "cuda":
        slot.event = slot.event or torch.cuda.Event()  # type: ignore[no-untyped-call]
        slot.event.record(torch.cuda.current_stream(source.device))
