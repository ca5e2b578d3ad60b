"""The gradient norms that `clip_grad_norm_` computes and drops, taken on their way through.

`clip_grad_norm_` calls two functions of its own module, `_get_total_norm` and `_clip_grads_with_norm_`. Wrapping these
sees every call, also of scripts that imported the name early, costs no kernel, and changes no bit: the originals do the
work with the very arguments they were given, or `total_norm` does the same operations and keeps the norm of each tensor.

They are also torch's public `get_total_norm` and `clip_grads_with_norm_`, which other modules hold by other names. Each is a
function that switches gradients off around the one that does the work, which lies in its closure; there we stand as well, and
there alone before `clip_grad_value_`, which takes no norm: it is then measured. All while a monitor watches parameters, and
restored after.
"""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Union

import torch
from torch.compiler import is_dynamo_compiling as is_compiling
from torch.nn.utils import clip_grad

from gradwatch_agent.device.total_norm import is_same, total_with_parts, whole_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TOTAL, SCALE, VALUE = "_get_total_norm", "_clip_grads_with_norm_", "clip_grad_value_"
PARAMETERS = {
    TOTAL: ("tensors", "norm_type", "error_if_nonfinite", "foreach"),
    SCALE: ("parameters", "max_norm", "total_norm", "foreach"),
}
"""Their parameters in torch 2.6 to 2.13. Anything else is left alone, and norms come from the optimizer hook."""

BY_VALUE = ("parameters", "clip_value", "foreach")


Total = tuple[Union[torch.Tensor, None], Union[torch.Tensor, None], float, int]
"""(total norm, norm of each gradient, order, how many gradients)."""

UNKNOWN: Total = (None, None, 2.0, -1)
"""Clipping by values, or by a norm that we have not seen."""


