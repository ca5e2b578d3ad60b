"""The gradient norm of every tensor at every clip or optimizer step of an update, reduced to a few numbers.

A call gives one vector, the norms of its tensors before clipping. Vectors of one length and one meaning gather, and are
counted together: how many vanish, how many explode, the least, the largest, and the norm of each parameter group. A few
numbers travel as they are and are counted on the host; many are counted on the device, and of each tensor only its largest
norm travels and the first call at which it was not finite. Those, or the numbers themselves, also go into the black box.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from gradwatch_agent.blackbox import BROKEN, GRADIENT, LAYERS_MAX, Norms
from gradwatch_agent.collect.host import add_series
from gradwatch_agent.collect.tensors import META
from gradwatch_agent.device.plan import least
from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.collect.layers import Layers
    from gradwatch_agent.collect.parts import Parts
    from gradwatch_agent.collect.staging import Staging

VANISHING = 1e-7
EXPLODING = 10.0
"""Times the norm that clipping allows: an absolute bound would depend on the scale of the loss."""

HELD_MAX = 65_536
"""Norms held by reference before they are reduced: 256 kB in float32."""

NUMBERS_MAX = 65_536
"""Numbers sent to the host in one update (512 kB); beyond it, norms are INCOMPLETE."""

PLAIN_MAX = 1024
"""Norms that travel as they are: counting 200 of them on the host takes 10 microseconds, the kernels for it 80."""

SUMMARY = 4
"""Vanishing, exploding, least, largest."""

NORM_COLUMNS = ("grad.tensors", "grad.vanishing", "grad.exploding", "grad.tensor_norm.min", "grad.tensor_norm.max")

Runs = tuple[tuple[str, tuple[tuple[int, int], ...]], ...]
"""Per parameter group, the runs (start, end) of a vector that are its tensors."""


class Meaning(NamedTuple):
    """What the numbers of a vector are; vectors with one meaning gather. `members`: the parameters, by number;
    `bounded`: a clip limit came with it."""

    length: int
    device: torch.device
    dtype: torch.dtype
    bounded: bool
    groups: Runs
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Alike:
    """Vectors of one meaning, one for each call: (norms, clip limit or 0, how many calls for these members there were before).
    Added at once, since Ctrl-C may land anywhere."""

    meaning: Meaning
    calls: list[tuple[torch.Tensor, float, int]] = field(default_factory=list)

    def takes(self, norms: torch.Tensor, bound: float | None, groups: Runs, members: tuple[int, ...]) -> bool:
        """Whether a call is like the last one: nearly all are, and then the very same names come with it."""
        known = self.meaning
        return (
            members is known.members
            and groups is known.groups
            and (bound is not None) is known.bounded
            and norms.shape[0] == known.length
            and norms.dtype is known.dtype
            and norms.device == known.device
        )


class TensorNorms:
    """The vectors of the running update."""

    __slots__ = ("_alike", "_calls", "_last", "_numbers", "_reduced", "_size", "_staging", "overflowed")

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._alike: dict[Meaning, Alike] = {}
        self._last: Alike | None = None
        self._reduced: list[tuple[list[torch.Tensor], NormsReader | PlainReader, int]] = []
        self._numbers = self._size = 0
        self._calls: dict[tuple[int, ...], int] = {}
        self.overflowed = False

    def add(self, norms: torch.Tensor, bound: float | None, groups: Runs, members: tuple[int, ...]) -> None:
        """Hold the norms of one call, a vector that nobody else writes to. Launches nothing."""
        alike = self._last
        if alike is None or not alike.takes(norms, bound, groups, members):
            meaning = Meaning(norms.shape[0], norms.device, norms.dtype, bound is not None, groups, members)
            alike = self._last = self._alike.setdefault(meaning, Alike(meaning))
        step = self._calls[members] = self._calls.get(members, -1) + 1
        alike.calls.append((norms, 0.0 if bound is None else bound, step))
        self._size += alike.meaning.length
        if self._size >= HELD_MAX:
            with torch.no_grad():
                self._reduce_held()

    def finish(self, parts: Parts, layers: Layers | None) -> None:
        """Hand them over; then nothing is held. Gradients must be off."""
        self._reduce_held()
        for vectors, reader, numbers in self._reduced:
            reader.layers = None if reader.meaning.device.type == META else layers
            parts.put(vectors, reader, numbers)
        self._reduced, self._numbers, self._calls = [], 0, {}

    def _reduce_held(self) -> None:
        """Reduce what is held, vectors of one meaning together."""
        held, self._alike, self._last, self._size = self._alike, {}, None, 0
        for alike in held.values():
            if alike.calls:
                self._reduce(alike.meaning, *map(list, zip(*alike.calls, strict=True)))

    def _reduce(self, meaning: Meaning, vectors: list[torch.Tensor], bounds: list[float], steps: list[int]) -> None:
        """[calls, tensors] → vanishing, exploding, least, largest, each group's norm at each call, each tensor's largest and
        the first call at which it was not finite."""
        calls = len(vectors)
        named = meaning.length <= LAYERS_MAX
        numbers, facts = calls * meaning.length, SUMMARY + calls * len(meaning.groups) + 2 * meaning.length * named
        self._numbers += numbers if numbers <= PLAIN_MAX else facts
        if self._numbers > NUMBERS_MAX:
            self.overflowed = True
            return
        if numbers <= PLAIN_MAX:
            self._reduced.append((vectors, PlainReader(meaning, steps, bounds), numbers))
            return
        one = self._staging.reducer(meaning.device).one
        norms = torch.mul(torch.stack(vectors), one)
        counts = [torch.count_nonzero(norms < VANISHING)]
        if meaning.bounded:
            counts += self._count_exploding(norms, bounds)
        parts = [torch.mul(torch.stack(counts), one), torch.stack(torch.aminmax(norms))]
        for _, runs in meaning.groups:
            pieces = [norms[:, start:end] for start, end in runs]
            parts.append(torch.linalg.vector_norm(pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1), 2, 1))
        if named:
            finite = torch.mul(torch.isfinite(norms), one)
            parts += [norms.amax(0), torch.mul(finite.argmin(0), one)]
        self._reduced.append((parts, NormsReader(meaning, steps), sum([len(part) for part in parts])))

    def _count_exploding(self, norms: torch.Tensor, bounds: list[float]) -> list[torch.Tensor]:
        """Nearly always all calls have one limit; then it need not travel to the device."""
        if len(set(bounds)) == 1:
            return [torch.count_nonzero(norms > EXPLODING * bounds[0])]
        counts = [torch.count_nonzero(row > EXPLODING * bound) for row, bound in zip(norms.unbind(0), bounds, strict=True)]
        return [torch.stack(counts).sum()]


@dataclass(slots=True)
class NormsReader:
    """The reduced norms of the calls `steps`."""

    meaning: Meaning
    steps: list[int]
    layers: Layers | None = None

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See host.Reader."""
        meaning, bounded, calls = self.meaning, self.meaning.bounded, len(self.steps)
        tally.add("grad.tensors", (float(calls * meaning.length),))
        tally.add("grad.vanishing", (values[0],))
        if bounded:
            tally.add("grad.exploding", (values[1],))
        else:
            tally.refuse("grad.exploding", Status.UNDEFINED)
        at = 1 + bounded
        tally.add("grad.tensor_norm.min", (values[at],))
        tally.add("grad.tensor_norm.max", (values[at + 1],))
        at += 2
        for name, _ in meaning.groups:
            add_series(tally, "grad.group_norm", list(values[at : at + calls]), list(range(calls)), name)
            at += calls
        largest, broken = values[at : at + meaning.length], values[at + meaning.length :]
        if broken:
            at_steps = [
                math.nan if math.isfinite(norm) else self.steps[int(call)] for norm, call in zip(largest, broken, strict=True)
            ]
            tally.norms.append(Norms(GRADIENT, meaning.members, (), array("d", largest)))
            tally.norms.append(Norms(BROKEN, meaning.members, (), array("d", at_steps)))
        if self.layers is not None and largest:
            for member, norm in zip(meaning.members, largest, strict=True):
                self.layers.gradients[member] = _larger(self.layers.gradients.get(member), norm)


