"""The registry: every column the agent can send, every signal the daemon derives from them.

Everything else reads it: the collectors produce these columns and no others, `derive` computes these signals,
detectors name them, REST, CLI and docs list them. Semantics are typed (estimator, window, source) because libraries
give one name to different numbers; the formulas and their sources are in docs/signals.md.
"""

from __future__ import annotations

from gradwatch_contracts.columns import Kind, RankRule
from gradwatch_contracts.control import Level
from gradwatch_contracts.definitions import ColumnSpec, Signal
from gradwatch_contracts.families import host, model, policy, rollout
from gradwatch_contracts.vocabulary import Source, Stage, Unit

__all__ = ["COLUMNS", "SIGNALS", "ColumnSpec", "Signal", "Source", "Stage", "Unit", "signal_stage"]


def _rollout(name: str, kind: Kind, rule: RankRule) -> ColumnSpec:
    return ColumnSpec(name, kind, rule, Level.NORMAL, Source.ROLLOUT, "rollout")


def _ppo(name: str, kind: Kind, rule: RankRule, per: str = "") -> ColumnSpec:
    return ColumnSpec(name, kind, rule, Level.NORMAL, Source.UPDATE, "ppo", per)


def _step(name: str, kind: Kind, rule: RankRule, level: Level, *, call: str = "step", per: str = "") -> ColumnSpec:
    return ColumnSpec(name, kind, rule, level, Source.HOST, call, per)


def _clip(name: str, kind: Kind, rule: RankRule, per: str = "") -> ColumnSpec:
    return ColumnSpec(name, kind, rule, Level.NORMAL, Source.UPDATE, "clip", per)


def _recurrent(name: str, kind: Kind, rule: RankRule) -> ColumnSpec:
    return ColumnSpec(name, kind, rule, Level.NORMAL, Source.UPDATE, "recurrent", "phase")


def _observed_rollout(name: str) -> tuple[ColumnSpec, ...]:
    """Moments of a rollout tensor, and how many of its elements were not finite."""
    return (_rollout(name, Kind.MOMENTS, RankRule.MERGE), _rollout(f"{name}.nonfinite", Kind.COUNT, RankRule.SUM))


def _observed_ppo(name: str) -> tuple[ColumnSpec, ...]:
    """The same over all minibatches, and the first minibatch that held a non-finite element."""
    return (
        _ppo(name, Kind.MOMENTS, RankRule.MERGE),
        _ppo(f"{name}.nonfinite", Kind.COUNT, RankRule.SUM),
        _ppo(f"{name}.nonfinite_mb", Kind.MIN, RankRule.MIN),
    )


