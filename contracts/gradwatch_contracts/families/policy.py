"""Of the policy: how the ratio is spread, log-probabilities, standard deviations and actions. Sources: docs/signals.md."""

from __future__ import annotations

from gradwatch_contracts.columns import Kind, RankRule
from gradwatch_contracts.control import Level
from gradwatch_contracts.definitions import ColumnSpec, Signal
from gradwatch_contracts.vocabulary import Source, Unit


def _ppo(name: str, kind: Kind, rule: RankRule) -> ColumnSpec:
    return ColumnSpec(name, kind, rule, Level.NORMAL, Source.UPDATE, "ppo")


COLUMNS: tuple[ColumnSpec, ...] = (
    _ppo("policy.ratio", Kind.MOMENTS, RankRule.MERGE),
    _ppo("policy.kl.k3.sample_max", Kind.MAX, RankRule.MAX),
    _ppo("policy.clipped.high", Kind.COUNT, RankRule.SUM),
    _ppo("policy.clipped.low", Kind.COUNT, RankRule.SUM),
    _ppo("policy.logp.min", Kind.MIN, RankRule.MIN),
    _ppo("policy.logp.max", Kind.MAX, RankRule.MAX),
    _ppo("policy.minibatches", Kind.COUNT, RankRule.EQUAL),
    _ppo("adv.used.shape", Kind.MOMENTS4, RankRule.MERGE),
    _ppo("adv.used.absmax", Kind.MAX, RankRule.MAX),
    _ppo("policy.std", Kind.MOMENTS, RankRule.MERGE),
    _ppo("policy.std.min", Kind.MIN, RankRule.MIN),
    _ppo("policy.std.max", Kind.MAX, RankRule.MAX),
    ColumnSpec("policy.action.dominance", Kind.MAX, RankRule.MAX, Level.NORMAL, Source.ROLLOUT, "rollout", "head"),
    ColumnSpec("policy.action", Kind.MOMENTS, RankRule.MERGE, Level.NORMAL, Source.ROLLOUT, "rollout"),
    ColumnSpec("policy.action.saturated", Kind.COUNT, RankRule.SUM, Level.NORMAL, Source.ROLLOUT, "rollout"),
)

SIGNALS: tuple[Signal, ...] = (
    Signal(
        "policy.kl.k2",
        Unit.NATS,
        "half_mean_square",
        ("policy.logratio",),
        "mean of (log r)^2 / 2; k3 well above it is the work of a few samples with a large r",
    ),
    Signal(
        "policy.kl.k3.sample_max",
        Unit.NATS,
        "value",
        ("policy.kl.k3.sample_max",),
        "largest (r - 1) - log r of one sample",
        window="worst sample",
    ),
    Signal(
        "policy.ess",
        Unit.FRACTION,
        "effective_share",
        ("policy.ratio",),
        "effective sample size / N: (sum of r)^2 / (N sum of r^2); Kong (1992)",
    ),
    Signal(
        "policy.clip_fraction.high",
        Unit.FRACTION,
        "rate",
        ("policy.clipped.high", "policy.logratio"),
        "share of samples with r > 1 + clip",
    ),
    Signal(
        "policy.clip_fraction.low",
        Unit.FRACTION,
        "rate",
        ("policy.clipped.low", "policy.logratio"),
        "share of samples with r < 1 - clip",
    ),
    Signal(
        "policy.logp.min",
        Unit.NATS,
        "value",
        ("policy.logp.min",),
        "smallest log-probability of an action that was taken, by the policy in training",
        window="worst sample",
        sign="signed",
    ),
    Signal(
        "policy.logp.max",
        Unit.NATS,
        "value",
        ("policy.logp.max",),
        "largest log-probability of an action that was taken, by the policy in training",
        window="largest sample",
        sign="signed",
    ),
    Signal("policy.samples", Unit.COUNT, "count", ("policy.logratio",), "samples of all minibatches, each epoch anew"),
    Signal("policy.minibatches", Unit.COUNT, "value", ("policy.minibatches",), "calls of ppo()"),
    Signal(
        "policy.epochs",
        Unit.RATIO,
        "count_ratio",
        ("policy.logratio", "adv.raw"),
        "samples of all minibatches / samples of the rollout",
    ),
    Signal(
        "adv.used.skew",
        Unit.RATIO,
        "skew",
        ("adv.used.shape",),
        "third standardised moment of the advantages as passed to the loss",
        sign="signed",
    ),
    Signal(
        "adv.used.kurtosis",
        Unit.RATIO,
        "kurtosis",
        ("adv.used.shape",),
        "fourth standardised moment of the advantages as passed to the loss: 3 for a Gaussian",
    ),
    Signal(
        "adv.used.absmax",
        Unit.RETURN,
        "value",
        ("adv.used.absmax",),
        "largest |advantage| as passed to the loss",
        window="worst sample",
    ),
    Signal(
        "policy.std.min",
        Unit.ACTION,
        "value",
        ("policy.std.min",),
        "smallest standard deviation of an action",
        window="last minibatch",
    ),
    Signal(
        "policy.std.mean",
        Unit.ACTION,
        "mean",
        ("policy.std",),
        "mean standard deviation of the actions",
        window="last minibatch",
    ),
    Signal(
        "policy.std.max",
        Unit.ACTION,
        "value",
        ("policy.std.max",),
        "largest standard deviation of an action",
        window="last minibatch",
    ),
    Signal(
        "policy.action.dominance",
        Unit.FRACTION,
        "value",
        ("policy.action.dominance",),
        "share of the most frequent discrete action; of a large rollout evenly spaced steps are looked at",
    ),
    Signal(
        "policy.action.saturation",
        Unit.FRACTION,
        "rate",
        ("policy.action.saturated", "policy.action"),
        "share of the numbers of continuous actions that lie on their bound or beyond",
    ),
    Signal(
        "policy.action.mean",
        Unit.ACTION,
        "mean",
        ("policy.action",),
        "mean of all numbers of the continuous actions",
        sign="signed",
    ),
    Signal(
        "policy.action.std",
        Unit.ACTION,
        "std",
        ("policy.action",),
        "population standard deviation of all numbers of the continuous actions",
    ),
)
