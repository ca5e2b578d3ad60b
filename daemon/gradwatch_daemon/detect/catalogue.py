"""The one list of detectors, and the profiles made of it.

The order is the order of causes: of findings of one update, minibatch and stage, the first here is the root.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgpack

from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import nearest
from gradwatch_daemon.detect.kinds import (
    advantage_degenerate,
    clip_saturation,
    constant_critic,
    critic_divergence,
    entropy_collapse,
    entropy_explosion,
    entropy_low,
    gradient_drift,
    gradient_exploding,
    gradient_unhealthy,
    gradient_vanishing,
    kl_chronic,
    kl_extreme,
    kl_spike,
    kl_tail,
    lstm_unhealthy,
    memory_growth,
    no_learning,
    nonfinite,
    observation_unhealthy,
    optimizer_precursor,
    performance_degradation,
    rank_desync,
    rank_missing,
    rank_slow,
    ratio_collapse,
    ratio_explosion,
    recurrent_reset,
    representation_collapse,
    reward_unhealthy,
    rollout_mismatch,
    skipped_steps,
    slow_updates,
    stall,
    std_collapse,
    std_explosion,
    telemetry_frozen,
    telemetry_gap,
    update_stalled,
    value_collapse,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradwatch_daemon.detect.spec import Check, Spec
    from gradwatch_daemon.records.rules import Rule, Threshold

CATALOGUE: tuple[Spec, ...] = (
    nonfinite.SPEC,
    observation_unhealthy.SPEC,
    reward_unhealthy.SPEC,
    rollout_mismatch.SPEC,
    recurrent_reset.SPEC,
    lstm_unhealthy.SPEC,
    representation_collapse.SPEC,
    gradient_vanishing.SPEC,
    critic_divergence.SPEC,
    value_collapse.SPEC,
    constant_critic.SPEC,
    advantage_degenerate.SPEC,
    std_collapse.SPEC,
    ratio_explosion.SPEC,
    kl_extreme.SPEC,
    kl_spike.SPEC,
    kl_tail.SPEC,
    kl_chronic.SPEC,
    ratio_collapse.SPEC,
    gradient_exploding.SPEC,
    entropy_collapse.SPEC,
    entropy_low.SPEC,
    entropy_explosion.SPEC,
    std_explosion.SPEC,
    gradient_unhealthy.SPEC,
    gradient_drift.SPEC,
    clip_saturation.SPEC,
    update_stalled.SPEC,
    optimizer_precursor.SPEC,
    skipped_steps.SPEC,
    performance_degradation.SPEC,
    no_learning.SPEC,
    slow_updates.SPEC,
    memory_growth.SPEC,
    stall.SPEC,
    telemetry_frozen.SPEC,
    telemetry_gap.SPEC,
    rank_missing.SPEC,
    rank_desync.SPEC,
    rank_slow.SPEC,
)

PROFILES = ("default", "classic")

REVISION = 3
"""Raised when the code of a detector changes what it finds, so that the rules hash changes with it."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A detector of another package that is not there: its name, its package, and why."""

    name: str
    origin: str
    reason: str


@dataclass(frozen=True, slots=True)
class Extensions:
    """Detectors of other packages. `origins` are kind → package and version."""

    specs: tuple[Spec, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    broken: tuple[Broken, ...] = ()


NO_EXTENSIONS = Extensions()


@dataclass(frozen=True, slots=True)
class Detector:
    """A rule and the function that applies it; `per` as in `Spec`, `subjects` empty where they are met as it judges."""

    rule: Rule
    check: Check | None
    per: str
    subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """Detectors in the order of the catalogue, then those of other packages. `rules_hash` changes when any number that decides
    a verdict does, or the version of such a package."""

    name: str
    detectors: tuple[Detector, ...]
    rules: Mapping[str, Rule]
    rules_hash: str
    extensions: Extensions = NO_EXTENSIONS


def load_profile(
    name: str, thresholds: Mapping[str, Mapping[str, float]] | None = None, extensions: Extensions = NO_EXTENSIONS
) -> Profile:
    """Build a profile; `thresholds` sets limits by kind and key, as in {"kl_extreme": {"k3": 0.8}}.

    Raises:
        GradwatchError: `config-invalid` for an unknown profile or key, naming the nearest.
    """
    if name not in PROFILES:
        raise _unknown("profile", name, PROFILES)
    given = {f"{kind}.{key}": limit for kind, limits in (thresholds or {}).items() for key, limit in limits.items()}
    specs = [spec for spec in (*CATALOGUE, *extensions.specs) if name in spec.profiles]
    known = [f"{spec.kind}.{t.key}" for spec in specs for t in spec.profiles[name].thresholds]
    for key in given:
        if key not in known:
            raise _unknown(f"thresholds of profile {name}", key, known)
    detectors = []
    for spec in specs:
        rule = spec.rule(name)
        rule = replace(rule, thresholds=tuple(_override(spec.kind, t, given) for t in rule.thresholds))
        detectors.append(Detector(rule, spec.profiles[name].check, spec.per, () if spec.per or spec.meets else spec.subjects))
    rules = {detector.rule.kind: detector.rule for detector in detectors}
    return Profile(name, tuple(detectors), rules, _hash(name, rules, extensions.origins), extensions)


def _override(kind: str, threshold: Threshold, given: Mapping[str, float]) -> Threshold:
    limit = given.get(f"{kind}.{threshold.key}", threshold.limit)
    return threshold if limit == threshold.limit else replace(threshold, limit=float(limit))


def _unknown(where: str, got: str, known: tuple[str, ...] | list[str]) -> GradwatchError:
    hint = nearest(got, known)
    return GradwatchError(
        "config-invalid",
        where=where,
        expected=f"one of {', '.join(known)}",
        got=f"{got!r} (did you mean {hint}?)" if hint else repr(got),
    )


def _hash(name: str, rules: Mapping[str, Rule], origins: Mapping[str, str]) -> str:
    """Of what decides verdicts and anomalies; words may change without it. Code of other packages is known by its version."""
    decisive = [
        [
            rule.kind,
            [[t.key, t.signal, t.op, t.limit, t.clear, t.severity, t.measure, t.series] for t in rule.thresholds],
            [[part.severity, part.of, part.unless, part.subject] for part in rule.parts],
            [[vote.at, vote.k, vote.n, vote.gives] for vote in rule.votes],
            rule.keep_firing,
            rule.warm_up,
            rule.explains,
            rule.stage_order,
            rule.invariant,
            rule.precursor,
        ]
        for rule in rules.values()
    ]
    others = [sorted(origins.items())] if origins else []
    return hashlib.blake2b(msgpack.packb([REVISION, name, decisive, *others]), digest_size=8).hexdigest()
