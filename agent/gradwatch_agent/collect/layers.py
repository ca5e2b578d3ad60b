"""What is known by parameter name: the table of layers at DEBUG, and which parameter broke first."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gradwatch_agent.blackbox import LAYERS_MAX
from gradwatch_contracts import limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gradwatch_agent.collect.host import Tally
    from gradwatch_contracts.messages import Scalar

NAMES = ("grad_norm", "weight_norm", "grad_nonfinite", "weight_nonfinite")
ABSENT = math.nan


@dataclass(slots=True)
class Layers:
    """Norms by number of the parameter, as they arrive: `gradients` the largest of the update before clipping."""

    names: Sequence[str]
    gradients: dict[int, float] = field(default_factory=dict)
    weights: dict[int, float] = field(default_factory=dict)

    def tell(self, tally: Tally) -> None:
        """Add the table; a parameter without gradient, or not measured, has NaN in both columns of it. "nonfinite" is 1
        where any element is NaN or infinite, told by the norm."""
        listed = [
            number for number in range(min(len(self.names), LAYERS_MAX)) if number in self.gradients or number in self.weights
        ]
        if not listed:
            return
        rows = []
        for number in listed:
            gradient, weight = self.gradients.get(number), self.weights.get(number)
            rows.append((_number(gradient), _number(weight), _broken(gradient), _broken(weight)))
        index = tuple(self.names[number][: limits.NAME_CHARS_MAX] for number in listed)
        tally.tables.append(("layers", index, NAMES, pack(rows)))


def _number(norm: float | None) -> float:
    return ABSENT if norm is None else norm


def _broken(norm: float | None) -> float:
    return ABSENT if norm is None else float(not math.isfinite(norm))


def pack(rows: Sequence[Sequence[float]]) -> bytes:
    """Rows of numbers as f64 little-endian, row-major."""
    return b"".join(struct.pack(f"<{len(row)}d", *row) for row in rows)


@dataclass(slots=True)
class Broken:
    """Which parameters held a non-finite element at the end of the last update, so that the first is named when it breaks."""

    known: bool = False

    def tell(self, tally: Tally, names: Sequence[str], norms: Mapping[int, float], *, always: bool) -> None:
        """Add an event with the first broken parameter, once per breakage, and in every update when `always`."""
        broken = [number for number in sorted(norms) if not math.isfinite(norms[number])]
        if broken and (always or not self.known):
            name = names[broken[0]][: limits.NAME_CHARS_MAX]
            text = f"parameter {name} holds NaN or infinite elements; so do {len(broken) - 1} of the other {len(norms) - 1}"
            detail: dict[str, Scalar] = {"parameter": name, "count": len(broken), "parameters": len(norms)}
            tally.events.append(("nonfinite_parameter", text, detail))
        self.known = bool(broken)