@dataclass(slots=True)
class PlainReader:
    """The norms themselves, one call after the other, and the clip limit of each call."""

    meaning: Meaning
    steps: list[int]
    bounds: list[float]
    layers: Layers | None = None

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """Count here, and tell as `NormsReader` does."""
        length, calls = self.meaning.length, len(self.bounds)
        low, high = least(values), -least([-value for value in values])
        found = [float(sum([value < VANISHING for value in values])) if not low >= VANISHING else 0.0]
        if self.meaning.bounded:
            limits = [EXPLODING * bound for bound in self.bounds]
            above = 0
            if not high <= min(limits):
                above = sum([value > limits[at // length] for at, value in enumerate(values)])
            found.append(float(above))
        found += (low, high)
        for _, runs in self.meaning.groups:
            for start in range(0, calls * length, length):
                squares = [value * value for first, end in runs for value in values[start + first : start + end]]
                found.append(math.sqrt(sum(squares)))
        tally.norms.append(Norms(GRADIENT, self.meaning.members, tuple(self.steps), array("d", values)))
        if self.layers is not None:
            found += [-least([-value for value in values[member::length]]) for member in range(length)]
        NormsReader(self.meaning, self.steps, self.layers).tell(tally, found)


def _larger(held: float | None, norm: float) -> float:
    if held is None or math.isnan(norm):
        return norm
    return held if math.isnan(held) else max(held, norm)
