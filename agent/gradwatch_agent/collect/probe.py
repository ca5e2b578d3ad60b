"""Representations: what a part of the model makes of a fixed batch of observations, in few updates.

The module's `forward` is called, and in a `Sequential` each child's: no hook is placed, none of the trainer's fires, nothing
that `torch.compile` made is traced anew. It runs without gradients, in evaluation mode and on copies of the buffers, and the
random numbers of training stay what they were.
"""

from __future__ import annotations

import math
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from gradwatch_agent.collect.probe_facts import LayerReader, look
from gradwatch_agent.collect.tensors import is_plain
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.collect.parts import Parts
    from gradwatch_agent.collect.staging import Staging

SAMPLES = 128
"""Observations of the batch, kept from the first rollout unless the trainer gives one. No effective rank is above it."""

BATCH_BYTES_MAX = 4 * 1024 * 1024
"""Of the kept batch: 37 pictures of 84 x 84 x 4 in float32."""

PERIOD = {Level.NORMAL: 32, Level.DEBUG: 4}
"""Updates from one look to the next, by level: a look costs a forward pass and some hundred microseconds."""

LAYERS_MAX = 32

Layer = tuple[str, "torch.nn.Module | None", Any]
"""Name, module (None for a whole that was not taken apart) and what it makes."""

WRAPPERS = frozenset({"DistributedDataParallel", "DataParallel"})
SHARDED = "FullyShardedDataParallel"


class Probe:
    """The probed module or function and its batch."""

    __slots__ = ("_batch", "_broken", "_call", "_layers", "_on_error", "_since", "level", "staging")

    def __init__(self, staging: Staging, probe: object, on_error: Callable[[str, str], None]) -> None:
        call, batch = probe if isinstance(probe, (tuple, list)) else (probe, None)
        self.staging = staging
        self._call: Any = _unwrap(call)
        self._batch: object = batch
        self._on_error = on_error
        self._broken = self._call is None
        self._since: int | None = None
        self._layers: dict[str, tuple[str, ...]] = {}
        self.level = Level.OFF

    def keep(self, observations: Mapping[str, torch.Tensor], lead: torch.Size) -> None:
        """Copy rows of the first rollout, at even distances, unless there is a batch."""
        if self._batch is not None or not observations:
            return
        kept = {key: _rows(tensor, lead) for key, tensor in observations.items()}
        self._batch = kept if list(kept) != [""] else kept[""]

    def finish(self, tally: Tally, parts: Parts, *, rests: bool = False) -> bool:
        """Look, if it is time and it does not rest; whether something was found. Otherwise say that it is not time; what rested
        when it was looks as soon as it may."""
        if self._batch is None or self._broken:
            self._refuse(tally, Status.OUR_ERROR if self._broken else Status.NOT_CALLED)
            return False
        self._since = None if self._since is None else self._since + 1
        early = self._since is not None and self._since < PERIOD.get(self.level, 1)
        if early or rests or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
            self._refuse(tally, Status.THINNED)
            return False
        try:
            found = self._look()
        except Exception:
            self._broken = True
            self._on_error("watch(probe)", traceback.format_exc())
            self._refuse(tally, Status.OUR_ERROR)
            return False
        self._since = 0
        for vector, reader in found:
            self._layers[reader.layer] = reader.columns
            parts.put([vector], reader)
        return bool(found)

    def _look(self) -> list[tuple[torch.Tensor, LayerReader]]:
        module = self._call
        whole = module if isinstance(module, torch.nn.Module) else None
        with torch.no_grad(), _undisturbed(whole, self._batch):
            if isinstance(module, torch.nn.Sequential):
                layers: list[Layer] = list(_walk(module, self._batch, ""))
            else:
                layers = [("out", None, (module if whole is None else whole.forward)(self._batch))]
            found = []
            for place, (name, child, made) in enumerate(layers[-LAYERS_MAX:], 1):
                tensor = made[0] if isinstance(made, (tuple, list)) else made
                if is_plain(tensor) and tensor.is_floating_point() and tensor.dim() > 1 and tensor.numel():
                    last = place == len(layers[-LAYERS_MAX:])
                    found.append(look(name, child, tensor, self.staging.reducer(tensor.device), last=last))
        return found

    def _refuse(self, tally: Tally, status: Status) -> None:
        for layer, columns in self._layers.items():
            for name in columns:
                tally.refuse(name, status, layer)


