"""Torch's total norm of gradients, computed as torch does, but keeping the norm of each tensor that it drops.

`torch.nn.utils.clip_grad._get_total_norm` takes the norm of every tensor, stacks them and takes the norm of that. We do
the same operations with the same operands, so the result has the same bits and the stack is ours for nothing. Whether
this torch still does it so is tested before it is relied on: by the names its function uses, and by its bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils import clip_grad

from gradwatch_agent.device.reduce import set_grad
from gradwatch_agent.device.transfer import host_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType

    from torch import Tensor

GROUP, SUPPORT, FOREACH = "_group_tensors_by_device_and_dtype", "_has_foreach_support", "_foreach_norm"
USED = frozenset({GROUP, SUPPORT, FOREACH, "linalg", "vector_norm", "stack", "to", "device", "extend"})
"""What the function of torch 2.6 to 2.13 uses; one that uses less, or a `sum`, computes otherwise."""

NOT_USED = frozenset({"sum", "sqrt", "pow", "square", "dot", "cat", "double", "float64", "dtype", "full_tensor"})

PROBE_SIZES = (1, 3, 64, 1023, 4096)
"""Lengths around those of vector registers, where an order of summation shows."""

PLAIN = {torch.Tensor}

# Looked up once: each name that is looked for in torch at every clip costs as much as an addition there.
is_grad_enabled, stack, vector_norm = torch.is_grad_enabled, torch.stack, torch.linalg.vector_norm
group: Any = getattr(torch._C, GROUP, None) or getattr(clip_grad, GROUP, None)
foreach_norm: Any = getattr(torch, FOREACH, None)

Parts = tuple["Tensor", "Tensor"]
"""(total norm, norm of each tensor)."""


def total_with_parts(tensors: Any, norm_type: Any, error_if_nonfinite: Any, foreach: Any) -> Parts | None:
    """The total L2 norm and the norms it is made of, in the order of `tensors`; None when torch must do it.

    Torch does it for another norm, for `error_if_nonfinite` (which waits for the device), for an explicit `foreach`, for
    subclasses, and for several devices or dtypes, which it reorders.
    """
    if error_if_nonfinite or foreach is not None or norm_type != 2:
        return None
    if type(tensors) is not list or not tensors or set(map(type, tensors)) != PLAIN:
        return None
    enabled = is_grad_enabled()
    try:
        set_grad(False)
        groups = group([tensors], False)  # what torch's function calls, without its own switch of gradients
        if len(groups) != 1:
            return None
        ((device, _),) = groups
        if getattr(clip_grad, SUPPORT)((), device):  # what it asks of tensors is that they are plain
            norms = foreach_norm(tensors, 2.0)
        else:
            norms = [vector_norm(tensor, 2.0) for tensor in tensors]
        parts = stack(norms)
        return vector_norm(parts, 2.0), parts
    finally:
        set_grad(enabled)


def whole_of(total: Any) -> Tensor | None:
    """What this rank holds of a total norm over all ranks, such as that of FSDP2, if it is all of it: torch has reduced it by
    then. No collective is begun; None for a part."""
    placements = getattr(total, "placements", None)
    if not placements or not all(placement.is_replicate() for placement in placements):
        return None
    enabled = is_grad_enabled()
    try:
        set_grad(False)
        local = total.to_local()
    finally:
        set_grad(enabled)
    return local if type(local) in PLAIN else None


def is_same(original: Callable[..., Any]) -> bool:
    """Whether `original` computes the total as `total_with_parts` does."""
    code = getattr(getattr(original, "__wrapped__", original), "__code__", None)
    if code is None or not all(hasattr(clip_grad, name) for name in (GROUP, SUPPORT)) or not hasattr(torch, FOREACH):
        return False
    names = set(_names(code))
    if not names >= USED or names & NOT_USED:
        return False
    probe = [torch.linspace(-1.7, 3.1 * size, size, device="cpu") for size in PROBE_SIZES]
    mine = total_with_parts(probe, 2.0, False, None)
    return mine is not None and host_value(mine[0]) == host_value(original(probe, 2.0))


def _names(code: CodeType) -> Iterator[str]:
    """Global and attribute names of a function and of the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            yield from _names(constant)
