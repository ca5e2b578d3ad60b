"""Gradients, parameters and optimizer: norms before clipping, weights at the end of an update, steps, learning rate."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gradwatch_agent.collect.host import Tally, to_float
from gradwatch_agent.collect.series import Series
from gradwatch_agent.device.clip import CLIP_WATCH
from gradwatch_agent.device.reduce import copy_all, subtract_all
from gradwatch_agent.guard import guarded
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gradwatch_agent.collect.host import Reader
    from gradwatch_agent.collect.policy import PolicyCollector
    from gradwatch_agent.collect.staging import Staging

COPY_BYTES_MAX = 64 * 1024 * 1024
"""Parameters copied for the update ratio at DEBUG; a larger model has none, THINNED."""

GRAD_COLUMNS = ("grad.norm", "grad.norm.max", "grad.norm.nonfinite", "grad.norm.nonfinite_mb")


class GradientCollector:
    """Watches clipping and optimizer steps of one model."""

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        optimizers: Sequence[torch.optim.Optimizer],
        staging: Staging,
        policy: PolicyCollector,
        on_own_error: Callable[[str, str], None],
    ) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.numel()]
        self._optimizers = optimizers
        self.staging = staging
        self._policy = policy
        self._report = on_own_error
        self._norms = Series(staging, "grad.norm")
        self._before: dict[torch.device, list[torch.Tensor]] = {}
        self._clipped = False
        self._ratio_status = Status.LEVEL
        self.steps = 0
        self.spent_ns = 0
        self.level = Level.OFF
        self.tally = Tally()
        self._handles: list[Any] = [optimizer.register_step_pre_hook(self._before_step) for optimizer in optimizers]
        if parameters:
            CLIP_WATCH.watch(self._parameters, self)

    def _on_own_error(self, place: str, text: str) -> None:
        self._report(place, text)

    @property
    def has_optimizer(self) -> bool:
        """Whether steps can be seen."""
        return bool(self._optimizers)

    def clear(self) -> None:
        """Forget the norms of the running update."""
        self._norms = Series(self.staging, "grad.norm")

    def detach(self) -> None:
        """Remove every hook."""
        CLIP_WATCH.forget(self)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def begin(self, tally: Tally, level: Level) -> None:
        """A new update at `level`; at DEBUG the parameters are copied, to measure how far they move."""
        self.tally, self.level, self.steps, self._clipped = tally, level, 0, False
        self._ratio_status = Status.INCOMPLETE
        self._before = {}
        if level >= Level.DEBUG and self._parameters:
            self._copy_parameters()

    @guarded
    def on_clip(
        self, parameters: Sequence[torch.Tensor], total_norm: torch.Tensor, max_norm: object, norm_type: float, empty: bool
    ) -> None:
        """Take the norm that clipping is about to use; of another order than 2, compute the L2 norm."""
        begin = time.perf_counter_ns()
        self._take_norm(parameters, total_norm, max_norm, norm_type, empty)
        self.spent_ns += time.perf_counter_ns() - begin

    def _take_norm(
        self, parameters: Sequence[torch.Tensor], total_norm: torch.Tensor, max_norm: object, norm_type: float, empty: bool
    ) -> None:
        self._clipped = True
        if self.level < Level.NORMAL or _capturing(total_norm, self.tally):
            return
        if empty:
            _refuse(self.tally, Status.NO_GRADIENT)
        elif norm_type == 2.0:
            bound = to_float(max_norm)
            if bound is None:
                self.tally.refuse("grad.clipped", Status.DTYPE)
            self._hold(total_norm, bound)
        else:
            self.tally.refuse("grad.clipped", Status.UNDEFINED)
            self._measure([parameter.grad for parameter in parameters], None)

    @guarded
    def _before_step(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        """Count the step; measure the gradients when nothing clipped them."""
        if torch.compiler.is_compiling():
            return
        begin = time.perf_counter_ns()
        seen, self._clipped = self._clipped, False
        if self.level >= Level.NORMAL and not seen:
            held = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
            if not any(_capturing(grad, self.tally) for grad in held if grad is not None):
                self._measure(held, getattr(optimizer, "grad_scale", None))
        self.steps += 1
        self._policy.stepped = True
        self.spent_ns += time.perf_counter_ns() - begin

    def _measure(self, gradients: Sequence[torch.Tensor | None], scale: object) -> None:
        """Stage the float64 L2 norm of gradients on one device each; divide by the scale a fused AMP optimizer still has on."""
        usable: dict[torch.device, list[torch.Tensor]] = {}
        present = [gradient for gradient in gradients if gradient is not None]
        for gradient in present:
            if gradient.numel() and gradient.layout is torch.strided and not _wraps(gradient):
                usable.setdefault(gradient.device, []).append(gradient.detach())
        if not usable or len(usable) > 1:
            status = Status.DEVICE if usable else Status.DTYPE if present else Status.NO_GRADIENT
            _refuse(self.tally, status)
            return
        with torch.no_grad():
            for device, tensors in usable.items():
                norm = torch.linalg.vector_norm(self.staging.reducer(device).norms(_real(tensors)), 2)
                self._hold(norm / scale if isinstance(scale, torch.Tensor) else norm, None)

    def _hold(self, norm: torch.Tensor, bound: float | None) -> None:
        if not self._norms.add(norm, max(0, self._policy.minibatches - 1), bound):
            _refuse(self.tally, Status.INCOMPLETE)

    def _copy_parameters(self) -> None:
        parameters = _by_device(self._parameters)
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
        if self._optimizers:
            self.tally.add("opt.steps", (float(self.steps),))
        for device, part in self._norms.finish().items():
            parts.setdefault(device, []).append(part)
        if self._norms.overwritten:
            _refuse(self.tally, Status.INCOMPLETE)
        self._norms = Series(self.staging, "grad.norm")
        if self._parameters and not self._before:
            self.tally.refuse("opt.update_ratio", self._ratio_status if self.level >= Level.DEBUG else Status.LEVEL)
        weights = Weights()
        for device, tensors in _by_device(self._parameters).items():
            parts.setdefault(device, []).append(self._weigh(device, tensors, weights))
        return parts

    def _weigh(self, device: torch.device, tensors: list[torch.Tensor], weights: Weights) -> tuple[torch.Tensor, Reader]:
        norms = self.staging.reducer(device).norms(_real(tensors))
        weights.waiting += 1
        before = self._before.pop(device, None)
        if before is None:
            return norms, WeightReader(weights, len(tensors))
        moved = self.staging.reducer(device).norms(_real(subtract_all(before, tensors)))
        return torch.cat([norms, moved]), WeightReader(weights, len(tensors))

    def _tell_rate(self, parts: dict[torch.device, list[tuple[torch.Tensor, Reader]]]) -> None:
        """Learning rate of the first group; a tensor one travels with the others, since reading it would wait."""
        if not self._optimizers:
            return
        rate = self._optimizers[0].param_groups[0].get("lr")
        number = to_float(rate)
        if number is not None:
            self.tally.add("opt.lr", (number,))
        elif isinstance(rate, torch.Tensor) and rate.numel() == 1 and not rate.is_complex():
            vector = self.staging.reducer(rate.device).vector([rate.detach().reshape(())])
            parts.setdefault(rate.device, []).append((vector, LastReader("opt.lr", "")))
        else:
            self.tally.refuse("opt.lr", Status.DTYPE)


@dataclass(frozen=True, slots=True)
class LastReader:
    """One number that is a column as it stands."""

    name: str
    subject: str

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See Reader."""
        tally.add(self.name, (values[0],), self.subject)