Clip = tuple[Sequence[torch.Tensor], Union[torch.Tensor, None], Union[torch.Tensor, None], object, float, int]
"""One call: (the parameters, their total norm, norm of each gradient, the norm that is allowed, order, how many gradients). The
total is 0-dim, in the dtype of the gradients, and None where values are clipped; the norms are there where torch let us keep
them, in the order of the parameters that have a gradient; how many have one is -1 when that is not known."""


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
        self._inner: list[tuple[Any, Callable[..., Any], Callable[..., Any]]] = []
        """(cell of a closure, what was in it, what we put there)."""
        self._wanting: weakref.WeakSet[ClipObserver] = weakref.WeakSet()
        self._same: bool | None = None
        self.keeps_parts = False
        self.last: Total | None = None

    def watch(self, parameters: Iterable[torch.Tensor], observer: ClipObserver) -> bool:
        """Tell `observer` of clips whose first parameter is among these; False when this torch cannot be wrapped."""
        if not self._install():
            return False
        for parameter in parameters:
            entries = self._watched.setdefault(id(parameter), [])  # in place: a monitor may be made while these are asked
            entries[:] = [entry for entry in entries if entry[0]() is parameter]  # an id may be that of one which is gone
            if all(entry[1]() is not observer for entry in entries):
                entries.append((weakref.ref(parameter), weakref.ref(observer)))
        return True

    def want_parts(self, observer: ClipObserver, wanted: bool) -> None:
        """Whether `observer` wants the norm of each tensor from now on; while nobody does, torch works undisturbed."""
        if wanted == (observer in self._wanting) or not self._originals:
            return
        if wanted and self._same is None:
            self._same = is_same(self._originals[TOTAL])
            self.last = None  # of its probe
        (self._wanting.add if wanted else self._wanting.discard)(observer)
        self.keeps_parts = bool(self._same and self._wanting)

    def forget(self, observer: ClipObserver) -> None:
        """End an observer's watch; with the last one torch gets its functions back."""
        self.want_parts(observer, False)
        self.drop(observer)
        if not self._watched:
            self._restore()

    def drop(self, observer: ClipObserver) -> None:
        """Tell an observer of none of its parameters any more; others are to follow."""
        for key, entries in list(self._watched.items()):
            kept = [entry for entry in entries if entry[0]() is not None and entry[1]() not in {None, observer}]
            if not kept:
                del self._watched[key]
            elif len(kept) < len(entries):  # who is being told goes through the list that is there
                self._watched[key] = kept

    def _install(self) -> bool:
        if self._originals:
            return True
        if not all(_fits(name) for name in PARAMETERS):
            return False
        self._originals = {name: getattr(clip_grad, name) for name in PARAMETERS}
        self._step_inside(self._originals[TOTAL], _wrap_total)
        self._wrappers = {TOTAL: _wrap_total(self._originals[TOTAL], self)}  # clip_grad_norm_ need not switch gradients twice
        if not self._step_inside(self._originals[SCALE], _wrap_scale):
            self._wrappers[SCALE] = _wrap_scale(self._originals[SCALE], self)
        for name, wrapper in self._wrappers.items():
            setattr(clip_grad, name, wrapper)
        if _parameters_of(VALUE) == BY_VALUE:
            self._step_inside(getattr(clip_grad, VALUE), _wrap_value)
        return True

    def _step_inside(self, function: Any, wrap: Callable[[Any, ClipWatch], Callable[..., Any]]) -> bool:
        """Stand in front of what does the work of a function of torch, by whichever name that is called; False where that is
        not to be found."""
        cells: Sequence[Any] = getattr(function, "__closure__", None) or ()
        inner = getattr(function, "__wrapped__", None)
        if inner is None or len(cells) != 1 or cells[0].cell_contents is not inner:
            return False
        ours = wrap(inner, self)
        self._inner.append((cells[0], inner, ours))
        cells[0].cell_contents = ours
        return True

    def _restore(self) -> None:
        """Put the originals back, unless somebody else wrapped them after us: ours then only passes on."""
        self.last = None
        if all(getattr(clip_grad, name) is wrapper for name, wrapper in self._wrappers.items()):
            for name in self._wrappers:
                setattr(clip_grad, name, self._originals[name])
            for cell, inner, ours in self._inner:
                if cell.cell_contents is ours:
                    cell.cell_contents = inner
            self._originals, self._wrappers, self._inner, self._same = {}, {}, [], None

    def tell_unknown(self, parameters: Sequence[torch.Tensor], max_norm: object = math.inf) -> None:
        """Tell the observers of `parameters` that these are about to be clipped, by no norm that we have seen."""
        if parameters and type(parameters[0]) in {torch.Tensor, torch.nn.Parameter}:
            self.tell(parameters, max_norm, UNKNOWN)

    def tell(self, parameters: Sequence[torch.Tensor], max_norm: object, last: Total) -> None:
        """Tell the observers of `parameters` that these are about to be scaled by the total norm that was taken last."""
        total = last[0]
        if total is not None and type(total) is not torch.Tensor:
            total = whole_of(total)
            if total is None:
                return
        if not parameters:
            return
        first, clip = parameters[0], (parameters, total, last[1], max_norm, last[2], last[3])
        for parameter, observer in self._watched.get(id(first), ()):
            watching = observer()
            if watching is not None and parameter() is first:
                watching.on_clip(clip)


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
            if type(parameters) is not list:
                parameters = _listed(parameters)
            if last is not None and last[0] is total_norm:
                watch.tell(parameters, max_norm, last)
            else:  # a norm of the trainer's own making, such as one over all ranks
                watch.tell_unknown(parameters, max_norm if last is not None and last[2] == 2.0 else math.inf)
        return original(parameters, max_norm, total_norm, *args, **kwargs)

    return _clip_grads_with_norm_


def _wrap_value(original: Callable[..., Any], watch: ClipWatch) -> Callable[..., Any]:
    def clip_grad_value_(parameters: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_compiling():
            parameters = _listed(parameters)
            watch.tell_unknown(parameters)
        return original(parameters, *args, **kwargs)

    return clip_grad_value_


def _listed(parameters: Any) -> Any:
    """What torch takes, a generator too, as what can be gone through twice."""
    return [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)


def _fits(name: str) -> bool:
    return _parameters_of(name) == PARAMETERS[name]


def _parameters_of(name: str) -> tuple[str, ...]:
    function = getattr(clip_grad, name, None)
    return tuple(inspect.signature(function).parameters) if callable(function) else ()
