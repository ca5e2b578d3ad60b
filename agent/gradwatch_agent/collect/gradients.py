"""Gradients, parameters and optimizer: norms before clipping, weights at the end of an update, steps, learning rate."""

from __future__ import annotations

import math
import time
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.compiler import is_dynamo_compiling as is_compiling

from gradwatch_agent.collect.clips import NOTES_MAX, Clipped, Usual
from gradwatch_agent.collect.collectors import Switches
from gradwatch_agent.collect.gradient_norms import GradientNorms
from gradwatch_agent.collect.groups import ParameterGroups
from gradwatch_agent.collect.host import LOGGER, LastReader, Tally
from gradwatch_agent.collect.layers import Layers
from gradwatch_agent.collect.learning_rate import rate_of
from gradwatch_agent.collect.members import KNOWN_MAX, OUTSIDE, Members
from gradwatch_agent.collect.second_moments import SecondMoments
from gradwatch_agent.collect.skipped import SkippedSteps
from gradwatch_agent.collect.steppers import Steppers
from gradwatch_agent.collect.weighing import Weighing
from gradwatch_agent.device.clip import CLIP_WATCH
from gradwatch_agent.device.transfer import host_value
from gradwatch_agent.guard import guarded, is_strict, note_own_error
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gradwatch_agent.collect.clips import Note
    from gradwatch_agent.collect.learning_rate import Rate
    from gradwatch_agent.collect.model import Model
    from gradwatch_agent.collect.parts import Parts
    from gradwatch_agent.collect.policy import PolicyCollector
    from gradwatch_agent.collect.staging import Staging
    from gradwatch_agent.device.clip import Clip

NORMAL = Level.NORMAL

OTHER_TORCH = (
    "this torch clips gradients in a way not known here; gradient norms are taken at optimizer.step(), so after any clipping."
)


