"""How far Adam's second moment lags behind the gradients, at the first optimizer step of an update.

The first, because a new rollout raises the gradients, and only equal places in an update compare. What is computed is what
the step is about to use: v with the gradient in it, bias-corrected, so the state is only read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from gradwatch_agent.collect.host import to_float
from gradwatch_agent.collect.tensors import FLOATS, is_plain
from gradwatch_agent.device.transfer import host_value
from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.collect.parts import Parts
    from gradwatch_agent.collect.staging import Staging

ELEMENTS_MAX = 16 * 1024 * 1024
"""Elements looked at; a larger model is THINNED: six passes over it would be a visible part of its update."""

BATCH_ELEMENTS_MAX = 128 * 1024
"""Elements of small parameters that are looked at together: each operation on a bias of 64 costs as much as on these."""

COLUMNS = ("opt.adam.rms", "opt.adam.v_max")


class Alike(NamedTuple):
    """What parameters must have in common to be looked at together. `step`: the steps taken, as a tensor (which equals itself
    alone) where it is not on the host."""

    device: torch.device
    dtypes: tuple[torch.dtype, torch.dtype]
    decay: float
    eps: float
    step: Any


@dataclass(slots=True)
class Batch:
    """Gradients and second moments of parameters that are alike: many small ones, or one large one."""

    gradients: list[torch.Tensor] = field(default_factory=list)
    moments: list[torch.Tensor] = field(default_factory=list)
    elements: int = 0

    def takes(self, gradient: torch.Tensor) -> bool:
        """Whether there is room."""
        return self.elements + gradient.numel() <= BATCH_ELEMENTS_MAX

    def put(self, gradient: torch.Tensor, moment: torch.Tensor) -> None:
        """Add a parameter."""
        self.gradients.append(gradient)
        self.moments.append(moment)
        self.elements += gradient.numel()


class SecondMoments:
    """The vectors of the running update: per device the sum of g^2 / max(v, eps^2) and the largest v."""

    __slots__ = ("_elements", "_parts", "staging")

    def __init__(self, staging: Staging) -> None:
        self.staging = staging
        self.clear()

    def clear(self) -> None:
        """Forget the running update."""
        self._parts: dict[torch.device, list[torch.Tensor]] = {}
        self._elements = 0

    def observe(self, tally: Tally, optimizer: torch.optim.Optimizer, *, flat: bool = False) -> None:
        """Measure the step that `optimizer` is about to take. `flat`: each tensor is this rank's share of one."""
        if flat:
            refuse(tally, Status.DTYPE)
            return
        if isinstance(getattr(optimizer, "grad_scale", None), torch.Tensor):
            refuse(tally, Status.UNDEFINED)  # a fused step unscales the gradients itself, later
            return
        found = [
            (parameter.grad, optimizer.state[parameter], group)
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and _usable(parameter.grad, optimizer.state.get(parameter))
        ]
        self._elements = sum(gradient.numel() for gradient, _, _ in found)
        if not found or self._elements > ELEMENTS_MAX:
            refuse(tally, Status.THINNED if found else Status.UNDEFINED)
            return
        batches: dict[Alike, list[Batch]] = {}
        for gradient, state, group in found:
            alike = _alike(gradient, state, group)
            if alike is None:
                refuse(tally, Status.UNDEFINED)
                return
            found_batches = batches.setdefault(alike, [])
            if not found_batches or not found_batches[-1].takes(gradient):
                found_batches.append(Batch())
            found_batches[-1].put(gradient, state["exp_avg_sq"])
        with torch.no_grad():
            for alike, several in batches.items():
                for batch in several:
                    self._parts.setdefault(alike.device, []).append(self._look(batch, alike))

    def _look(self, batch: Batch, alike: Alike) -> torch.Tensor:
        """[sum, largest] of a batch. Two temporaries of its size, in its dtype, and two more where it has several tensors."""
        gradient, moment = _joined(batch.gradients), _joined(batch.moments)
        square = torch.mul(gradient, gradient)
        moment = torch.mul(moment, alike.decay).add_(square, alpha=1.0 - alike.decay)
        moment.div_(1.0 - alike.decay ** (alike.step + 1.0))
        largest = moment.amax()
        square.div_(moment.clamp_(min=max(alike.eps * alike.eps, torch.finfo(moment.dtype).tiny)))
        return self.staging.reducer(alike.device).vector([square.sum(), largest])

    def finish(self, parts: Parts) -> None:
        """Hand over what each device found."""
        whole = Whole(self._elements, len(self._parts))
        for numbers in self._parts.values():
            parts.put(numbers, MomentReader(whole))
        self.clear()


@dataclass(slots=True)
class Whole:
    """Adds up the devices, of which `waiting` are still to come."""

    elements: int
    waiting: int
    total: float = 0.0
    largest: float = 0.0


@dataclass(frozen=True, slots=True)
class MomentReader:
    """Pairs (sum, largest), one for each parameter of one device."""

    whole: Whole

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See host.Reader; the last device tells for all."""
        whole = self.whole
        whole.total += sum(values[::2])
        tops = values[1::2]
        whole.largest = math.nan if any(map(math.isnan, (*tops, whole.largest))) else max(*tops, whole.largest)
        whole.waiting -= 1
        if not whole.waiting:
            tally.add("opt.adam.rms", (math.sqrt(whole.total / whole.elements),))
            tally.add("opt.adam.v_max", (whole.largest,))


def refuse(tally: Tally, status: Status) -> None:
    """Say why both are missing."""
    for name in COLUMNS:
        tally.refuse(name, status)


def _alike(gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> Alike | None:
    """What this parameter has in common with others; None where Adam's numbers are none."""
    decay, eps = to_float(group.get("betas", (None, None))[1]), to_float(group.get("eps"))
    if decay is None or eps is None:
        return None
    step = state["step"]
    known = host_value(step) if isinstance(step, torch.Tensor) and step.is_floating_point() else None
    return Alike(gradient.device, (gradient.dtype, state["exp_avg_sq"].dtype), decay, eps, step if known is None else known)


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat([tensor.reshape(-1) for tensor in tensors])


def _usable(gradient: torch.Tensor, state: dict[str, Any] | None) -> bool:
    """Whether a gradient and the state of its parameter are Adam's, dense and real."""
    moment = None if state is None else state.get("exp_avg_sq")
    return (
        isinstance(moment, torch.Tensor)
        and state is not None
        and isinstance(state.get("step"), (torch.Tensor, int, float))
        and all(is_plain(tensor) and tensor.dtype in FLOATS and tensor.layout is torch.strided for tensor in (gradient, moment))
        and gradient.shape == moment.shape
        and gradient.device == moment.device
        and gradient.numel() > 0
    )
