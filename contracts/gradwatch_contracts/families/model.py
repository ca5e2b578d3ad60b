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
    *(
        ColumnSpec(f"param.features.{name}", kind, rule, Level.NORMAL, Source.UPDATE, "rollout", "layer")
        for name, kind, rule in (
            ("dormant", Kind.COUNT, RankRule.SUM),
            ("units", Kind.COUNT, RankRule.SUM),
            ("norm", Kind.LAST, RankRule.RANK0),
            ("rank", Kind.LAST, RankRule.RANK0),
        )
    ),
)

_PROBED = "end of every 32nd update, of every 4th at debug"

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
    Signal(
        "param.features.dormant",
        Unit.FRACTION,
        "quotient",
        ("param.features.dormant", "param.features.units"),
        "share of the units of a probed layer whose mean |activation| is at most 0.025 of the layer's or, of a bounded "
        "activation, whose standard deviation is below 0.001; Sokar et al. (2023)",
        window=_PROBED,
    ),
    Signal(
        "param.features.norm",
        Unit.NORM,
        "value",
        ("param.features.norm",),
        "mean L2 norm of what a probed layer makes of an observation, before its non-linearity",
        window=_PROBED,
    ),
    Signal(
        "param.features.rank",
        Unit.COUNT,
        "value",
        ("param.features.rank",),
        "effective rank of the probed features: exp of the entropy of their normalised singular values; "
        "Roy and Vetterli (2007)",
        window=_PROBED,
    ),
)
