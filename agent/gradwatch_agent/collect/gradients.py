"""Gradients, parameters and optimizer: norms before clipping, weights at the end of an update, steps, learning rate."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch
from torch.compiler import is_compiling

from gradwatch_agent.collect.collectors import Switches
from gradwatch_agent.collect.groups import ParameterGroups
from gradwatch_agent.collect.host import LOGGER, LastReader, Tally, to_float
from gradwatch_agent.collect.layers import Broken, Layers
from gradwatch_agent.collect.members import Members
from gradwatch_agent.collect.second_moments import SecondMoments
from gradwatch_agent.collect.series import Series
from gradwatch_agent.collect.skipped import SkippedSteps
from gradwatch_agent.collect.tensor_norms import NORM_COLUMNS, TensorNorms
from gradwatch_agent.collect.tensors import META, as_real, by_device, is_dense
from gradwatch_agent.collect.weights import WeightReader, Weights
from gradwatch_agent.device.clip import CLIP_WATCH
from gradwatch_agent.device.reduce import copy_all, subtract_all
from gradwatch_agent.device.transfer import host_value
from gradwatch_agent.guard import is_strict, note_own_error
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gradwatch_agent.collect.host import Reader
    from gradwatch_agent.collect.policy import PolicyCollector
    from gradwatch_agent.collect.staging import Staging
    from gradwatch_agent.collect.tensor_norms import Runs
    from gradwatch_agent.device.clip import Clip

NORMAL = Level.NORMAL

COPY_BYTES_MAX = 64 * 1024 * 1024
"""Parameters copied for the update ratio at DEBUG; a larger model has none, THINNED."""

GRAD_COLUMNS = ("grad.norm", "grad.norm.max", "grad.norm.nonfinite", "grad.norm.nonfinite_mb", *NORM_COLUMNS)
LIMIT_COLUMNS = ("grad.clipped", "grad.clip_limit")
WEIGHT_COLUMNS = ("param.norm", "param.nonfinite", "opt.update_ratio")

OTHER_TORCH = (
    "this torch clips gradients in a way not known here; gradient norms are taken at optimizer.step(), so after any clipping."
)

Named = tuple[str, "torch.Tensor"]


class GradientCollector:
    """Watches clipping and optimizer steps of one model."""

    def __init__(
        self,
        parameters: Sequence[Named],
        optimizers: Sequence[torch.optim.Optimizer],
        staging: Staging,
        policy: PolicyCollector,
        on_own_error: Callable[[str, str], None],
        *,
        switches: Switches | None = None,
    ) -> None:
        filled = [(name, parameter) for name, parameter in parameters if parameter.numel()]
        self.names = [name for name, _ in filled]
        self._has_empty = len(filled) < len(parameters)  # torch takes their norm too: 0, which would pass for a vanishing one
        self.parameters = [parameter for _, parameter in filled]
        self._members = Members(self.parameters)
        self._optimizers = optimizers
        self._switches = switches or Switches()
        self.staging = staging
        self._policy = policy
        self._report = on_own_error
        self._norms = Series(staging, "grad.norm")
        self._tensors = TensorNorms(staging)
        self._second = SecondMoments(staging)
        self._skipped = SkippedSteps(self.parameters)
        self._broken = Broken()
        self._groups = ParameterGroups(optimizers)
        self._before: dict[torch.device, list[torch.Tensor]] = {}
        self._clipped: set[int | None] = set()
        self._cuda = torch.cuda.is_available()
        self._bound: tuple[object, object, float | None] = (None, None, None)
        self._ratio_status = Status.LEVEL
        self._rate: object = None
        self.steps = 0
        self.clips = 0
        self.compiled = False
        self.asks = False
        """Whether `minibatch` is to be called."""
        self.spent_ns = 0
        self.level = Level.OFF
        self.tally = Tally()
        self._handles: list[Any] = [optimizer.register_step_pre_hook(self._before_step) for optimizer in optimizers]
        self._handles += [optimizer.register_step_post_hook(self._after_step) for optimizer in optimizers]
        if parameters and not CLIP_WATCH.watch([parameter for _, parameter in parameters], self):
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
        self._norms = Series(self.staging, "grad.norm")
        self._tensors = TensorNorms(self.staging)

    def detach(self) -> None:
        """Remove every hook."""
        CLIP_WATCH.forget(self)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._members.forget()

    def begin(self, tally: Tally, level: Level) -> None:
        """A new update at `level`; at DEBUG the parameters are copied, to measure how far they move."""
        self.tally, self.level, self.steps, self.clips = tally, level, 0, 0
        self._clipped.clear()
        self.compiled = False
        self.asks = bool(self._optimizers)
        self._ratio_status = Status.INCOMPLETE
        self._before = {}
        self._bound = (None, None, None)
        CLIP_WATCH.want_parts(self, level >= Level.NORMAL)
        if level < Level.NORMAL:
            return
        self._skipped.begin()
        self._groups.look()
        self._skipped.belong(self._groups.owners)
        if level >= Level.DEBUG and self.parameters and self._switches.on("update_ratio"):
            before = time.perf_counter_ns()
            self._copy_parameters()
            self._switches.charge("update_ratio", time.perf_counter_ns() - before)

    def minibatch(self) -> None:
        """`ppo()` is called."""
        self.asks = self.compiled or not self._skipped.used_clip
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
                self._take_norms(clip)
        except Exception as error:
            if is_strict():
                raise
            note_own_error(self, "GradientCollector.on_clip", error)
        self.spent_ns += time.perf_counter_ns() - begin

    def _take_norms(self, clip: Clip) -> None:
        parameters, total, parts, max_norm, norm_type, empty = clip
        # These steps need not measure the gradients again, and would find what clipping left.
        if len(self._optimizers) == 1:
            self._clipped.add(id(self._optimizers[0]))
        else:
            self._clipped.update([self._groups.owners.get(id(parameter)) for parameter in parameters])
        self._skipped.clip(parameters)
        if self._cuda and _capturing(total, self.tally):
            return
        given, order, bound = self._bound
        if given is not max_norm or order != norm_type:
            bound = self._limit(clip)
            self._bound = (max_norm, norm_type, bound)
        if empty:
            _refuse(self.tally, Status.NO_GRADIENT)
            return
        known = host_value(total)
        if norm_type != 2.0:
            self._measure(parameters, None, None)
        elif known is not None and not math.isfinite(known):
            self._measure(parameters, None, bound)
        elif parts is not None and not self._has_empty:
            self._hold(total if known is None else known, parts, parameters, bound)
        else:
            self._measure(parameters, None, bound, total=total)

    def _limit(self, clip: Clip) -> float | None:
        """The norm that clipping allows; None, with the reason told, when there is none. Trainers clip to infinity just to
        get the norm."""
        limit = to_float(clip.max_norm)
        status = Status.DTYPE if limit is None else Status.UNDEFINED
        if limit is not None and clip.norm_type == 2.0 and 0 < limit < math.inf:
            self.tally.parts["grad.clip_limit", ""] = (limit,)
            return limit
        for name in (*LIMIT_COLUMNS, "grad.exploding"):
            self.tally.refuse(name, status)
        return None

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """See `_see_step`; with a closure the gradients are computed within the step, and clipped there."""
        if not _has_closure(args, kwargs):
            self._see_step(optimizer)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if _has_closure(args, kwargs):
            self._see_step(optimizer)

    def _see_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Count the step; measure the gradients when nothing clipped them."""
        if is_compiling():
            self.compiled = self.asks = True  # all of ours in the compiled step: it is done again whenever that runs
            return
        begin = time.perf_counter_ns()
        try:  # what `guarded` does, one call less deep
            if self.level >= NORMAL:
                name = id(optimizer)
                self._skipped.step(name)
                if name in self._clipped:
                    self._clipped.discard(name)
                else:
                    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
                    if not (self._cuda and any(_capturing(parameter, self.tally) for parameter in held)):
                        self._measure(held, getattr(optimizer, "grad_scale", None), None)
            if not self.steps and self.level >= Level.DEBUG and self._switches.on("second_moments"):
                before = time.perf_counter_ns()
                self._second.observe(self.tally, optimizer)
                self._switches.charge("second_moments", time.perf_counter_ns() - before)
        except Exception as error:
            if is_strict():
                raise
            note_own_error(self, "GradientCollector._before_step", error)
        self.steps += 1
        if optimizer is self._optimizers[0]:
            self._rate = optimizer.param_groups[0].get("lr")
        self._policy.stepped = True
        self.spent_ns += time.perf_counter_ns() - begin

    def _measure(
        self, parameters: Sequence[torch.Tensor], scale: object, bound: float | None, total: torch.Tensor | None = None
    ) -> None:
        """Take the L2 norm of gradients on one device; divide by the scale a fused AMP optimizer still has on. `total` is
        what clipping computed, if it did."""
        usable: dict[torch.device, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        fault = Status.NO_GRADIENT
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None or not gradient.numel():
                continue
            if not is_dense(gradient):  # the norm of the others must not pass for that of all
                fault = Status.DTYPE
                break
            fault = Status.DEVICE
            owners, tensors = usable.setdefault(gradient.device, ([], []))
            owners.append(parameter)
            tensors.append(gradient.detach())
        if len(usable) != 1 or fault is Status.DTYPE:
            _refuse(self.tally, fault)
            for name in self._groups.names:
                self.tally.refuse("grad.group_norm", fault, name)
            return
        ((device, (owners, tensors)),) = usable.items()
        with torch.no_grad():
            norms = self.staging.reducer(device).norms(as_real(tensors))
            if isinstance(scale, torch.Tensor):
                norms = norms / scale
            if total is None:
                total = torch.linalg.vector_norm(norms, 2, dtype=self.staging.reducer(device).dtype)
        self._hold(total, norms, owners, bound)

    def _hold(
        self, total: torch.Tensor | float, norms: torch.Tensor, parameters: Sequence[torch.Tensor], bound: float | None
    ) -> None:
        """Keep the norms of one call; `total` as a number where it is known on the host."""
        minibatch = self._policy.minibatches - 1
        if not self._norms.add(total, minibatch if minibatch > 0 else 0, bound):
            _refuse(self.tally, Status.INCOMPLETE)
            return
        groups: Runs = ()
        if self._groups.names:
            groups = self._groups.runs([id(parameter) for parameter in parameters if parameter.grad is not None])
        self._tensors.add(norms, bound, groups, self._members.of(parameters, norms.shape[0]))

    def _copy_parameters(self) -> None:
        parameters = by_device(self.parameters)
        nbytes = sum(tensor.numel() * tensor.element_size() for tensors in parameters.values() for tensor in tensors)
        if nbytes > COPY_BYTES_MAX:
            self._ratio_status = Status.THINNED
            return
        with torch.no_grad(), torch.inference_mode(False):
            self._before = {device: copy_all(tensors) for device, tensors in parameters.items()}

    def finish(self) -> dict[torch.device, list[tuple[torch.Tensor, Reader]]]:
        """Return the vectors of this update by device, and what each is. Host facts go straight into the tally."""
        parts: dict[torch.device, list[tuple[torch.Tensor, Reader]]] = {}
        if self.level >= Level.MINIMAL:
            self._tell_rate(parts)
        if self.level < Level.NORMAL:
            return parts
        if self.compiled:  # how many steps there were, nobody counts
            self.tally.refuse("opt.steps", Status.UNDEFINED)
            self.tally.refuse("opt.skipped", Status.UNDEFINED)
            _refuse(self.tally, Status.UNDEFINED)
        elif self._optimizers:
            self.tally.add("opt.steps", (float(self.steps),))
            self._skipped.tell(self.tally)
        debug = self.level >= Level.DEBUG
        layers = Layers(self.names) if debug else None
        for device, part in self._norms.finish(self.tally).items():
            parts.setdefault(device, []).append(part)
        for device, tensor_parts in self._tensors.finish(layers).items():
            parts.setdefault(device, []).extend(tensor_parts)
        for device, moment_parts in self._second.finish().items():
            parts.setdefault(device, []).extend(moment_parts)
        if self._norms.overwritten or self._tensors.overflowed:
            _refuse(self.tally, Status.INCOMPLETE)
        if self.steps or self.clips:
            for name in self._groups.names:
                self.tally.refuse("grad.group_norm", Status.NO_GRADIENT, name)
        self.clear()
        if self.parameters and not self._before:
            self.tally.refuse("opt.update_ratio", self._ratio_status if self.level >= Level.DEBUG else Status.LEVEL)
        self._weigh_all(parts, layers)
        return parts

    def _weigh_all(self, parts: dict[torch.device, list[tuple[torch.Tensor, Reader]]], layers: Layers | None) -> None:
        """Add the norms of the weights. Where some cannot be taken, none is told: the others must not pass for all."""
        weights, dense = Weights(self.names, self._broken, layers), 0
        for device, tensors in by_device(self.parameters).items():
            told = Weights(self.names, Broken(), None) if device.type == META else weights
            parts.setdefault(device, []).append(self._weigh(device, tensors, told))
            dense += len(tensors)
        if dense < len(self.parameters):
            for name in WEIGHT_COLUMNS[: 3 if self.level >= Level.DEBUG else 2]:
                self.tally.refuse(name, Status.DTYPE)

    def _weigh(self, device: torch.device, tensors: list[torch.Tensor], weights: Weights) -> tuple[torch.Tensor, Reader]:
        reducer = self.staging.reducer(device)
        norms = reducer.norms(as_real(tensors))
        weights.waiting += 1
        members = self._members.of(tensors, len(tensors))
        before = self._before.pop(device, None)
        if before is None:
            return norms, WeightReader(weights, members)
        begin = time.perf_counter_ns()
        # One difference at a time: all of them together would be a third copy of the model.
        moved = [reducer.norms(as_real(subtract_all([old], [new]))) for old, new in zip(before, tensors, strict=True)]
        self._switches.charge("update_ratio", time.perf_counter_ns() - begin)
        return torch.cat([norms, *moved]), WeightReader(weights, members)

    def _tell_rate(self, parts: dict[torch.device, list[tuple[torch.Tensor, Reader]]]) -> None:
        """Learning rate of the first group as the last step used it: a schedule may have moved on since. A tensor one travels
        with the others, since reading it would wait."""
        if not self._optimizers:
            return
        rate = self._rate if self.steps else self._optimizers[0].param_groups[0].get("lr")
        number = to_float(rate)
        if number is not None:
            self.tally.add("opt.lr", (number,))
        elif isinstance(rate, torch.Tensor) and rate.numel() == 1 and not rate.is_complex():
            vector = self.staging.reducer(rate.device).vector([rate.detach().reshape(())])
            parts.setdefault(rate.device, []).append((vector, LastReader("opt.lr", "")))
        else:
            self.tally.refuse("opt.lr", Status.DTYPE)


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether `step` was given one; `args` begins with the optimizer."""
    return len(args) > 1 and args[1] is not None if not kwargs else kwargs.get("closure") is not None


def _refuse(tally: Tally, status: Status) -> None:
    for name in (*GRAD_COLUMNS, *LIMIT_COLUMNS):
        tally.refuse(name, status)


def _capturing(tensor: torch.Tensor, tally: Tally) -> bool:
    """Whether a CUDA graph is being captured: what we launched would be replayed with it."""
    if tensor.device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
        return False
    _refuse(tally, Status.CAPTURING)
    return True
