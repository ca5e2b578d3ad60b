"""The gradient norm of every tensor at every clip or optimizer step of an update, reduced to a few numbers.

A call gives one vector, the norms of its tensors before clipping. Vectors of one length and one meaning gather, and are
counted together: how many vanish, how many explode, the least, the largest, and the norm of each parameter group. A few
numbers travel as they are and are counted on the host; many are counted on the device, and of each tensor only its largest
norm travels and the first call at which it was not finite. Those, or the numbers themselves, also go into the black box.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Union

import torch

from gradwatch_agent.blackbox import BROKEN, GRADIENT, LAYERS_MAX, Norms
from gradwatch_agent.collect.host import add_series
from gradwatch_agent.collect.tensors import META
from gradwatch_agent.device.plan import least
from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.host import Reader, Tally
    from gradwatch_agent.collect.layers import Layers
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


Held = tuple["torch.Tensor", Union[float, None], "Runs", tuple[int, ...], int]
"""(norms of one call, clip limit, groups, members, how many calls for these members there were before)."""


class TensorNorms:
    """The vectors of the running update."""

    __slots__ = ("_calls", "_held", "_numbers", "_parts", "_size", "_staging", "overflowed")

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._held: list[Held] = []
        self._parts: dict[torch.device, list[tuple[torch.Tensor, NormsReader | PlainReader]]] = {}
        self._numbers = self._size = 0
        self._calls: dict[tuple[int, ...], int] = {}
        self.overflowed = False

    def add(self, norms: torch.Tensor, bound: float | None, groups: Runs, members: tuple[int, ...]) -> None:
        """Hold the norms of one call, a vector that nobody else writes to. Launches nothing."""
        step = self._calls[members] = self._calls.get(members, -1) + 1
        self._held.append((norms, bound, groups, members, step))
        self._size += len(norms)
        if self._size >= HELD_MAX:
            with torch.no_grad():
                self._reduce_held()

    def finish(self, layers: Layers | None) -> dict[torch.device, list[tuple[torch.Tensor, Reader]]]:
        """The vectors of each device and what they are; then nothing is held. Gradients must be off."""
        self._reduce_held()
        parts: dict[torch.device, list[tuple[torch.Tensor, Reader]]] = {}
        for device, found in self._parts.items():
            for vector, reader in found:
                reader.layers = None if device.type == META else layers
                parts.setdefault(device, []).append((vector, reader))
        self._parts, self._numbers, self._calls = {}, 0, {}
        return parts

    def _reduce_held(self) -> None:
        """Reduce what is held, vectors of one meaning together."""
        alike: dict[Meaning, tuple[list[torch.Tensor], list[float], list[int]]] = {}
        for norms, bound, groups, members, step in self._held:
            meaning = Meaning(norms.shape[0], norms.device, norms.dtype, bound is not None, groups, members)
            vectors, bounds, steps = alike.setdefault(meaning, ([], [], []))
            vectors.append(norms)
            bounds.append(0.0 if bound is None else bound)
            steps.append(step)
        self._held, self._size = [], 0
        for meaning, found in alike.items():
            self._reduce(meaning, *found)

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
            self._parts.setdefault(meaning.device, []).append((torch.cat(vectors), PlainReader(meaning, steps, bounds)))
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
        reader = NormsReader(meaning, steps)
        self._parts.setdefault(meaning.device, []).append((torch.cat(parts), reader))

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