_COLUMNS: tuple[ColumnSpec, ...] = (
    *_observed_rollout("obs.input"),
    *_observed_rollout("reward.step"),
    *_observed_rollout("value.pred"),
    *_observed_rollout("value.target"),
    _rollout("value.error", Kind.MOMENTS, RankRule.MERGE),
    *_observed_rollout("adv.raw"),
    *_observed_ppo("value.new"),
    *_observed_ppo("value.new.error"),
    *_observed_ppo("adv.used"),
    *_observed_ppo("policy.logratio"),
    _ppo("policy.logratio.absmax", Kind.MAX, RankRule.MAX),
    _ppo("policy.ratio.max", Kind.MAX, RankRule.MAX),
    _ppo("policy.ratio.min", Kind.MIN, RankRule.MIN),
    _ppo("policy.ratio.first_mb_dev", Kind.MAX, RankRule.MAX),
    _ppo("policy.kl.k3", Kind.MOMENTS, RankRule.MERGE),
    _ppo("policy.kl.k3.last", Kind.LAST, RankRule.NONE),
    _ppo("policy.kl.k3.max", Kind.MAX, RankRule.MAX),
    _ppo("policy.clipped", Kind.COUNT, RankRule.SUM),
    _ppo("policy.entropy", Kind.MOMENTS, RankRule.MERGE, "head"),
    _ppo("policy.entropy.limit", Kind.LAST, RankRule.EQUAL, "head"),
    *_observed_ppo("loss.total"),
    _recurrent("rnn.h", Kind.MOMENTS, RankRule.MERGE),
    _recurrent("rnn.h.saturated", Kind.COUNT, RankRule.SUM),
    _recurrent("rnn.h.nonfinite", Kind.COUNT, RankRule.SUM),
    _recurrent("rnn.c", Kind.MOMENTS, RankRule.MERGE),
    _recurrent("rnn.c.absmax", Kind.MAX, RankRule.MAX),
    _recurrent("rnn.c.nonfinite", Kind.COUNT, RankRule.SUM),
    _clip("grad.norm", Kind.MOMENTS, RankRule.MERGE),
    _clip("grad.norm.max", Kind.MAX, RankRule.MAX),
    _clip("grad.norm.nonfinite", Kind.COUNT, RankRule.SUM),
    _clip("grad.norm.nonfinite_mb", Kind.MIN, RankRule.MIN),
    _clip("grad.clipped", Kind.COUNT, RankRule.SUM),
    _clip("grad.clip_limit", Kind.LAST, RankRule.EQUAL),
    _clip("grad.tensors", Kind.COUNT, RankRule.SUM),
    _clip("grad.vanishing", Kind.COUNT, RankRule.SUM),
    _clip("grad.exploding", Kind.COUNT, RankRule.SUM),
    _clip("grad.tensor_norm.min", Kind.MIN, RankRule.MIN),
    _clip("grad.tensor_norm.max", Kind.MAX, RankRule.MAX),
    _clip("grad.group_norm", Kind.MOMENTS, RankRule.MERGE, "group"),
    ColumnSpec("param.norm", Kind.LAST, RankRule.EQUAL, Level.NORMAL, Source.UPDATE, "step"),
    ColumnSpec("param.nonfinite", Kind.COUNT, RankRule.MAX, Level.NORMAL, Source.UPDATE, "step"),
    ColumnSpec("opt.update_ratio", Kind.LAST, RankRule.EQUAL, Level.DEBUG, Source.UPDATE, "step"),
    _step("opt.steps", Kind.COUNT, RankRule.EQUAL, Level.NORMAL),
    _step("opt.skipped", Kind.COUNT, RankRule.EQUAL, Level.NORMAL),
    _step("opt.lr", Kind.LAST, RankRule.EQUAL, Level.MINIMAL),
    _step("episode.return", Kind.MOMENTS, RankRule.MERGE, Level.MINIMAL),
    _step("sys.update_ms", Kind.LAST, RankRule.MAX, Level.MINIMAL),
    _step("sys.agent_ms", Kind.LAST, RankRule.MAX, Level.MINIMAL),
    _step("user", Kind.LAST, RankRule.RANK0, Level.MINIMAL, call="log", per="key"),
    *(spec for family in (policy, rollout, model, host) for spec in family.COLUMNS),
)

COLUMNS: dict[str, ColumnSpec] = {spec.name: spec for spec in _COLUMNS}
"""Column name → spec, in wire order."""


def _nonfinite(column: str, what: str) -> tuple[Signal, ...]:
    counted = Signal(f"{column}.nonfinite", Unit.COUNT, "value", (f"{column}.nonfinite",), f"NaN or infinite {what}")
    if f"{column}.nonfinite_mb" not in COLUMNS:
        return (counted,)
    first = Signal(
        f"{column}.nonfinite_mb", Unit.INDEX, "value", (f"{column}.nonfinite_mb",), f"first minibatch with non-finite {what}"
    )
    return counted, first


def _moments(column: str, unit: Unit, what: str) -> tuple[Signal, ...]:
    return (
        Signal(f"{column}.mean", unit, "mean", (column,), f"mean of {what}", sign="signed"),
        Signal(f"{column}.std", unit, "std", (column,), f"population standard deviation of {what}"),
    )


