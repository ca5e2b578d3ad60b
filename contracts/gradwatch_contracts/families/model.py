"""Of the model and its optimizer."""

from __future__ import annotations

from gradwatch_contracts.columns import Kind, RankRule
from gradwatch_contracts.control import Level
from gradwatch_contracts.definitions import ColumnSpec, Signal
from gradwatch_contracts.vocabulary import Source, Unit

COLUMNS: tuple[ColumnSpec, ...] = (
    ColumnSpec("opt.adam.rms", Kind.LAST, RankRule.EQUAL, Level.DEBUG, Source.UPDATE, "step"),
    ColumnSpec("opt.adam.v_max", Kind.LAST, RankRule.EQUAL, Level.DEBUG, Source.UPDATE, "step"),
)

SIGNALS: tuple[Signal, ...] = (
    Signal(
        "opt.adam.rms",
        Unit.RATIO,
        "value",
        ("opt.adam.rms",),
        "sqrt(mean(g^2 / max(v, eps^2))), v the bias-corrected second moment with g in it: about 1, and more when v lags "
        "behind g; Wortsman et al. (2023)",
        window="first optimizer step",
    ),
    Signal(
        "opt.adam.v_max",
        Unit.NORM,
        "value",
        ("opt.adam.v_max",),
        "largest bias-corrected second moment of Adam",
        window="first optimizer step",
    ),
)
