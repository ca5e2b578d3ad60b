"""Of the model and its optimizer."""

from __future__ import annotations

from gradwatch_contracts.columns import Kind, RankRule
from gradwatch_contracts.control import Level
from gradwatch_contracts.definitions import ColumnSpec, Signal
from gradwatch_contracts.vocabulary import Source, Unit

COLUMNS: tuple[ColumnSpec, ...] = (
    ColumnSpec("opt.adam.rms", Kind.LAST, RankRule.EQUAL, Level.DEBUG, Source.UPDATE, "step"),
    ColumnSpec("opt.adam.v_max", Kind.LAST, RankRule.EQUAL, Level.DEBUG, Source.UPDATE, "step"),
    ColumnSpec("rnn.h.within", Kind.SUM, RankRule.SUM, Level.NORMAL, Source.UPDATE, "recurrent", "phase"),
    ColumnSpec("rnn.reset", Kind.MOMENTS, RankRule.MERGE, Level.NORMAL, Source.UPDATE, "recurrent", "phase"),
    ColumnSpec("rnn.reset.violations", Kind.COUNT, RankRule.SUM, Level.NORMAL, Source.UPDATE, "recurrent", "phase"),
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
    Signal(
        "rnn.h.diversity",
        Unit.RATIO,
        "rms_rate",
        ("rnn.h.within", "rnn.h"),
        "standard deviation of a hidden unit over the sequences of a batch, root mean square over units: 0 is a memory that "
        "holds nothing of its sequence",
    ),
    Signal("rnn.reset.share", Unit.FRACTION, "mean", ("rnn.reset",), "share of the states that should just have been reset"),
    Signal(
        "rnn.reset.violations",
        Unit.COUNT,
        "value",
        ("rnn.reset.violations",),
        "elements of the hidden state that are not 0 although reset= says that it was reset",
    ),
)