_SIGNALS: tuple[Signal, ...] = (
    *_moments("obs.input", Unit.OBSERVATION, "all elements of the observations"),
    *_nonfinite("obs.input", "elements of the observations"),
    *_moments("reward.step", Unit.REWARD, "rewards per environment step"),
    *_nonfinite("reward.step", "rewards"),
    *_moments("value.pred", Unit.RETURN, "the critic's values at collection"),
    *_nonfinite("value.pred", "values at collection"),
    *_moments("value.target", Unit.RETURN, "returns the critic is fitted to"),
    *_nonfinite("value.target", "returns"),
    Signal(
        "value.explained_variance",
        Unit.RATIO,
        "explained_variance",
        ("value.error", "value.target"),
        "1 - Var(return - value) / Var(return), values at collection",
        sign="signed",
    ),
    Signal("value.error.rms", Unit.RETURN, "rms", ("value.error",), "root mean square of return - value at collection"),
    Signal(
        "value.nmse",
        Unit.RATIO,
        "nmse",
        ("value.error", "value.target"),
        "mean (return - value)^2 / Var(return), values at collection: 1 is no better than a constant, and sees bias",
    ),
    *_moments("adv.raw", Unit.RETURN, "advantages before normalisation"),
    *_nonfinite("adv.raw", "advantages before normalisation"),
    *_moments("value.new", Unit.RETURN, "values of the minibatches, as the critic changes"),
    *_nonfinite("value.new", "values of the minibatches"),
    Signal(
        "value.new.error.rms", Unit.RETURN, "rms", ("value.new.error",), "root mean square of return - value over minibatches"
    ),
    *_nonfinite("value.new.error", "return - value of the minibatches"),
    *_moments("adv.used", Unit.RETURN, "advantages as passed to the loss"),
    *_nonfinite("adv.used", "advantages as passed to the loss"),
    Signal("policy.kl.k1", Unit.NATS, "negative_mean", ("policy.logratio",), "mean of -log r, may be negative", sign="signed"),
    Signal("policy.kl.k3", Unit.NATS, "mean", ("policy.kl.k3",), "mean of (r - 1) - log r"),
    Signal("policy.kl.k3.last", Unit.NATS, "value", ("policy.kl.k3.last",), "mean of (r - 1) - log r", window="last minibatch"),
    Signal(
        "policy.kl.k3.max",
        Unit.NATS,
        "value",
        ("policy.kl.k3.max",),
        "largest minibatch mean of (r - 1) - log r",
        window="worst minibatch",
    ),
    Signal("policy.logratio.std", Unit.NATS, "std", ("policy.logratio",), "population standard deviation of log r"),
    *_nonfinite("policy.logratio", "log-probability ratios"),
    Signal("policy.ratio.max", Unit.RATIO, "value", ("policy.ratio.max",), "largest r = new / old probability"),
    Signal("policy.ratio.min", Unit.RATIO, "value", ("policy.ratio.min",), "smallest r = new / old probability"),
    Signal(
        "policy.ratio.tail_index",
        Unit.RATIO,
        "tail_index",
        ("policy.logratio.absmax", "policy.logratio"),
        "max |log r| / (std(log r) sqrt(2 ln N)), N samples",
    ),
    Signal(
        "policy.ratio.first_mb_dev",
        Unit.RATIO,
        "value",
        ("policy.ratio.first_mb_dev",),
        "max |r - 1| before the first optimizer step",
        window="minibatches before the first optimizer step",
    ),
    Signal(
        "policy.clip_fraction",
        Unit.FRACTION,
        "rate",
        ("policy.clipped", "policy.logratio"),
        "share of samples with |r - 1| > clip",
    ),
    Signal("policy.entropy.raw", Unit.NATS, "mean", ("policy.entropy",), "mean entropy of the policy", sign="signed"),
    Signal(
        "policy.entropy.norm",
        Unit.FRACTION,
        "share",
        ("policy.entropy", "policy.entropy.limit"),
        "mean entropy / ln(number of actions)",
        sign="signed",
    ),
    Signal("loss.total", Unit.LOSS, "mean", ("loss.total",), "mean of the minibatch losses", sign="signed"),
    *_nonfinite("loss.total", "minibatch losses"),
    Signal(
        "grad.norm.mean", Unit.NORM, "mean", ("grad.norm",), "mean over optimizer steps of the global L2 norm before clipping"
    ),
    Signal(
        "grad.norm.max",
        Unit.NORM,
        "value",
        ("grad.norm.max",),
        "largest global L2 norm before clipping",
        window="worst optimizer step",
    ),
    *_nonfinite("grad.norm", "gradient norms"),
    Signal(
        "grad.clip_fraction", Unit.FRACTION, "rate", ("grad.clipped", "grad.norm"), "share of optimizer steps that were clipped"
    ),
    Signal(
        "grad.clip_limit",
        Unit.NORM,
        "value",
        ("grad.clip_limit",),
        "largest norm the trainer allows",
        window="last optimizer step",
    ),
    Signal(
        "grad.tensor_norm.min",
        Unit.NORM,
        "value",
        ("grad.tensor_norm.min",),
        "smallest L2 norm of one parameter's gradient before clipping",
        window="worst optimizer step",
    ),
    Signal(
        "grad.tensor_norm.max",
        Unit.NORM,
        "value",
        ("grad.tensor_norm.max",),
        "largest L2 norm of one parameter's gradient before clipping",
        window="worst optimizer step",
    ),
    Signal(
        "grad.tensor_norm.over_clip",
        Unit.RATIO,
        "quotient",
        ("grad.tensor_norm.max", "grad.clip_limit"),
        "largest norm of one parameter's gradient / largest norm allowed",
        window="worst optimizer step",
    ),
    Signal(
        "grad.vanishing.share",
        Unit.FRACTION,
        "quotient",
        ("grad.vanishing", "grad.tensors"),
        "share of parameter gradients with a norm below 1e-7",
    ),
    Signal(
        "grad.exploding.share",
        Unit.FRACTION,
        "quotient",
        ("grad.exploding", "grad.tensors"),
        "share of parameter gradients with a norm above 10 times the clip limit",
    ),
    Signal(
        "grad.health",
        Unit.FRACTION,
        "gradient_health",
        ("grad.vanishing", "grad.exploding", "grad.tensors", "grad.norm.nonfinite"),
        "1 - 0.5 share vanishing - 0.8 share exploding, 0 with a non-finite norm, never below 0",
    ),
    Signal("grad.group_norm", Unit.NORM, "mean", ("grad.group_norm",), "mean L2 norm of the gradient of one parameter group"),
    Signal(
        "grad.group_ratio",
        Unit.RATIO,
        "mean_ratio",
        ("grad.group_norm", "grad.norm"),
        "mean norm of one parameter group / mean norm of all",
    ),
    Signal("rnn.h.rms", Unit.RATIO, "rms", ("rnn.h",), "root mean square of the hidden state, below 1 by construction"),
    Signal(
        "rnn.h.saturation", Unit.FRACTION, "rate", ("rnn.h.saturated", "rnn.h"), "share of the hidden state with |h| > 0.99"
    ),
    *_nonfinite("rnn.h", "elements of the hidden state"),
    Signal("rnn.c.rms", Unit.RATIO, "rms", ("rnn.c",), "root mean square of the cell state"),
    Signal("rnn.c.absmax", Unit.RATIO, "value", ("rnn.c.absmax",), "largest |c| of the cell state"),
    *_nonfinite("rnn.c", "elements of the cell state"),
    Signal("param.norm", Unit.NORM, "value", ("param.norm",), "global L2 norm of the weights", window="end of update"),
    *_nonfinite("param", "parameter tensors"),
    Signal(
        "opt.update_ratio",
        Unit.RATIO,
        "value",
        ("opt.update_ratio",),
        "L2 norm of the change of the weights / L2 norm of the weights",
    ),
    Signal("opt.steps", Unit.COUNT, "value", ("opt.steps",), "optimizer steps taken"),
    Signal("opt.skipped", Unit.COUNT, "value", ("opt.skipped",), "minibatches whose optimizer step did not happen"),
    Signal(
        "opt.lr", Unit.RATE, "value", ("opt.lr",), "learning rate of the first parameter group", window="last optimizer step"
    ),
    *_moments("episode.return", Unit.RETURN, "returns of the episodes finished in this update"),
    Signal("episode.count", Unit.COUNT, "count", ("episode.return",), "episodes finished in this update"),
    Signal("sys.update_ms", Unit.MILLISECONDS, "value", ("sys.update_ms",), "wall time from the previous step() to this one"),
    Signal("sys.agent_ms", Unit.MILLISECONDS, "value", ("sys.agent_ms",), "time spent inside the agent's calls"),
    Signal("sys.agent_share", Unit.FRACTION, "quotient", ("sys.agent_ms", "sys.update_ms"), "agent's calls / whole update"),
    Signal("user", Unit.UNKNOWN, "value", ("user",), "scalar given to log() or step()", window="last value", sign="signed"),
    *(signal for family in (policy, rollout, model, host) for signal in family.SIGNALS),
)

SIGNALS: dict[str, Signal] = {signal.name: signal for signal in _SIGNALS}
"""Signal name → definition, in the order they are shown."""


def signal_stage(name: str) -> Stage:
    """Stage of a signal by its name."""
    return SIGNALS[name].stage
