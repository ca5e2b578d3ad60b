"""The gradient norms that `clip_grad_norm_` computes and drops, taken on their way through.

`clip_grad_norm_` calls two functions of its own module, `_get_total_norm` and `_clip_grads_with_norm_`. Wrapping these
sees every call, also of scripts that imported the name early, costs no kernel, and changes no bit: the originals do the
work with the very arguments they were given, or `total_norm` does the same operations and keeps the norm of each tensor.
They are wrapped while a monitor watches parameters, and restored after.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Union

import torch
from torch.compiler import is_dynamo_compiling as is_compiling
from torch.nn.utils import clip_grad

from gradwatch_agent.device.total_norm import is_same, total_with_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TOTAL, SCALE = "_get_total_norm", "_clip_grads_with_norm_"
PARAMETERS = {
    TOTAL: ("tensors", "norm_type", "error_if_nonfinite", "foreach"),
    SCALE: ("parameters", "max_norm", "total_norm", "foreach"),
}
"""Their parameters in torch 2.6 to 2.13. Anything else is left alone, and norms come from the optimizer hook."""


Total = tuple[torch.Tensor, Union[torch.Tensor, None], float, int]
"""(total norm, norm of each gradient, order, how many gradients)."""


Clip = tuple[Sequence[torch.Tensor], torch.Tensor, Union[torch.Tensor, None], object, float, int]
"""One call: (the parameters, their total norm, norm of each gradient, the norm that is allowed, order, how many gradients). The
total is 0-dim, in the dtype of the gradients; the norms are there where torch let us keep them, in the order of the parameters
that have a gradient; how many have one is -1 when that is not known."""


class ClipObserver(Protocol):
    """Whoever watches parameters. Called before the gradients are scaled; it must not raise."""

    def on_clip(self, clip: Clip) -> None:
        """See `Clip`."""


class ClipWatch:
    """Which parameters are watched by whom, and the two originals while they are wrapped. One per process."""

    def __init__(self) -> None:
        self._watched: dict[int, list[tuple[weakref.ref[Any], weakref.ref[Any]]]] = {}
        self._originals: dict[str, Callable[..., Any]] = {}
        self._wrappers: dict[str, Callable[..., Any]] = {}
        self._wanting: weakref.WeakSet[ClipObserver] = weakref.WeakSet()
        self._same: bool | None = None
        self.keeps_parts = False
        self.last: Total | None = None

    def watch(self, parameters: Iterable[torch.Tensor], observer: ClipObserver) -> bool:
        """Tell `observer` of clips whose first parameter is among these; False when this torch cannot be wrapped."""
        if not self._install():
            return False
        for parameter in parameters:
            entry = (weakref.ref(parameter), weakref.ref(observer))
            self._watched.setdefault(id(parameter), []).append(entry)
        return True

    def want_parts(self, observer: ClipObserver, wanted: bool) -> None:
        """Whether `observer` wants the norm of each tensor from now on; while nobody does, torch works undisturbed."""
        if wanted == (observer in self._wanting) or not self._originals:
            return
        if wanted and self._same is None:
            self._same = is_same(self._originals[TOTAL])
        (self._wanting.add if wanted else self._wanting.discard)(observer)
        self.keeps_parts = bool(self._same and self._wanting)

    def forget(self, observer: ClipObserver) -> None:
        """End an observer's watch; with the last one torch gets its functions back."""
        self.want_parts(observer, False)
        for key, entries in list(self._watched.items()):
            kept = [entry for entry in entries if entry[0]() is not None and entry[1]() not in {None, observer}]
            if kept:
                self._watched[key] = kept
            else:
                del self._watched[key]
        if not self._watched:
            self._restore()

    def _install(self) -> bool:
        if self._originals:
            return True
        if not all(_fits(name) for name in PARAMETERS):
            return False
        self._originals = {name: getattr(clip_grad, name) for name in PARAMETERS}
        self._wrappers = {
            TOTAL: _wrap_total(self._originals[TOTAL], self),
            SCALE: _wrap_scale(self._originals[SCALE], self),
        }
        for name, wrapper in self._wrappers.items():
            setattr(clip_grad, name, wrapper)
        return True

    def _restore(self) -> None:
        """Put the originals back, unless somebody else wrapped them after us: ours then only passes on."""
        self.last = None
        if all(getattr(clip_grad, name) is wrapper for name, wrapper in self._wrappers.items()):
            for name, original in self._originals.items():
                setattr(clip_grad, name, original)
            self._originals, self._wrappers, self._same = {}, {}, None

    def tell(self, parameters: object, max_norm: object, last: Total) -> None:
        """Tell the observers of `parameters` that these are about to be scaled by the total norm that was taken last."""
        if not isinstance(parameters, (list, tuple)) or not parameters or type(last[0]) is not torch.Tensor:
            return
        first = parameters[0]
        for parameter, observer in self._watched.get(id(first), ()):
            watching = observer()
            if watching is not None and parameter() is first:
                watching.on_clip((parameters, last[0], last[1], max_norm, last[2], last[3]))


CLIP_WATCH = ClipWatch()
"""Wrapping torch is a process-wide act, so its state is one object, empty unless a monitor is open."""


def _wrap_total(original: Callable[..., Any], watch: ClipWatch) -> Callable[..., Any]:
    def _get_total_norm(
        tensors: Any, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
    ) -> Any:
        if is_compiling():
            return original(tensors, norm_type, error_if_nonfinite, foreach)
        found = None
        if watch.keeps_parts:
            try:
                found = total_with_parts(tensors, norm_type, error_if_nonfinite, foreach)
            except Exception:  # whatever is wrong with these tensors, torch shall say it
                found = None
        total, parts = found or (original(tensors, norm_type, error_if_nonfinite, foreach), None)
        watch.last = total, parts, norm_type, len(tensors) if isinstance(tensors, (list, tuple)) else -1
        return total

    return _get_total_norm


def _wrap_scale(original: Callable[..., Any], watch: ClipWatch) -> Callable[..., Any]:
    def _clip_grads_with_norm_(parameters: Any, max_norm: Any, total_norm: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_compiling():
            last, watch.last = watch.last, None
            if last is not None and last[0] is total_norm:
                watch.tell(parameters, max_norm, last)
        return original(parameters, max_norm, total_norm, *args, **kwargs)

    return _clip_grads_with_norm_


def _fits(name: str) -> bool:
    function = getattr(clip_grad, name, None)
    return callable(function) and tuple(inspect.signature(function).parameters) == PARAMETERS[name]