@dataclass(slots=True)
class Weights:
    """Adds up the weights of a model spread over devices: sums of squares, and how many devices are still to come."""

    waiting: int = 0
    square: float = 0.0
    moved_square: float = 0.0
    nonfinite: int = 0


@dataclass(frozen=True, slots=True)
class WeightReader:
    """Norms of `tensors` weights and, after them, if they were copied, of their changes."""

    weights: Weights
    tensors: int

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See Reader; the last device tells for all."""
        weights, norms, moved = self.weights, values[: self.tensors], values[self.tensors :]
        weights.square += sum([norm * norm for norm in norms])
        weights.nonfinite += sum([not math.isfinite(norm) for norm in norms])
        weights.moved_square += sum([norm * norm for norm in moved]) if moved else math.nan
        weights.waiting -= 1
        if weights.waiting:
            return
        total = math.sqrt(weights.square)
        tally.add("param.norm", (total,))
        tally.add("param.nonfinite", (float(weights.nonfinite),))
        if moved and total == 0:
            tally.refuse("opt.update_ratio", Status.UNDEFINED)
        elif moved:
            tally.add("opt.update_ratio", (math.sqrt(weights.moved_square) / total,))


def _refuse(tally: Tally, status: Status) -> None:
    for name in (*GRAD_COLUMNS, "grad.clipped"):
        tally.refuse(name, status)


def _capturing(tensor: torch.Tensor, tally: Tally) -> bool:
    """Whether a CUDA graph is being captured: what we launched would be replayed with it."""
    if tensor.device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
        return False
    _refuse(tally, Status.CAPTURING)
    return True


def _wraps(tensor: torch.Tensor) -> bool:
    """A DTensor or another subclass, whose norm would be a collective."""
    return type(tensor) not in {torch.Tensor, torch.nn.Parameter}


def _by_device(tensors: Sequence[torch.Tensor]) -> dict[torch.device, list[torch.Tensor]]:
    """Dense plain tensors by where they are now; a model may move between updates."""
    grouped: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in tensors:
        if tensor.layout is torch.strided and not _wraps(tensor):
            grouped.setdefault(tensor.device, []).append(tensor)
    return grouped


def _real(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Complex tensors as real ones of the same norm."""
    return [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]
