"""Which tensors may be measured at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

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
