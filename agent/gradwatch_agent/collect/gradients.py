"""Gradients, parameters and optimizer: norms before clipping, weights at the end of an update, steps, learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from gradwatch_agent.collect.host import Tally, add_series, to_float
from gradwatch_agent.device.clip import CLIP_WATCH
from gradwatch_agent.device.reduce import least
from gradwatch_agent.guard import guarded
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gradwatch_agent.collect.host import Reader
    from gradwatch_agent.collect.policy import PolicyCollector
    from gradwatch_agent.collect.staging import Staging
    from gradwatch_agent.device.reduce import Reducer

NORMS_MAX = 16_384
"""Norms of one update: 128 kB, read one by one on the host."""

NORMS_HELD_MAX = 256
"""Norms held by reference: each takes 512 bytes of a CUDA allocator."""

COPY_BYTES_MAX = 64 * 1024 * 1024
"""Parameters copied for the update ratio at DEBUG; a larger model has none, THINNED."""

GRAD_COLUMNS = ("grad.norm", "grad.norm.max", "grad.norm.nonfinite", "grad.norm.nonfinite_mb")


@dataclass(slots=True)
class NormBuffer:
    """Norms of one device, and on the host the minibatch and the bound of each.

    They are held by reference and gathered by one `stack`: each is a number that torch just made, and its version tells
    whether anybody wrote to it since.
    """

    held: list[tuple[torch.Tensor, int]] = field(default_factory=list)
    gathered: list[torch.Tensor] = field(default_factory=list)
    minibatches: list[int] = field(default_factory=list)
    bounds: list[float | None] = field(default_factory=list)
    overwritten: bool = False

    def add(self, norm: torch.Tensor, minibatch: int, bound: float | None) -> None:
        """Take a 0-dim norm."""
        if norm.is_inference():  # has no version
            norm = norm.clone()
        self.held.append((norm, norm._version))
        self.minibatches.append(minibatch)
        self.bounds.append(bound)

    def gather(self, reducer: Reducer) -> None:
        """Copy the norms held; gradients must be off."""
        if self.held:
            self.overwritten |= any(norm._version != version for norm, version in self.held)
            self.gathered.append(reducer.vector([norm for norm, _ in self.held]))
            self.held = []


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
        self._buffers: dict[torch.device, NormBuffer] = {}
        self._before: dict[torch.device, list[torch.Tensor]] = {}
        self._clipped = False
        self._ratio_status = Status.LEVEL
        self.steps = 0
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
        self._buffers = {}

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
        """Stage the norm that clipping is about to use; of another order than 2, compute the L2 norm."""
        self._clipped = True
        if self.level < Level.NORMAL or _capturing(total_norm, self.tally):
            return
        if empty:
            _refuse(self.tally, Status.NO_GRADIENT)
        elif norm_type == 2.0:
            bound = to_float(max_norm)
            if bound is None:
                self.tally.refuse("grad.clipped", Status.DTYPE)
            self._hold(total_norm.detach() if total_norm.requires_grad else total_norm, bound)
        else:
            self.tally.refuse("grad.clipped", Status.UNDEFINED)
            self._measure([parameter.grad for parameter in parameters], None)

    @guarded
    def _before_step(self, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        """Count the step; measure the gradients when nothing clipped them."""
        if torch.compiler.is_compiling():
            return
        seen, self._clipped = self._clipped, False
        if self.level >= Level.NORMAL and not seen:
            held = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
            if not any(_capturing(grad, self.tally) for grad in held if grad is not None):
                self._measure(held, getattr(optimizer, "grad_scale", None))
        self.steps += 1
        self._policy.stepped = True

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
        buffer = self._buffers.get(norm.device)
        if buffer is None:
            buffer = self._buffers[norm.device] = NormBuffer()
        if len(buffer.minibatches) >= NORMS_MAX:
            _refuse(self.tally, Status.INCOMPLETE)
            return
        buffer.add(norm, max(0, self._policy.minibatches - 1), bound)
        if len(buffer.held) >= NORMS_HELD_MAX:
            with torch.no_grad():
                buffer.gather(self.staging.reducer(norm.device))

    def _copy_parameters(self) -> None:
        parameters = _by_device(self._parameters)
        nbytes = sum(tensor.numel() * tensor.element_size() for tensors in parameters.values() for tensor in tensors)
        if nbytes > COPY_BYTES_MAX:
            self._ratio_status = Status.THINNED
            return
        with torch.no_grad(), torch.inference_mode(False):
            self._before = {device: torch._foreach_mul(tensors, 1.0) for device, tensors in parameters.items()}  # type: ignore[misc]

    def finish(self) -> dict[torch.device, list[tuple[torch.Tensor, Reader]]]:
        """Return the vectors of this update by device, and what each is. Host facts go straight into the tally."""
        parts: dict[torch.device, list[tuple[torch.Tensor, Reader]]] = {}
        if self.level >= Level.MINIMAL:
            self._tell_rate(parts)
        if self.level < Level.NORMAL:
            return parts
        if self._optimizers:
            self.tally.add("opt.steps", (float(self.steps),))
        for device, buffer in self._buffers.items():
            parts.setdefault(device, []).append(self._gather(device, buffer))
        self._buffers = {}
        weights = Weights()
        for device, tensors in _by_device(self._parameters).items():
            parts.setdefault(device, []).append(self._weigh(device, tensors, weights))
        if self._parameters and not self._before:
            self.tally.refuse("opt.update_ratio", self._ratio_status if self.level >= Level.DEBUG else Status.LEVEL)
        return parts

    def _gather(self, device: torch.device, buffer: NormBuffer) -> tuple[torch.Tensor, Reader]:
        buffer.gather(self.staging.reducer(device))
        if buffer.overwritten:
            _refuse(self.tally, Status.INCOMPLETE)
        return torch.cat(buffer.gathered), NormReader(buffer.minibatches, buffer.bounds)

    def _weigh(self, device: torch.device, tensors: list[torch.Tensor], weights: Weights) -> tuple[torch.Tensor, Reader]:
        norms = self.staging.reducer(device).norms(_real(tensors))
        weights.waiting += 1
        before = self._before.pop(device, None)
        if before is None:
            return norms, WeightReader(weights, len(tensors))
        torch._foreach_sub_(before, tensors)
        moved = self.staging.reducer(device).norms(_real(before))
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


@dataclass(frozen=True, slots=True)
class NormReader:
    """Gradient norms: the minibatch of each, and the bound it was clipped to, None where it was not."""

    minibatches: list[int]
    bounds: list[float | None]

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See Reader."""
        norms = list(values)
        add_series(tally, "grad.norm", norms, self.minibatches)
        tally.add("grad.norm.max", (-least([-norm for norm in norms]),))
        pairs = [(norm, bound) for norm, bound in zip(norms, self.bounds, strict=True) if bound is not None]
        if pairs:
            tally.add("grad.clipped", (float(sum(norm > bound for norm, bound in pairs)),))


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
    grouped: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in tensors:
        if tensor.layout is torch.strided and not _wraps(tensor):
            grouped.setdefault(tensor.device, []).append(tensor.detach())
    return grouped


def _real(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Complex tensors as real ones of the same norm."""
    return [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]
