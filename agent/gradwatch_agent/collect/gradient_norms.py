"""The L2 norms of gradients, as clipping computed them or as measured here, and the norm that clipping allows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from gradwatch_agent.collect.host import Tally, to_float
from gradwatch_agent.collect.series import Series
from gradwatch_agent.collect.tensor_norms import NORM_COLUMNS, TensorNorms
from gradwatch_agent.collect.tensors import as_real, is_dense
from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.clips import Named
    from gradwatch_agent.collect.groups import ParameterGroups
    from gradwatch_agent.collect.layers import Layers
    from gradwatch_agent.collect.members import Members
    from gradwatch_agent.collect.parts import Parts
    from gradwatch_agent.collect.policy import PolicyCollector
    from gradwatch_agent.collect.staging import Staging
    from gradwatch_agent.collect.tensor_norms import Runs

GRAD_COLUMNS = ("grad.norm", "grad.norm.max", "grad.norm.nonfinite", "grad.norm.nonfinite_mb", *NORM_COLUMNS)
LIMIT_COLUMNS = ("grad.clipped", "grad.clip_limit")


class GradientNorms:
    """The norms of the running update, whose `tally` it is. `members`: the parameters of the model by number."""

    __slots__ = ("_groups", "_limit", "_policy", "_staging", "_tensors", "_totals", "members", "tally")

    def __init__(self, staging: Staging, groups: ParameterGroups, members: Members, policy: PolicyCollector) -> None:
        self._groups, self.members, self._policy = groups, members, policy
        self.tally = Tally()
        self.clear(staging)

    def clear(self, staging: Staging) -> None:
        """Forget the running update; the next ones gather in this area."""
        self._staging = staging
        self._limit: float | None = None
        self._totals = Series(staging, "grad.norm")
        self._tensors = TensorNorms(staging)

    def finish(self, parts: Parts, layers: Layers | None) -> None:
        """Hand over the norms of this update; what is known on the host goes into the tally."""
        self._totals.finish(self.tally, parts)
        self._tensors.finish(parts, layers)
        if self._totals.overwritten or self._tensors.overflowed:
            self.refuse(Status.INCOMPLETE)

    def refuse(self, status: Status, columns: Sequence[str] = (*GRAD_COLUMNS, *LIMIT_COLUMNS), *, groups: bool = False) -> None:
        """Say why all of them are missing, or a part; of `groups` too."""
        for name in columns:
            self.tally.refuse(name, status)
        for name in self._groups.names if groups else ():
            self.tally.refuse("grad.group_norm", status, name)

    def capturing(self, tensor: torch.Tensor) -> bool:
        """Whether a CUDA graph is being captured: what we launched would be replayed with it."""
        if tensor.device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            return False
        self.refuse(Status.CAPTURING)
        return True

    def limit(self, max_norm: object, norm_type: float) -> float | None:
        """The norm that clipping allows; None, with the reason told, when there is none. Trainers clip to infinity just to
        get the norm."""
        limit = to_float(max_norm)
        status = Status.DTYPE if limit is None else Status.UNDEFINED
        if limit is not None and norm_type == 2.0 and 0 < limit < math.inf:
            self.tally.parts["grad.clip_limit", ""] = (limit,)
            self._limit = limit
            return limit
        for name in (*LIMIT_COLUMNS, "grad.exploding"):
            self.tally.refuse(name, status)
        return None

    def measure(
        self,
        parameters: Sequence[torch.Tensor],
        scale: object,
        bound: float | None,
        total: torch.Tensor | float | None = None,
        *,
        clipped: bool = True,
    ) -> None:
        """Take the L2 norm of gradients on one device; divide by the scale a fused AMP optimizer still has on. `total` is
        what clipping computed, if it did: where a gradient is none that we can measure, it alone is told. Not `clipped`: the
        norms are only compared with the limit that others have."""
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
        if fault is Status.DTYPE and total is not None and self._totals.add(total, max(0, self._policy.minibatches - 1), bound):
            self.refuse(fault, NORM_COLUMNS, groups=True)
            return
        if len(usable) != 1 or fault is Status.DTYPE:
            self.refuse(fault, groups=True)
            return
        ((device, (owners, tensors)),) = usable.items()
        with torch.no_grad():
            norms = self._staging.reducer(device).norms(as_real(tensors))
            if isinstance(scale, torch.Tensor):
                norms = norms / scale
            if total is None or (isinstance(total, float) and not math.isfinite(total)):  # in its dtype
                total = torch.linalg.vector_norm(norms, 2, dtype=self._staging.reducer(device).dtype)
        named, minibatches = self.named(owners, norms), self._policy.minibatches
        self.hold(total, norms, bound if clipped else self._limit, named, minibatches, clipped=clipped)

    def named(self, parameters: Sequence[torch.Tensor], norms: torch.Tensor) -> Named:
        """The groups of those that have a gradient, and their numbers."""
        groups: Runs = ()
        if self._groups.names:
            groups = self._groups.runs([id(parameter) for parameter in parameters if parameter.grad is not None])
        return groups, self.members.of(parameters, norms.shape[0])

    def hold(
        self,
        total: torch.Tensor | float,
        norms: torch.Tensor,
        bound: float | None,
        named: Named,
        minibatches: int,
        *,
        clipped: bool = True,
    ) -> None:
        """Keep the norms of one call; `total` as a number where it is known on the host."""
        if self._totals.add(total, max(0, minibatches - 1), bound if clipped else None):
            self._tensors.add(norms, bound, *named)
        else:
            self.refuse(Status.INCOMPLETE)