class GradientCollector:
    """Watches clipping and optimizer steps of one model."""

    def __init__(
        self,
        model: Model,
        optimizers: Sequence[torch.optim.Optimizer],
        staging: Staging,
        policy: PolicyCollector,
        on_own_error: Callable[[str, str], None],
        *,
        switches: Switches | None = None,
    ) -> None:
        self._model, self._version = model, model.version
        self.names, self.parameters = model.names, model.tensors
        self._steppers = Steppers(optimizers, model.numbers, self._before_step, self._meet)
        self._optimizers = self._steppers.known
        self._switches = switches or Switches()
        self.staging = staging
        self._policy = policy
        self._report = on_own_error
        self._second = SecondMoments(staging)
        self._skipped = SkippedSteps(self.parameters)
        self._groups = ParameterGroups(self._optimizers)
        members = Members(model.numbers)
        self._norms = GradientNorms(staging, self._groups, members, policy)
        self._weighing = Weighing(model, members, self._switches)
        self._clipped = Clipped()
        self._cuda = torch.cuda.is_available()
        self._usual: dict[int, Usual] = {}
        """By the id of the first parameter."""
        self._notes: list[Note] = []
        self._told: Usual | None = None
        """Whose limit the running update has."""
        self._firsts: dict[int, torch.Tensor] = {}
        """id of an optimizer → its first parameter."""
        self._rate: Rate = Status.UNDEFINED
        self.steps = 0
        self.clips = 0
        self.compiled = False
        self.unseen = False
        """Whether an optimizer that is not known has moved weights in this update."""
        self.asks = False
        """Whether `minibatch` is to be called."""
        self.spent_ns = 0
        self.level = Level.OFF
        self.tally = Tally()
        self._heard: set[int] = set()
        """Parameters, by id, whose clips are told to us."""
        if model.every and not self._hear():
            LOGGER.warning("gradwatch: %s", OTHER_TORCH)

    def _on_own_error(self, place: str, text: str) -> None:
        self._report(place, text)

    @property
    def has_optimizer(self) -> bool:
        """Whether steps can be seen."""
        return bool(self._optimizers)

    def clear(self) -> None:
        """Forget the norms of the running update."""
        self._second.staging = self.staging
        self._second.clear()
        self._norms.clear(self.staging)
        self._notes = []

    def detach(self) -> None:
        """Remove every hook."""
        CLIP_WATCH.forget(self)
        self._steppers.detach()
        self._norms.members.forget()
        self._groups.forget()
        self._model.forget()
        self._usual.clear()
        self._notes.clear()

    def begin(self, tally: Tally, level: Level) -> None:
        """A new update at `level`; at DEBUG the parameters are copied, to measure how far they move."""
        self.tally, self.level, self.steps, self.clips = tally, level, 0, 0
        self._norms.tally = tally
        self._clipped.clear()
        self.compiled = self.unseen = False
        self.asks = bool(self._optimizers)
        self._notes, self._told = [], None
        CLIP_WATCH.want_parts(self, level >= Level.NORMAL)
        self._steppers.begin()
        self._weighing.begin(level)
        if level >= Level.NORMAL:
            self._skipped.begin()
            self._learn_owners()

    def _hear(self) -> bool:
        if self._heard:
            CLIP_WATCH.drop(self)
        self._heard = set(map(id, self._model.every))
        return CLIP_WATCH.watch(self._model.every, self)

    def _look(self) -> bool:
        """See whether the model has other parameters than at the last look, and go on with these. Whether some are there of
        which a clip was not heard."""
        self._model.look()
        if self._version == self._model.version:
            return False
        self._version = self._model.version
        self._usual.clear()
        self._told = None
        self._norms.members.forget()
        self._weighing.forget()
        self._groups.forget()
        self._learn_owners()
        self._steppers.begin()
        unheard = not self._heard.issuperset(map(id, self._model.every))
        if unheard:
            self._hear()
        return unheard

    def _learn_owners(self) -> None:
        if self._groups.look():
            self._usual.clear()
        self._skipped.belong(self._groups.owners)
        self._firsts = self._skipped.firsts

    @guarded
    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Watch another optimizer of these parameters from now on, also in the place of one."""
        if any(optimizer is known for known in self._optimizers):
            return
        gone = self._steppers.add(optimizer)
        self._clipped.inherit(gone, id(optimizer))
        self._learn_owners()

    @guarded
    def _meet(self, optimizer: torch.optim.Optimizer) -> None:
        if self._steppers.moves_ours(optimizer):
            self.follow(optimizer)

    def minibatch(self) -> None:
        """`ppo()` is called."""
        self._work_up()
        self.asks = self.compiled or not self._skipped.used_clip or self._skipped.kept is not None
        if self._optimizers and not self._skipped.used_clip:
            self._skipped.minibatch()
        if self.compiled:
            self._policy.stepped = True

    def on_clip(self, clip: Clip) -> None:
        """Take the norms that clipping is about to use; of another order than 2, compute the L2 norms."""
        begin = time.perf_counter_ns()
        try:  # what `guarded` does, one call less deep
            self.clips += 1
            if self.level >= NORMAL:
                parameters, total, parts, _, _, _ = clip
                usual = self._usual.get(id(parameters[0]))
                known = host_value(total) if total is not None and usual is not None and usual.fits(clip) else None
                gradient = parameters[0].grad
                if usual is not None and gradient is not None and known is not None and math.isfinite(known):
                    whole, rest = usual.covered
                    self._clipped.whole |= whole
                    if rest:
                        self._clipped.leave(rest)
                    self._notes.append((usual, known, parts, weakref.ref(gradient), self._policy.minibatches))
                    if len(self._notes) >= NOTES_MAX:
                        self._work_up()
                else:
                    self._work_up()
                    self._take_norms(clip)
        except Exception as error:
            if is_strict():
                raise
            note_own_error(self, "GradientCollector.on_clip", error)
        self.spent_ns += time.perf_counter_ns() - begin

    def _work_up(self) -> None:
        """Do what was put off, in the order of the calls."""
        notes, self._notes = self._notes, []
        for usual, known, parts, gradient, number in notes:
            if usual is None:
                self._skipped.step_with(number, gradient)
            elif parts is not None and gradient is not None:
                self._skipped.clip_of(id(usual.parameters[0]), gradient)
                if self._told is not usual:
                    self._told = usual
                    self._norms.limit(usual.max_norm, 2.0)
                self._norms.hold(known, parts, usual.bound, usual.named, number)

    def _take_norms(self, clip: Clip) -> None:
        """Of a clip unlike the ones before."""
        parameters, total, parts, max_norm, norm_type, gradients = clip
        self._look()
        # These steps need not measure the gradients again, and would find what clipping left.
        covered = self._groups.covered(parameters)
        self._clipped.add(covered)
        self._skipped.clip(parameters)
        if self._cuda and self._norms.capturing(parameters[0]):
            return
        if self._model.is_flat:
            self._norms.refuse(Status.DTYPE, groups=True)
            return
        bound, self._told = self._norms.limit(max_norm, norm_type), None
        if not gradients:
            self._norms.refuse(Status.NO_GRADIENT)
            return
        known = None if total is None else host_value(total)
        whole = total if known is None else known
        if norm_type != 2.0 or whole is None:
            self._norms.measure(parameters, None, bound)
        elif parts is not None and (known is None or math.isfinite(known)) and not self._model.has_empty:
            named = self._norms.named(parameters, parts)
            members = named[1]
            if len(members) == len(parameters) == gradients and OUTSIDE not in members and isinstance(max_norm, (float, int)):
                if len(self._usual) >= KNOWN_MAX:
                    self._usual.clear()
                self._usual[id(parameters[0])] = Usual(list(parameters), named, covered, max_norm, bound)
            self._norms.hold(whole, parts, bound, named, self._policy.minibatches)
        else:
            self._norms.measure(parameters, None, bound, total=whole)

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """See `_see_step`; with a closure the gradients are computed within the step, and clipped there."""
        if is_compiling():
            self.compiled = self.asks = True  # all of ours in the compiled step: it is done again whenever that runs
            return
        begin = time.perf_counter_ns()
        try:  # what `guarded` does, one call less deep: an exception of a hook would leave `optimizer.step()`
            if (len(args) > 1 or kwargs) and _has_closure(args, kwargs):
                self._steppers.hear_of_ends(optimizer, self._after_step)
                return
            name, clipped = id(optimizer), self._clipped.whole
            if self.asks or not self.steps or name not in clipped or name not in self._firsts:
                self._see_step(optimizer)
            else:
                clipped.discard(name)
                if self._clipped.rest:
                    self._clipped.rest.pop(name, None)
                gradient = self._firsts[name].grad
                self._notes.append((None, 0.0, None, None if gradient is None else weakref.ref(gradient), name))
                self._count(optimizer)
        except Exception as error:
            if is_strict():
                raise
            note_own_error(self, "GradientCollector._before_step", error)
        self.spent_ns += time.perf_counter_ns() - begin

    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if _has_closure(args, kwargs):
            self._see_closed(optimizer)

    @guarded
    def _see_closed(self, optimizer: torch.optim.Optimizer) -> None:
        begin = time.perf_counter_ns()
        self._see_step(optimizer)
        self.spent_ns += time.perf_counter_ns() - begin

    def _see_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Measure the gradients when nothing clipped them; count the step, also where that failed."""
        try:
            if self.level >= NORMAL:
                name = id(optimizer)
                self._work_up()
                self._skipped.step(name)
                self._measure(optimizer, self._clipped.take(name))
            if not self.steps and self.level >= Level.DEBUG and self._switches.on("second_moments"):
                before = time.perf_counter_ns()
                self._second.observe(self.tally, optimizer, flat=self._model.is_flat)
                self._switches.charge("second_moments", time.perf_counter_ns() - before)
        except Exception as error:
            if is_strict():
                raise
            note_own_error(self, "GradientCollector._before_step", error)
        self._count(optimizer)

    def _measure(self, optimizer: torch.optim.Optimizer, rest: list[torch.Tensor] | None) -> None:
        """Take the norms of the gradients that were not clipped: of all, or of the `rest`, where that has some."""
        if rest is None and self._look():  # what was clipped would pass for what was not
            self._norms.refuse(Status.INCOMPLETE, groups=True)
            return
        if self._model.is_flat:
            self._norms.refuse(Status.DTYPE, groups=True)
            return
        if rest is None:
            held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        else:
            held = [parameter for parameter in rest if parameter.grad is not None]
        if (held or rest is None) and not (self._cuda and any(self._norms.capturing(parameter) for parameter in held)):
            self._norms.measure(held, getattr(optimizer, "grad_scale", None), None, clipped=False)

    def _count(self, optimizer: torch.optim.Optimizer) -> None:
        self.steps += 1
        self._policy.stepped = True
        if optimizer is self._optimizers[0]:
            self._rate = rate_of(optimizer)

    def finish(self, parts: Parts) -> None:
        """Hand over what was measured in this update. Host facts go straight into the tally."""
        self._work_up()
        if self.level >= Level.MINIMAL:
            self._look()
            stepped = self._skipped.stepped if self.level >= Level.NORMAL else self._steppers.ids if self.steps else ()
            self.unseen = not self.compiled and self._steppers.moved_unseen(stepped)
            self._tell_rate(parts)
        if self.level < Level.NORMAL:
            return
        if self.compiled or self.unseen:  # how many steps there were, nobody counts
            self.tally.refuse("opt.steps", Status.UNDEFINED)
            self.tally.refuse("opt.skipped", Status.UNDEFINED)
        if self.compiled:
            self._norms.refuse(Status.UNDEFINED)
        elif not self.unseen and self._optimizers:
            self.tally.add("opt.steps", (float(self.steps),))
            self._skipped.tell(self.tally)
        layers = Layers(self.names) if self.level >= Level.DEBUG else None
        self._norms.finish(parts, layers)
        self._second.finish(parts)
        if self.steps or self.clips:
            for name in self._groups.names:
                self.tally.refuse("grad.group_norm", Status.NO_GRADIENT, name)
        self.clear()
        self._weighing.finish(self.tally, parts, self.staging, layers)

    def _tell_rate(self, parts: Parts) -> None:
        """Learning rate of the first group as the last step used it: a schedule may have moved on since. That of a device
        travels with the others, since reading it would wait."""
        if not self._optimizers:
            return
        rate = Status.UNDEFINED if self.unseen else self._rate if self.steps else rate_of(self._optimizers[0])
        if isinstance(rate, Status):
            self.tally.refuse("opt.lr", rate)
        elif isinstance(rate, float):
            self.tally.add("opt.lr", (rate,))
        else:
            vector = self.staging.reducer(rate.device).vector([rate.reshape(())])
            parts.put([vector], LastReader("opt.lr", ""))


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether `step` was given one; `args` begins with the optimizer."""
    return len(args) > 1 and args[1] is not None if not kwargs else kwargs.get("closure") is not None
