"""The learning rate of a step: of the first group of the first optimizer."""

from __future__ import annotations

from typing import Union

import torch

from gradwatch_agent.collect.host import to_float
from gradwatch_agent.device.transfer import host_value
from gradwatch_contracts.columns import Status

Rate = Union[float, torch.Tensor, Status]
"""On the host, on a device (one real number, ours alone), or why there is none."""


def rate_of(optimizer: torch.optim.Optimizer) -> Rate:
    """Learning rate of the first group, or why there is none. A tensor that cannot be read where it lies is copied there, as
    schedules write to it in place."""
    groups = optimizer.param_groups
    if not groups:
        return Status.UNDEFINED
    rate = groups[0].get("lr")
    if not isinstance(rate, torch.Tensor):
        number = to_float(rate)
        return Status.DTYPE if number is None else number
    if rate.numel() != 1 or rate.is_complex():
        return Status.DTYPE
    number = host_value(rate)
    if number is not None:
        return number
    if rate.is_cuda and torch.cuda.is_current_stream_capturing():
        return Status.CAPTURING  # the copy would become a part of the graph
    return rate.detach().clone()
