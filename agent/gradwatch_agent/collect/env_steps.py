"""Environment steps as `step` is told them: a number on the host, whatever holds it."""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any

from gradwatch_agent.collect.host import looks_of, to_float

if TYPE_CHECKING:
    from gradwatch_agent.collect.host import Hints


def read_steps(value: object, hints: Hints) -> int:
    """Environment steps as a whole number, -1 when none are told. Of what is none, or lies on a device, the author is told."""
    number = to_float(value)
    if number is None and value is not None:
        number = _host_number(value)
    if number is not None and 0 <= number < 2**63:
        return int(number)
    if value is not None:
        got = looks_of(value) if number is None else str(number)[:40]
        hints.say("env_steps", f"step(env_steps=…) takes a whole number from 0 that lies on the host, got {got}; not sent.")
    return -1


def _host_number(value: Any) -> float | None:
    """Of a tensor on the host or an array of no dimension."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        from gradwatch_agent.device.transfer import host_whole

        return host_whole(value)
    try:
        count: int = operator.index(value)
    except TypeError:
        return None
    return count
