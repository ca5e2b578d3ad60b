"""What one layer makes of the probed batch: units that do nothing, the size of its output, the rank of the features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gradwatch_agent.device.transfer import host_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.collect.host import Tally
    from gradwatch_agent.device.reduce import Reducer

DORMANT, UNITS, NORM, RANK = (f"param.features.{name}" for name in ("dormant", "units", "norm", "rank"))

TAU = 0.025
"""A unit is dormant when its mean |activation| is at most this share of its layer's (Sokar et al., 2023)."""

STILL = 1e-3
"""A unit of a bounded activation is dormant when its standard deviation is below: tanh at 1 is as dead as ReLU at 0."""

BOUNDED = (torch.nn.Tanh, torch.nn.Sigmoid, torch.nn.Softsign, torch.nn.Hardtanh, torch.nn.Hardsigmoid)
ACTIVATIONS = "torch.nn.modules.activation"

RANK_SIDE_MAX = 128
"""Rows and columns of the matrix whose eigenvalues are taken on the host."""

SEQUENCE_DIMS = 3


@dataclass(frozen=True, slots=True)
class LayerReader:
    """Numbers of one layer: those of `columns`, in this order, of which the rank is a matrix, `side` x `side`, and the last."""

    layer: str
    columns: tuple[str, ...]
    side: int = 0

    def tell(self, tally: Tally, values: Sequence[float]) -> None:
        """See host.Reader."""
        for name, value in zip(self.columns, values, strict=False):
            if name != RANK:
                tally.add(name, (value,), self.layer)
        if self.side:
            tally.add(RANK, (effective_rank(values[-self.side * self.side :], self.side),), self.layer)


def look(
    name: str, module: torch.nn.Module | None, made: torch.Tensor, reducer: Reducer, *, last: bool
) -> tuple[torch.Tensor, LayerReader]:
    """Reduce the output of one layer. Of an activation its dormant units, of any other layer its norm, as this is what a
    non-linearity gets; of a whole module both; of the last layer the rank, too."""
    activation = module is not None and type(module).__module__ == ACTIVATIONS
    x = torch.mul(made, reducer.one)
    parts: list[torch.Tensor] = []
    columns: tuple[str, ...] = ()
    if activation or module is None:
        parts += _dormant(x, reducer, bounded=isinstance(module, BOUNDED))
        columns += (DORMANT, UNITS)
    if not activation:
        parts.append(torch.linalg.vector_norm(x.flatten(1), 2, 1).mean().reshape(1))
        columns += (NORM,)
    side = 0
    if last:
        rows = x.flatten(1)[:RANK_SIDE_MAX]
        wide = rows.shape[1] >= rows.shape[0]
        gram = rows @ rows.T if wide else rows.T @ rows
        side = gram.shape[0]
        parts.append(gram.reshape(-1))
        columns += (RANK,)
    return torch.cat(parts), LayerReader(name, columns, side)


def _dormant(x: torch.Tensor, reducer: Reducer, *, bounded: bool) -> list[torch.Tensor]:
    """How many units are dormant, and how many there are. A unit is a feature, or a channel of a picture."""
    units = x.dim() - 1 if x.dim() <= SEQUENCE_DIMS else 1
    others = [dim for dim in range(x.dim()) if dim != units]
    if bounded:
        still = torch.count_nonzero(x.std(others, correction=0) < STILL)
    else:
        score = x.abs().mean(others)
        still = torch.count_nonzero(score <= TAU * score.mean())
    return [torch.mul(still, reducer.one), torch.mul(reducer.one, float(x.shape[units]))]


def effective_rank(gram: Sequence[float], side: int) -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli, 2007), from the Gram matrix, on the host; 0 when
    all features are 0, NaN when one is not finite."""
    if not math.isfinite(sum(gram)):
        return math.nan
    matrix = torch.tensor(gram, dtype=torch.float64, device="cpu").reshape(side, side)
    singular = torch.linalg.eigvalsh(matrix).clamp_(min=0.0).sqrt_()
    total = singular.sum()
    if not host_value(total):
        return 0.0
    share = singular / total
    return math.exp(host_value(torch.special.entr(share).sum()) or 0.0)