def _walk(module: torch.nn.Sequential, given: Any, prefix: str) -> Iterator[Layer]:
    """Name, child and what it makes, in order; of a Sequential within, its children."""
    made = given
    for name, child in module.named_children():
        if isinstance(child, torch.nn.Sequential):
            for inner in _walk(child, made, f"{prefix}{name}."):
                made = inner[2]
                yield inner
        else:
            made = child.forward(made)
            yield prefix + name, child, made


@contextmanager
def _undisturbed(module: torch.nn.Module | None, batch: object) -> Iterator[None]:
    """Evaluation mode, copies of the buffers, no hook and no compiled call; then all is as before, random numbers too."""
    modules = [] if module is None else list(module.modules())
    training = [child for child in modules if child.training]
    devices = {tensor.device for tensor in _tensors(batch) if tensor.device.type == "cuda"}
    state = torch.get_rng_state()
    states = [(device, torch.cuda.get_rng_state(device)) for device in devices]
    kept = []
    try:
        for child in training:
            child.training = False
        for child in modules:
            if not isinstance(child, torch.jit.ScriptModule):  # whose attributes are not in Python
                own, other = vars(child), _for_a_look(child)
                kept.append((own, {name: own[name] for name in other}))
                own.update(other)
        yield
    finally:
        for own, held in kept:
            own.update(held)
        for child in training:
            child.training = True
        torch.set_rng_state(state)
        for device, rng in states:
            torch.cuda.set_rng_state(rng, device)


def _for_a_look(module: torch.nn.Module) -> dict[str, object]:
    """Attributes that a module has while we look, in place of those it has: they change nothing that the trainer sees."""
    own = vars(module)
    buffers = {name: None if buffer is None else buffer.clone() for name, buffer in module._buffers.items()}
    other: dict[str, object] = {"_buffers": buffers, "_forward_hooks": {}, "_forward_pre_hooks": {}}
    if own.get("_compiled_call_impl") is not None:  # of `module.compile()`
        other["_compiled_call_impl"] = None
    inner = module._modules.get("_orig_mod")
    if inner is not None and "forward" in own:  # what `torch.compile(module)` returned
        other["forward"] = inner.forward
    return other


def _tensors(batch: object) -> list[torch.Tensor]:
    parts = batch.values() if isinstance(batch, dict) else (batch,)
    return [part for part in parts if isinstance(part, torch.Tensor)]


def _rows(tensor: torch.Tensor, lead: torch.Size) -> torch.Tensor:
    """A copy of at most `SAMPLES` observations."""
    many = len(lead) if len(lead) and tensor.shape[: len(lead)] == lead else max(1, min(tensor.dim() - 1, 1))
    flat = tensor.reshape(-1, *tensor.shape[many:])
    size = max(1, math.prod(flat.shape[1:]) * flat.element_size())
    wanted = max(1, min(SAMPLES, BATCH_BYTES_MAX // size))
    with torch.inference_mode(False):
        return flat[:: max(1, -(-len(flat) // wanted))].detach().clone()


def _unwrap(call: Any) -> Any:
    """The module inside of wrappers that synchronise or compile; None for one whose parameters are spread over ranks."""
    while isinstance(call, torch.nn.Module):
        if type(call).__name__ in WRAPPERS:
            call = call.module
        elif hasattr(call, "_orig_mod"):
            call = call._orig_mod
        else:
            break
    if isinstance(call, torch.nn.Module):
        plain = all(is_plain(parameter) for parameter in call.parameters())
        if not plain or any(type(child).__name__ == SHARDED for child in call.modules()):
            return None  # its forward pass is a collective
    return call
