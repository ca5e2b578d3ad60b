"""The tables of a black box as norms over updates. What their rows are called: docs/protocol.md, TABLE."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_daemon.evidence.deviation import Mask
    from gradwatch_daemon.records import F64, I64, TableRecord

KIND = "blackbox"
LABEL = re.compile(r"(grad|bad|weight)@(\d{1,18})(?:\.(\d{1,18}))?")


@dataclass(slots=True)
class UpdateNorms:
    """One update, by layer: the norms at each step, those of the update as a whole, the first steps at which a norm was not
    finite (where only the whole is known), the weights at its end."""

    steps: dict[int, dict[str, float]] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    def gradients(self) -> dict[str, float]:
        """The largest norm of each layer, NaN where one was."""
        found = dict(self.whole)
        for norms in self.steps.values():
            for layer, norm in norms.items():
                found[layer] = _larger(found.get(layer, norm), norm)
        return found


@dataclass(frozen=True, slots=True)
class BlackBox:
    """Updates in ascending order, of one rank."""

    updates: dict[int, UpdateNorms]

    def matrix(self, what: str) -> tuple[list[str], I64, F64, Mask]:
        """The layers, the updates, the norms f64[updates, layers] of `gradient` or `weight`, and where there is one."""
        rows = [norms.gradients() if what == "gradient" else norms.weights for norms in self.updates.values()]
        layers = list(dict.fromkeys(layer for row in rows for layer in row))
        values = np.array([[row.get(layer, 0.0) for layer in layers] for row in rows], np.float64).reshape(
            len(rows), len(layers)
        )
        measured = np.array([[layer in row for layer in layers] for row in rows], np.bool_).reshape(len(rows), len(layers))
        return layers, np.array(list(self.updates), np.int64), values, measured


def read_tables(tables: Sequence[TableRecord], first: int, last: int) -> BlackBox:
    """The norms of updates `first` to `last`, both included, from tables in order of arrival; a later one of the same update
    replaces what an earlier one said of the same layers. Rows of another kind are skipped."""
    found: dict[int, UpdateNorms] = {}
    for table in tables:
        values = np.frombuffer(table.values, "<f8").reshape(len(table.index), len(table.names))
        told: dict[int, UpdateNorms] = {}
        for label, row in zip(table.index, values.tolist(), strict=True):
            match = LABEL.fullmatch(label)
            if match is None or not first <= int(match[2]) <= last:
                continue
            norms = told.setdefault(int(match[2]), UpdateNorms())
            _put(norms, match[1], match[3], dict(zip(table.names, row, strict=True)))
        for update, norms in told.items():
            _join(found.setdefault(update, UpdateNorms()), norms)
    return BlackBox(dict(sorted(found.items())))


def _put(norms: UpdateNorms, what: str, step: str | None, row: dict[str, float]) -> None:
    """One row of a table; of two with one label each has a part of the update."""
    if what == "weight":
        norms.weights.update(row)
    elif what == "bad":
        for layer, at in row.items():
            if np.isfinite(at):
                norms.broken[layer] = min(int(at), norms.broken.get(layer, int(at)))
    elif step is not None:
        norms.steps.setdefault(int(step), {}).update(row)
    else:
        for layer, norm in row.items():
            norms.whole[layer] = _larger(norms.whole.get(layer, norm), norm)


def _join(held: UpdateNorms, new: UpdateNorms) -> None:
    for step, norms in new.steps.items():
        held.steps.setdefault(step, {}).update(norms)
    held.whole.update(new.whole)
    held.broken.update(new.broken)
    held.weights.update(new.weights)


def _larger(held: float, norm: float) -> float:
    return norm if np.isnan(norm) else held if np.isnan(held) else max(held, norm)
