"""The weights of a model at the end of an update, and at DEBUG how far the update moved them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from gradwatch_agent.collect.layers import Broken
from gradwatch_agent.collect.tensors import META, as_real, by_device
from gradwatch_agent.collect.weights import WeightReader, Weights
from gradwatch_agent.device.reduce import copy_all, subtract_all
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level

if TYPE_CHECKING:
    from gradwatch_agent.collect.collectors import Switches
    from gradwatch_agent.collect.host import Reader, Tally
    from gradwatch_agent.collect.layers import Layers
    from gradwatch_agent.collect.members import Members
    from gradwatch_agent.collect.model import Model
    from gradwatch_agent.collect.parts import Parts
    from gradwatch_agent.collect.staging import Staging

COPY_BYTES_MAX = 64 * 1024 * 1024
"""Parameters copied for the update ratio at DEBUG; a larger model has none, THINNED."""

WEIGHT_COLUMNS = ("param.norm", "param.nonfinite", "opt.update_ratio")


class Weighing:
    """Of the parameters of a `model`; `members` knows their numbers."""

    __slots__ = ("_before", "_broken", "_members", "_model", "_parameters", "_ratio_status", "_switches")

    def __init__(self, model: Model, members: Members, switches: Switches) -> None:
        self._model, self._members, self._switches = model, members, switches
        self._parameters = model.tensors
        self._broken = Broken()
        self._before: dict[torch.device, list[torch.Tensor]] = {}
        self._ratio_status = Status.LEVEL

    def begin(self, level: Level) -> None:
        """A new update; at DEBUG the parameters are copied, to measure how far they move."""
        self._ratio_status = Status.INCOMPLETE if level >= Level.DEBUG else Status.LEVEL
        self._before = {}
        if level >= Level.DEBUG and self._parameters and self._switches.on("update_ratio"):
            begin = time.perf_counter_ns()
            self._copy()
            self._switches.charge("update_ratio", time.perf_counter_ns() - begin)

    def forget(self) -> None:
        """The model has other parameters than when the update began: how far it moved is not known."""
        if self._before:
            self._before, self._ratio_status = {}, Status.UNDEFINED

    def _copy(self) -> None:
        parameters = by_device(self._parameters)
        nbytes = sum(tensor.numel() * tensor.element_size() for tensors in parameters.values() for tensor in tensors)
        if nbytes > COPY_BYTES_MAX:
            self._ratio_status = Status.THINNED
            return
        with torch.no_grad(), torch.inference_mode(False):
            self._before = {device: copy_all(tensors) for device, tensors in parameters.items()}

    def finish(self, tally: Tally, parts: Parts, staging: Staging, layers: Layers | None) -> None:
        """Hand over the norms of the weights; `layers` at DEBUG. Where some cannot be taken, none is told: the others must not
        pass for all."""
        if self._parameters and not self._before:
            tally.refuse("opt.update_ratio", self._ratio_status)
        fault = Status.DTYPE if self._model.is_flat else Status.INCOMPLETE if self._model.has_lazy else None
        if fault is not None:
            _refuse(tally, fault, layers)
            return
        weights, dense = Weights(self._model.names, self._broken, layers), 0
        for device, tensors in by_device(self._parameters).items():
            told = Weights(self._model.names, Broken(), None) if device.type == META else weights
            parts.put(*self._weigh(device, tensors, told, staging))
            dense += len(tensors)
        if dense < len(self._parameters):
            _refuse(tally, Status.DTYPE, layers)

    def _weigh(
        self, device: torch.device, tensors: list[torch.Tensor], weights: Weights, staging: Staging
    ) -> tuple[list[torch.Tensor], Reader]:
        reducer = staging.reducer(device)
        norms = reducer.norms(as_real(tensors))
        weights.waiting += 1
        members = self._members.of(tensors, len(tensors))
        before = self._before.pop(device, None)
        if before is None:
            return [norms], WeightReader(weights, members)
        begin = time.perf_counter_ns()
        # One difference at a time: all of them together would be a third copy of the model.
        moved = [reducer.norms(as_real(subtract_all([old], [new]))) for old, new in zip(before, tensors, strict=True)]
        self._switches.charge("update_ratio", time.perf_counter_ns() - begin)
        return [norms, *moved], WeightReader(weights, members)


def _refuse(tally: Tally, status: Status, layers: Layers | None) -> None:
    for name in WEIGHT_COLUMNS[: 2 if layers is None else 3]:
        tally.refuse(name, status)
