"""Everything measured on devices in one update: collectors in front, one packed vector per device behind."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from gradwatch_agent.collect.actions import ActionCollector
from gradwatch_agent.collect.block_facts import COLLECTOR_OF
from gradwatch_agent.collect.collectors import Switches
from gradwatch_agent.collect.deviations import DeviationCollector
from gradwatch_agent.collect.episodes import RETURN, EpisodeReader
from gradwatch_agent.collect.exemplars import ExemplarCollector
from gradwatch_agent.collect.features import FeatureCollector
from gradwatch_agent.collect.gradients import GradientCollector
from gradwatch_agent.collect.host import LISTED_BYTES, LastReader, Tally, to_float
from gradwatch_agent.collect.model import Model
from gradwatch_agent.collect.parts import Part, Parts
from gradwatch_agent.collect.policy import PolicyCollector
from gradwatch_agent.collect.policy_facts import SlicedRows
from gradwatch_agent.collect.policy_facts import tell_segment as tell_policy
from gradwatch_agent.collect.probe import PERIOD, Probe
from gradwatch_agent.collect.recurrent import RecurrentCollector
from gradwatch_agent.collect.rollout import RolloutCollector
from gradwatch_agent.collect.rollout import tell_segment as tell_rollout
from gradwatch_agent.collect.series import SeriesReader
from gradwatch_agent.collect.spaces import entropy_limits
from gradwatch_agent.collect.staging import Segment, Staging
from gradwatch_agent.collect.tensors import META, fault_of
from gradwatch_agent.device.memory import READ_EVERY, allocated_bytes
from gradwatch_agent.device.transfer import Ticket, Transfer
from gradwatch_contracts import limits
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gradwatch_agent.arguments import Settings
    from gradwatch_agent.collect.host import Reader

VECTOR_BYTES = 512
"""Charged for a vector that is held, besides its numbers."""

DEVICE_CALLS = ("rollout", "ppo", "clip", "step")
CALL_COLUMNS = {
    call: tuple(name for name, spec in COLUMNS.items() if spec.call == call and spec.level >= Level.NORMAL and not spec.per)
    for call in DEVICE_CALLS
}
"""Agent call → the columns that it feeds from devices."""


@dataclass(frozen=True, slots=True)
class SegmentReader:
    """A reduced block of staged tensors."""

    segment: Segment
    sliced: SlicedRows

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See host.Reader."""
        if self.segment.layout.source is Source.ROLLOUT:
            tell_rollout(tally, self.segment, values)
        else:
            tell_policy(tally, self.segment, values, self.sliced)


@dataclass(slots=True)
class Underway:
    """The values of one update on their way to the host, and how to read them."""

    ticket: Ticket
    readers: list[list[tuple[Reader, int]]]
    sliced: SlicedRows = field(default_factory=SlicedRows)
    vectors: int = 0

    def bring(self) -> int:
        """Bring what has arrived to the host for good; how many bytes are held for it. Only when the ticket is done."""
        self.ticket.bring()
        size = VECTOR_BYTES * self.vectors
        for readers in self.readers:
            for reader, numbers in readers:
                size += (8 + LISTED_BYTES * isinstance(reader, SeriesReader)) * numbers
        return size

    def tell(self, tally: Tally) -> None:
        """Read every vector into `tally`, on whichever thread. Only after `bring`."""
        for values, readers in zip(self.ticket.take(), self.readers, strict=True):
            at = 0
            for reader, length in readers:
                reader.tell(tally, values[at : at + length])
                at += length
        self.sliced.tell(tally)


