"""Of a rollout: the range of values and returns, how they agree, and what rewards are made of."""

from __future__ import annotations

from gradwatch_contracts.columns import Kind, RankRule
from gradwatch_contracts.control import Level
from gradwatch_contracts.definitions import ColumnSpec, Signal
from gradwatch_contracts.vocabulary import Source, Unit


def _rollout(name: str, kind: Kind, rule: RankRule) -> ColumnSpec:
    return ColumnSpec(name, kind, rule, Level.NORMAL, Source.ROLLOUT, "rollout")


COLUMNS: tuple[ColumnSpec, ...] = (
    _rollout("value.pred.min", Kind.MIN, RankRule.MIN),
    _rollout("value.pred.max", Kind.MAX, RankRule.MAX),
    _rollout("value.target.min", Kind.MIN, RankRule.MIN),
    _rollout("value.target.max", Kind.MAX, RankRule.MAX),
    _rollout("reward.step.absmax", Kind.MAX, RankRule.MAX),
    _rollout("reward.step.zeros", Kind.COUNT, RankRule.SUM),
    _rollout("obs.input.saturated", Kind.COUNT, RankRule.SUM),
    _rollout("obs.drift", Kind.MOMENTS, RankRule.MERGE),
    _rollout("obs.drift.max", Kind.MAX, RankRule.MAX),
    _rollout("obs.normalizer.drift", Kind.MAX, RankRule.MAX),
    _rollout("obs.constant", Kind.COUNT, RankRule.MAX),
    _rollout("obs.features", Kind.COUNT, RankRule.MAX),
)


def _range(column: str, what: str) -> tuple[Signal, ...]:
    return tuple(
        Signal(f"{column}.{end}", Unit.RETURN, "value", (f"{column}.{end}",), f"{word} of {what}", sign="signed")
        for end, word in (("min", "smallest"), ("max", "largest"))
    )


SIGNALS: tuple[Signal, ...] = (
    *_range("value.pred", "the critic's values at collection"),
    *_range("value.target", "the returns the critic is fitted to"),
    Signal(
        "value.envelope",
        Unit.RATIO,
        "envelope",
        ("value.pred.min", "value.pred.max", "value.target.min", "value.target.max"),
        "largest |value| / largest |return|: a critic far above 1 predicts what it never saw",
    ),
    Signal(
        "value.spread",
        Unit.RATIO,
        "std_ratio",
        ("value.pred", "value.target"),
        "std of the values / std of the returns: near 0 the critic is a constant",
    ),
    Signal(
        "value.corr",
        Unit.RATIO,
        "correlation",
        ("value.pred", "value.target", "value.error"),
        "Pearson's correlation of values at collection and returns",
        sign="signed",
    ),
    Signal("reward.step.absmax", Unit.REWARD, "value", ("reward.step.absmax",), "largest |reward| of one environment step"),
    Signal(
        "reward.step.zero_share",
        Unit.FRACTION,
        "rate",
        ("reward.step.zeros", "reward.step"),
        "share of environment steps with a reward of exactly 0",
    ),
    Signal(
        "obs.input.saturation",
        Unit.FRACTION,
        "rate",
        ("obs.input.saturated", "obs.input"),
        "share of the observations at obs_clip or beyond",
    ),
    Signal(
        "obs.drift.rms",
        Unit.RATIO,
        "rms",
        ("obs.drift",),
        "root mean square over features of |mean - mean at the start| / std at the start; the start is the first 8 updates",
    ),
    Signal(
        "obs.drift.max",
        Unit.RATIO,
        "value",
        ("obs.drift.max",),
        "largest |mean - mean at the start| / std at the start of a feature",
        window="worst feature",
    ),
    Signal(
        "obs.normalizer.drift",
        Unit.RATIO,
        "value",
        ("obs.normalizer.drift",),
        "largest |mean - mean of the normaliser| / std of the normaliser of a feature",
        window="worst feature",
    ),
    Signal(
        "obs.constant_share",
        Unit.FRACTION,
        "quotient",
        ("obs.constant", "obs.features"),
        "share of the features that had one value in all steps looked at",
    ),
)
