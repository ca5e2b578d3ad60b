"""Which tensors may be measured at all."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch

from gradwatch_agent.collect.host import to_floats
from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeGuard

FLOATS = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})
"""What a log-probability, value, state, advantage or loss may be; an integer there is a mistake of the trainer."""

REALS = frozenset(
    {torch.float32, torch.float64, torch.bfloat16, torch.float16}
    | {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool}
)
"""Observations are often bytes and rewards integers; all are exact in float64."""

PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})
"""A subclass (a DTensor, a masked tensor) does with our calls what it likes, even a collective."""

META = "meta"
"""The device of tensors without values. They are reduced like any others, which costs nothing, and end before the transfer."""


def is_plain(tensor: object) -> TypeGuard[torch.Tensor]:
    """Whether it is a tensor of torch itself."""
    return type(tensor) in PLAIN


def fault_of(tensor: object) -> Status | None:
    """Why a tensor of floats cannot be reduced on its own, None when it can."""
    if not is_plain(tensor) or tensor.dtype not in FLOATS or tensor.layout is not torch.strided:
        return Status.DTYPE
    return None if tensor.numel() else Status.UNDEFINED


def by_device(tensors: Sequence[torch.Tensor]) -> dict[torch.device, list[torch.Tensor]]:
    """Dense plain tensors by where they are now; a model may move between updates."""
    grouped: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in tensors:
        if is_dense(tensor):
            grouped.setdefault(tensor.device, []).append(tensor)
    return grouped


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether its norm is that of its elements: a subclass, a DTensor for one, does with our calls what it likes."""
    return tensor.layout is torch.strided and is_plain(tensor)


def as_real(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Complex tensors as real ones of the same norm."""
    return [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]


def numbers_of(given: object) -> torch.Tensor | None:
    """Real numbers as a tensor: one that is one, an array of numpy or what can be one, or tensors of one shape in a list.

    None for anything else, and for an array some of which is masked: what is missing is no number. It shares the memory where
    torch can look at it. Never waits for a device, and torch never warns of it, as that would be in the trainer's log.
    """
    if type(given) is torch.Tensor:
        tensor: torch.Tensor | None = given
    else:
        try:
            tensor = _converted(given)
        except (TypeError, ValueError, RuntimeError):
            return None
    return tensor if tensor is not None and tensor.dtype in REALS and tensor.layout is torch.strided else None


def _converted(given: Any) -> torch.Tensor | None:
    numpy: Any = sys.modules.get("numpy")
    if isinstance(given, torch.Tensor) or numpy is None:
        return torch.as_tensor(given)
    parts = given if isinstance(given, (list, tuple)) else [given]
    kinds = set(map(type, parts))
    if kinds and all(issubclass(kind, torch.Tensor) for kind in kinds):
        return torch.stack(list(parts))
    if any(issubclass(kind, numpy.ma.MaskedArray) for kind in kinds) and any(map(numpy.ma.is_masked, parts)):
        return None
    array = numpy.asarray(given)
    if array.dtype.kind == "O":
        floats = to_floats(array.flat)
        return None if floats is None else torch.tensor(floats, dtype=torch.float64).reshape(array.shape)
    return torch.from_numpy(_as_torch_takes_it(array, numpy)) if array.dtype.kind in "biuf" else None


def _as_torch_takes_it(array: Any, numpy: Any) -> Any:
    """The array, or a copy: torch has no other byte order, no way backwards and few unsigned types; of read-only it warns."""
    kind, size = array.dtype.kind, array.itemsize
    if (kind == "u" and size > 1) or (kind == "f" and size > 8):
        with numpy.errstate(over="ignore"):
            return array.astype(numpy.float64, order="C")
    plain = array.flags.writeable and array.dtype.isnative
    if plain and all(stride >= 0 and stride % size == 0 for stride in array.strides):
        return array
    return numpy.array(array, dtype=array.dtype.newbyteorder("="), order="C")