class Measurement:
    """The collectors of one model and the packing of what they found.

    `modules` and `optimizers` may be empty: then only what is passed to the calls is measured.
    """

    def __init__(
        self,
        modules: Sequence[torch.nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
        on_own_error: Callable[[str, str], None],
        *,
        action_space: object = None,
        off_policy: bool = False,
        max_staged_bytes: int,
        switches: Switches | None = None,
        probe: object = None,
        transfer: Transfer | None = None,
    ) -> None:
        self._switches = switches = switches or Switches()
        self._updates = READ_EVERY
        """Since device memory was last read."""
        self._allocated: int | None = None
        self._cuda = torch.cuda.is_available()
        self._bytes_max = max_staged_bytes
        self.staging = Staging(max_staged_bytes)
        self.transfer = transfer or Transfer()
        self.policy = PolicyCollector(
            self.staging,
            entropy_limits(action_space),
            off_policy=off_policy,
            optimizer=bool(optimizers),
            switches=switches,
        )
        self._rollout = RolloutCollector(self.staging, switches)
        self._recurrent = RecurrentCollector(self.staging, switches)
        self._features = FeatureCollector(self.staging)
        self._actions = ActionCollector(self.staging, action_space)
        model = Model(modules)
        self.deviations = DeviationCollector(self.staging, model if switches.on("action_std") else Model(()))
        self._probe = Probe(self.staging, probe, on_own_error) if probe is not None and switches.on("probe") else None
        self.gradients = GradientCollector(model, optimizers, self.staging, self.policy, on_own_error, switches=switches)
        self.exemplars = ExemplarCollector(self.staging, switches)
        self._scalars: dict[tuple[str, str], torch.Tensor] = {}
        self._returns: list[torch.Tensor] = []
        self.tally = Tally()
        self.level = Level.OFF

    @classmethod
    def of(cls, settings: Settings, on_own_error: Callable[[str, str], None]) -> Measurement:
        """What the arguments of `watch` ask for."""
        return cls(
            settings.modules,
            settings.optimizers,
            on_own_error,
            action_space=settings.action_space,
            off_policy=settings.off_policy,
            max_staged_bytes=settings.max_staged_bytes,
            switches=settings.switches,
            probe=settings.probe,
        )

    @property
    def touched(self) -> bool:
        """Whether the running update has anything to lose."""
        return bool(not self.staging.empty or self.policy.minibatches or self.gradients.steps or self._scalars)

    @property
    def idle(self) -> bool:
        """Whether an optimizer is watched and the running update neither observed a minibatch nor took a step."""
        stepped = self.gradients.steps or self.gradients.compiled or self.gradients.unseen
        return self.gradients.has_optimizer and not stepped and not self.policy.minibatches

    def take_spent_ns(self) -> int:
        """Time spent in hooks since the last call."""
        spent, self.gradients.spent_ns = self.gradients.spent_ns, 0
        return spent

    def begin(self, tally: Tally, level: Level) -> None:
        """A new update."""
        self.tally, self.level = tally, level
        self.policy.begin(tally)
        self.gradients.begin(tally, level)

    def rollout(
        self,
        tensors: Mapping[str, object],
        observations: object,
        *,
        actions: object = None,
        normalizer: object = None,
        obs_clip: object = None,
    ) -> None:
        """Reduce the tensors of a rollout; `tensors` is column → tensor."""
        if self._cuda and self._capturing((*tensors.values(), observations, actions), "rollout"):
            return
        bound = None if obs_clip is None else to_float(obs_clip)
        if obs_clip is not None and bound is None:
            self.tally.refuse("obs.input.saturated", Status.DTYPE)
        with torch.no_grad():
            found, lead = self._rollout.observe(self.tally, tensors, observations, bound)
            if found and self._switches.on("observation_features"):
                begin = time.perf_counter_ns()
                self._features.observe(self.tally, found, lead, normalizer)
                self._switches.charge("observation_features", time.perf_counter_ns() - begin)
            if self._probe is not None:
                self._probe.keep(found, lead)
            if actions is not None and self._switches.on("action_use"):
                begin = time.perf_counter_ns()
                self._actions.observe(self.tally, actions)
                self._switches.charge("action_use", time.perf_counter_ns() - begin)

    @property
    def _small(self) -> tuple[FeatureCollector, ActionCollector, DeviationCollector]:
        """The collectors that hold nothing but what `finish` hands over."""
        return self._features, self._actions, self.deviations

    def recurrent(self, h: object, c: object, phase: str, reset: object = None) -> None:
        """Stage a recurrent state; `phase` is one of `host.PHASES`."""
        self._recurrent.observe(self.tally, h, c, phase, self.policy.minibatches, reset=reset)

    def scalar(self, name: str, subject: str, value: object) -> bool:
        """Stage a tensor of one real number for column `name`; False when it is none."""
        if not isinstance(value, torch.Tensor) or value.numel() != 1 or value.is_complex():
            return False
        if value.layout is not torch.strided or (value.device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            return False
        with torch.no_grad():
            row = self.staging.reducer(value.device).vector([value.reshape(())])
        self._scalars[name, subject] = row
        return True

    def numbers(self, column: str, values: object) -> bool:
        """Reduce a tensor, or a list of tensors of one number, into `column`; False when it is none. Of returns the first are
        kept, too."""
        if isinstance(values, (list, tuple)) and values and all(isinstance(value, torch.Tensor) for value in values):
            with torch.no_grad():
                given: object = torch.stack([value.reshape(()) for value in values])
        else:
            given = values
        if not isinstance(given, torch.Tensor):
            return False
        with torch.no_grad():
            self._rollout.observe(self.tally, {column: given})
            if column == RETURN and fault_of(given) is None:
                one = self.staging.reducer(given.device).one
                self._returns.append(torch.mul(given.reshape(-1)[: limits.EPISODES_PER_UPDATE_MAX], one))
        return True

    def refuse(self, call: str, status: Status) -> None:
        """Say of every column that a call feeds why it is missing."""
        for name in CALL_COLUMNS.get(call, ()):
            self.tally.refuse(name, status)
        if call == "recurrent":
            self._recurrent.refuse(self.tally, status)

    def finish(self) -> tuple[Underway | None, bool]:
        """Reduce what is staged and queue one copy per device: what is under way, if anything, and whether it is lost
        because every slot of a device is still on its way."""
        with torch.no_grad():
            vectors, underway = self._pack()
        if not vectors:
            return None, False
        ticket = self.transfer.submit(vectors)
        if ticket is None:
            return None, True
        underway.ticket = ticket
        return underway, False

    def abandon(self) -> None:
        """Drop what is staged, after a failure of ours: half a reduction must not leak into the next update."""
        self.staging = Staging(self._bytes_max)
        for collector in (self.policy, self._rollout, self._recurrent, self.exemplars, self.gradients):
            collector.staging = self.staging
        self._scalars, self._returns = {}, []
        self.exemplars.clear()
        self.gradients.clear()
        for small in self._small:
            small.staging = self.staging
            small.clear()
        if self._probe is not None:
            self._probe.staging = self.staging

    def _pack(self) -> tuple[list[list[torch.Tensor]], Underway]:
        underway = Underway(Ticket(), [])
        parts, nowhere = Parts(), SlicedRows()
        for vector, segment in self.staging.finish():
            parts.put([vector], SegmentReader(segment, nowhere if vector.is_meta else underway.sliced))
        for wanted, ns in self.staging.take_spent_ns().items():
            self._switches.charge(COLLECTOR_OF[wanted], ns)
        if self.staging.overflowed:
            self.staging.overflowed = False
            self.refuse("ppo", Status.INCOMPLETE)
            self.refuse("rollout", Status.INCOMPLETE)
            self.refuse("recurrent", Status.INCOMPLETE)
        self.policy.finish(parts)
        self.gradients.finish(parts)
        self.exemplars.finish(parts)
        if self.level >= Level.NORMAL:
            self._tell_memory()
            for small in self._small:
                small.finish(parts)
            if self._probe is not None:
                self._look(self._probe, parts)
        for (name, subject), row in self._scalars.items():
            parts.put([row], LastReader(name, subject))
        for row in self._returns:
            parts.put([row], EpisodeReader())
        self._scalars, self._returns = {}, []
        packed = []
        for device, held in parts.held.items():
            if device.type == META:
                self._refuse_unreadable(held, nowhere)
                continue
            vectors = [vector for part in held for vector in part.vectors]
            underway.readers.append([(part.reader, part.numbers) for part in held])
            underway.vectors += len(vectors)
            packed.append(vectors)
        return packed, underway

    def _refuse_unreadable(self, held: list[Part], sliced: SlicedRows) -> None:
        """A tensor on `meta` has no values: let its readers name the columns that they would feed, and say why those miss."""
        named = Tally()
        for part in held:
            part.reader.tell(named, [math.nan] * part.numbers)
        sliced.tell(named)
        for name, subject in (*named.parts, *named.reasons):
            self.tally.refuse(name, Status.DEVICE, subject)

    def _look(self, probe: Probe, parts: Parts) -> None:
        """The probe, if it is time and it may."""
        probe.level = self.level
        begin = time.perf_counter_ns()
        if probe.finish(self.tally, parts, rests=not self._switches.on("probe")):
            self._switches.charge("probe", time.perf_counter_ns() - begin, PERIOD.get(self.level, 1))

    def _tell_memory(self) -> None:
        """Add what torch has allocated, in every so many-th update."""
        due = self._updates >= READ_EVERY and self._switches.on("device_memory")
        self._updates = 1 if due else self._updates + 1
        if due:
            begin = time.perf_counter_ns()
            self._allocated = allocated_bytes(parameter.device for parameter in self.gradients.parameters)
            self._switches.charge("device_memory", time.perf_counter_ns() - begin, READ_EVERY)
        if self._allocated is None or not due:
            self.tally.refuse("sys.device_bytes", Status.UNDEFINED if self._allocated is None else Status.THINNED)
        else:
            self.tally.add("sys.device_bytes", (float(self._allocated),))

    def _capturing(self, tensors: Iterable[object], call: str) -> bool:
        """Whether a CUDA graph is being captured: what we launched would become a part of it."""
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                if tensor.device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
                    return False
                self.refuse(call, Status.CAPTURING)
                return True
        return False

    def detach(self) -> None:
        """Remove every hook from the trainer's objects."""
        self.gradients.detach()
