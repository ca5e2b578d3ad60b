"""Every detector below, at and above each threshold, in both profiles, with NaN, and blind on each missing input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.catalogue import PROFILES, load_profile
from gradwatch_daemon.records import Verdict
from gradwatch_daemon.records.rules import END_OF_UPDATE
from harness.blocks import QUIET, Watch, signal_block

INF, NAN = math.inf, math.nan
BREACH, CLEAR, HOLD, BLIND, LEARNING = Verdict.BREACH, Verdict.CLEAR, Verdict.HOLD, Verdict.BLIND, Verdict.LEARNING


def below(x: float) -> float:
    """The float32 just below."""
    return float(np.nextafter(np.float32(x), np.float32(-1e9)))


def above(x: float) -> float:
    """The float32 just above."""
    return float(np.nextafter(np.float32(x), np.float32(1e9)))


def dotted(name: str) -> str:
    """Signal name as a keyword."""
    return name.replace(".", "__")


FIXED = [
    ("classic", "rollout_mismatch", "policy.ratio.first_mb_dev", ">", 1e-3, Severity.CRITICAL),
    ("classic", "ratio_explosion", "policy.ratio.max", ">", 5.0, Severity.WARNING),
    ("classic", "ratio_collapse", "policy.ratio.min", "<", 0.1, Severity.WARNING),
    ("classic", "kl_extreme", "policy.kl.k3", ">", 0.5, Severity.CRITICAL),
    ("classic", "kl_spike", "policy.kl.k3", ">", 0.1, Severity.WARNING),
    ("classic", "entropy_collapse", "policy.entropy.norm", "<", 0.1, Severity.CRITICAL),
    ("classic", "entropy_low", "policy.entropy.norm", "<", 0.3, Severity.WARNING),
    ("default", "rollout_mismatch", "policy.ratio.first_mb_dev", ">", 1e-3, Severity.CRITICAL),
    ("default", "ratio_explosion", "policy.ratio.max", ">", 5.0, Severity.INFO),
    ("default", "ratio_explosion", "policy.ratio.max", ">", 20.0, Severity.CRITICAL),
    ("default", "ratio_collapse", "policy.ratio.min", "<", 0.02, Severity.INFO),
    ("default", "kl_extreme", "policy.kl.k3", ">", 0.2, Severity.WARNING),
    ("default", "kl_extreme", "policy.kl.k3", ">", 0.5, Severity.CRITICAL),
    ("default", "entropy_collapse", "policy.entropy.norm", "<", 0.05, Severity.CRITICAL),
    ("default", "entropy_low", "policy.entropy.norm", "<", 0.3, Severity.INFO),
]


@pytest.mark.parametrize(("profile", "kind", "signal", "op", "limit", "severity"), FIXED)
def test_detector_at_its_limit_is_silent_and_just_beyond_breaches(
    profile: str, kind: str, signal: str, op: str, limit: float, severity: Severity
) -> None:
    """Strictness: equal to the limit is no breach of it; the next float32 is, with the limit it broke."""
    inside, beyond = (below(limit), above(limit)) if op == ">" else (above(limit), below(limit))
    found = Watch(profile).check(signal_block(3, **{dotted(signal): [inside, limit, beyond]}))[kind]
    ranks = [int(s) if c == BREACH else -1 for c, s in zip(found.code, found.severity, strict=True)]
    assert ranks[:2] == [ranks[0]] * 2
    assert ranks[0] < severity.rank == ranks[2]
    assert found.limit[2] == limit
    assert found.value[2] == np.float32(beyond)


CLEARS = [
    ("classic", "ratio_explosion", "policy.ratio.max", 2.5, ">"),
    ("classic", "ratio_collapse", "policy.ratio.min", 0.2, "<"),
    ("classic", "kl_extreme", "policy.kl.k3", 0.25, ">"),
    ("classic", "kl_spike", "policy.kl.k3", 0.05, ">"),
    ("classic", "entropy_low", "policy.entropy.norm", 0.45, "<"),
    ("classic", "entropy_collapse", "policy.entropy.norm", 0.15, "<"),
    ("default", "ratio_collapse", "policy.ratio.min", 0.03, "<"),
    ("default", "kl_extreme", "policy.kl.k3", 0.1, ">"),
    ("default", "entropy_low", "policy.entropy.norm", 0.45, "<"),
    ("default", "entropy_collapse", "policy.entropy.norm", 0.075, "<"),
    ("default", "rollout_mismatch", "policy.ratio.first_mb_dev", 5e-4, ">"),
]


@pytest.mark.parametrize(("profile", "kind", "signal", "level", "op"), CLEARS)
def test_detector_between_clear_level_and_limit_holds(profile: str, kind: str, signal: str, level: float, op: str) -> None:
    """At the clear level it is over; a hair on the limit's side it is held."""
    toward = above(level) if op == ">" else below(level)
    found = Watch(profile).check(signal_block(2, **{dotted(signal): [level, toward]}))[kind]
    assert found.code.tolist() == [CLEAR, HOLD]


NEEDS = [
    pytest.param(profile, rule.kind, need.signal, id=f"{profile}-{rule.kind}-{need.signal}")
    for profile in PROFILES
    for rule in load_profile(profile).rules.values()
    for need in rule.needs
    if not need.optional
]
SUBJECT = {("gradient_drift", "grad.norm.mean"): ":norm", ("gradient_drift", "grad.health"): ":health"}
"""Which of a detector's own subjects needs the signal."""


@pytest.mark.parametrize(("profile", "kind", "signal"), NEEDS)
def test_detector_without_a_needed_input_is_blind_and_says_what_to_add(profile: str, kind: str, signal: str) -> None:
    """Never clear on what it could not see: signal absent, not called, below its level, or NaN."""
    add = load_profile(profile).rules[kind].need(signal).add
    kind += SUBJECT.get((kind, signal), "")
    absent = Watch(profile).check(signal_block(2, drop=[signal]))[kind]
    assert absent.code.tolist() == [BLIND, BLIND]
    assert absent.reason == f"{signal} is not sent: {add}"
    uncalled = Watch(profile).check(signal_block(2, **{dotted(signal): [QUIET[signal], Status.NOT_CALLED]}))[kind]
    assert uncalled.code[1] == BLIND
    assert uncalled.reason == f"{signal}: the trainer did not pass it in this update; {add}"
    level = Watch(profile).check(signal_block(1, **{dotted(signal): Status.LEVEL}))[kind]
    assert level.reason == f"{signal}: not collected at this telemetry level; raise the level to normal"
    nan = Watch(profile).check(signal_block(1, **{dotted(signal): NAN}))[kind]
    assert nan.code.tolist() == [BLIND]
    assert nan.reason == f"{signal} is NaN, so it compares with nothing"


def test_detector_of_a_thinned_signal_says_so_and_sees_again_when_it_comes() -> None:
    """Once in four updates: never clear on what was left out, not blind for ever, and a spike that comes is seen."""
    watch = Watch("classic")
    watch.check(signal_block(60))
    for start in range(60, 100, 4):
        rest = watch.check(signal_block(3, start=start, policy__kl__k3=Status.THINNED))["kl_spike"]
        assert rest.code.tolist() == [BLIND] * 3
        assert rest.reason.startswith("policy.kl.k3: skipped to stay within the overhead budget")
        assert watch.check(signal_block(1, start=start + 3))["kl_spike"].code.tolist() == [Verdict.CLEAR]
    assert watch.check(signal_block(1, start=103, policy__kl__k3=0.2))["kl_spike"].code.tolist() == [Verdict.BREACH]


def test_entropy_detectors_of_a_box_policy_are_blind_and_say_why() -> None:
    """Where a normalised entropy is not defined nothing pretends to watch it."""
    found = Watch().check(signal_block(1, policy__entropy__norm=Status.UNDEFINED))["entropy_low"]
    assert found.code.tolist() == [BLIND]
    assert "discrete actions" in found.reason


# -- non-finite -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_nonfinite_names_the_earliest_minibatch_then_stage(profile: str) -> None:
    """Of several stages the one with the least (minibatch, stage) is named, with its count."""
    found = Watch(profile).check(
        signal_block(
            2,
            loss__total__nonfinite=[0, 4],
            loss__total__nonfinite_mb=[Status.UNDEFINED, 2],
            grad__norm__nonfinite=[0, 9],
            grad__norm__nonfinite_mb=[Status.UNDEFINED, 1],
            value__new__nonfinite=[0, 7],
            value__new__nonfinite_mb=[Status.UNDEFINED, 2],
            param__nonfinite=[0, 3],
        )
    )["nonfinite"]
    assert found.code.tolist() == [CLEAR, BREACH]
    assert (found.minibatch[1], found.stage[1], found.value[1]) == (1, Stage.GRAD.order, 9.0)
    assert found.severity[1] == Severity.CRITICAL.rank


def test_nonfinite_in_the_rollout_comes_before_any_minibatch() -> None:
    """Observations are seen before the first minibatch; weights after the last."""
    both = Watch().check(signal_block(1, adv__raw__nonfinite=1, obs__input__nonfinite=5, value__new__nonfinite=2))
    assert (both["nonfinite"].minibatch[0], both["nonfinite"].stage[0]) == (-1, Stage.OBS.order)
    weights = Watch().check(signal_block(1, param__nonfinite=2))["nonfinite"]
    assert (weights.minibatch[0], weights.stage[0]) == (END_OF_UPDATE, Stage.PARAM.order)


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_nonfinite_value_without_a_count_is_found_too(broken: float) -> None:
    """Any measured signal that is no number counts, with the stage of its name."""
    found = Watch().check(signal_block(1, loss__total=broken))["nonfinite"]
    assert (found.code[0], found.stage[0]) == (BREACH, Stage.LOSS.order)
    assert not math.isfinite(found.value[0])


def test_nonfinite_user_scalar_and_index_do_not_count() -> None:
    """A trainer may log NaN while no episode has ended; +Inf as 'no minibatch' is no fault."""
    found = Watch().check(signal_block(1, user__of__ep_rew_mean=NAN, sys__update_ms=NAN, policy__logratio__nonfinite_mb=INF))[
        "nonfinite"
    ]
    assert found.code.tolist() == [CLEAR]


def test_nonfinite_overflowed_ratio_is_left_to_the_ratio_in_default_and_counts_in_classic() -> None:
    """exp(log r) overflows while log r is finite: an explosion, not a NaN in the policy."""
    given = {"policy__ratio__max": INF, "policy__kl__k3": NAN, "policy__kl__k3__max": INF}
    default = Watch().check(signal_block(1, **given))
    assert default["nonfinite"].code.tolist() == [CLEAR]
    assert default["ratio_explosion"].code.tolist() == [BREACH]
    assert Watch("classic").check(signal_block(1, **given))["nonfinite"].code.tolist() == [BREACH]
    with_nan = Watch().check(signal_block(1, **given, loss__total__nonfinite=1))["nonfinite"]
    assert (with_nan.code[0], with_nan.stage[0]) == (BREACH, Stage.LOSS.order)
    unknown = Watch().check(signal_block(1, **{**given, "policy__logratio__nonfinite": Status.NOT_CALLED}))["nonfinite"]
    assert unknown.code.tolist() == [BREACH]


def test_nonfinite_in_an_update_cut_short_is_judged_and_nothing_else_is() -> None:
    """The last words of a dying run: invariants only."""
    found = Watch().check(signal_block(1, flags=RowFlag.PARTIAL, policy__logratio__nonfinite=3, policy__kl__k3=9.0))
    assert found["nonfinite"].code.tolist() == [BREACH]
    assert found["kl_extreme"].code.tolist() == [BLIND]
    assert found["kl_extreme"].reason == "the last update was cut short"
    assert found["rollout_mismatch"].code.tolist() == [CLEAR]


def test_nonfinite_without_any_count_is_blind_and_with_some_says_what_is_not_watched() -> None:
    """Half a watch is said to be half a watch."""
    bare = Watch().check(signal_block(1, policy__logratio__nonfinite=Status.NOT_CALLED, drop=["grad.norm.nonfinite"]))
    assert bare["nonfinite"].code.tolist() == [BLIND]
    assert "pass new_logp and old_logp" in bare["nonfinite"].reason
    some = Watch().check(signal_block(1))["nonfinite"]
    assert some.reason == "not watched in this update: obs, reward, value, adv, loss, param"


# -- ratio ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tail", "k3", "breaches"), [(4.0, 0.06, False), (above(4.0), 0.05, False), (above(4.0), above(0.05), True)]
)
def test_ratio_explosion_tail_needs_a_real_kl(tail: float, k3: float, breaches: bool) -> None:
    """Both of tail index > 4 and k3 > 0.05, strictly; the numbers are then those of the tail."""
    found = Watch().check(signal_block(1, policy__ratio__tail_index=tail, policy__kl__k3=k3))["ratio_explosion"]
    assert bool(found.code[0] == BREACH) is breaches
    if breaches:
        assert (found.severity[0], found.limit[0], found.value[0]) == (Severity.CRITICAL.rank, 4.0, np.float32(tail))


def wobble(n: int, level: float, seed: int = 2) -> list[float]:
    """A positive signal with log-noise 0.1."""
    return (level * np.exp(0.1 * np.random.default_rng(seed).normal(size=n))).tolist()


def test_ratio_explosion_odd_tail_warns_only_against_its_own_past() -> None:
    """tail index > 3 and z(log max r) > 4; either alone is silent."""
    watch = Watch()
    watch.check(signal_block(80, policy__ratio__max=wobble(80, 1.4)))
    found = watch.check(
        signal_block(3, start=80, policy__ratio__max=[4.5, 1.4, 4.5], policy__ratio__tail_index=[3.5, 3.5, 3.0])
    )["ratio_explosion"]
    assert found.code.tolist() == [BREACH, CLEAR, HOLD]
    assert found.severity[0] == Severity.WARNING.rank
    assert found.limit[0] < 4.5
    assert found.baseline[0] == pytest.approx(1.4, rel=0.1)


def test_ratio_explosion_equal_ratios_have_no_tail_and_are_not_blind() -> None:
    """All log-ratios 0 (learning rate 0): the tail index is undefined, the ratio is fine."""
    found = Watch().check(signal_block(1, policy__ratio__max=1.0, policy__ratio__tail_index=Status.UNDEFINED))
    assert found["ratio_explosion"].code.tolist() == [CLEAR]


def test_ratio_explosion_breach_stands_though_another_input_is_missing() -> None:
    """What is proven needs no second witness."""
    found = Watch().check(signal_block(1, policy__ratio__max=25.0, drop=["policy.ratio.tail_index", "policy.kl.k3"]))
    assert found["ratio_explosion"].code.tolist() == [BREACH]


@pytest.mark.parametrize(("std", "severity"), [(0.3, Severity.INFO), (above(0.3), Severity.WARNING)])
def test_ratio_collapse_warns_only_with_a_wide_log_ratio(std: float, severity: Severity) -> None:
    """A tiny minimum alone is info; with spread it is a warning."""
    found = Watch().check(signal_block(1, policy__ratio__min=0.01, policy__logratio__std=std))["ratio_collapse"]
    assert (found.code[0], found.severity[0]) == (BREACH, severity.rank)


# -- KL -------------------------------------------------------------------------------------------------------------------


def test_kl_spike_with_too_little_history_is_learning_and_says_how_far() -> None:
    """Not clear, not blind: learning, '6 of 28'."""
    found = Watch().check(signal_block(10))["kl_spike"]
    assert found.code.tolist() == [LEARNING] * 10
    assert found.reason == "6 of 28 updates to learn from"


@pytest.mark.parametrize(
    ("level", "noise", "k3", "breaches"),
    [
        (0.002, 0.1, 0.03, False),  # z and multiple, but not above the floor of 0.03
        (0.002, 0.1, above(0.03), True),
        (0.02, 0.1, 0.055, False),  # z and floor, but not 3 times the usual
        (0.02, 0.1, 0.0645, True),
        (0.02, 0.6, 0.07, False),  # floor and multiple, but a noisy run: z below 4
        (0.02, 0.6, 0.4, True),
    ],
)
def test_kl_spike_needs_oddness_and_size_together(level: float, noise: float, k3: float, breaches: bool) -> None:
    """z > 4, k3 > 0.03 and k3 > 3 x usual: any two without the third are silent."""
    history = level * np.exp(noise * np.linspace(-1, 1, 81))
    watch = Watch()
    watch.check(signal_block(81, policy__kl__k3=np.random.default_rng(1).permutation(history).tolist()))
    found = watch.check(signal_block(1, start=81, policy__kl__k3=k3))["kl_spike"]
    assert bool(found.code[0] == BREACH) is breaches
    if breaches:
        assert found.baseline[0] == pytest.approx(level, rel=0.15)
        assert np.float32(k3) > np.float32(found.limit[0])


def test_kl_spike_in_a_partial_update_neither_breaches_nor_teaches() -> None:
    """An update that was cut short is no evidence of what is usual."""
    watch, other = Watch(), Watch()
    watch.check(signal_block(60))
    watch.check(signal_block(4, start=60, flags=RowFlag.PARTIAL, policy__kl__k3=0.02))
    other.check(signal_block(60))
    watch.check(signal_block(36, start=64))
    other.check(signal_block(36, start=64))
    probe = [w.check(signal_block(1, start=100, policy__kl__k3=9.0))["kl_spike"] for w in (watch, other)]
    assert probe[0].baseline.tolist() == probe[1].baseline.tolist()


# -- entropy --------------------------------------------------------------------------------------------------------------


def test_entropy_detectors_judge_each_head() -> None:
    """One verdict per head; a head that is no longer sent is blind, not forgotten."""
    watch = Watch("classic")
    given = {"policy__entropy__norm__of__arm": 0.05, "policy__entropy__norm__of__leg": 0.9}
    found = watch.check(signal_block(1, drop=["policy.entropy.norm"], **given))
    assert found["entropy_collapse:arm"].code.tolist() == [BREACH]
    assert found["entropy_collapse:leg"].code.tolist() == [CLEAR]
    assert "entropy_collapse" not in found
    del given["policy__entropy__norm__of__leg"]
    gone = watch.check(signal_block(1, start=1, drop=["policy.entropy.norm"], **given))
    assert gone["entropy_collapse:leg"].code.tolist() == [BLIND]


@pytest.mark.parametrize(("last_return", "severity"), [(490.0, Severity.INFO), (120.0, Severity.CRITICAL)])
def test_entropy_collapse_at_the_best_return_is_info(last_return: float, severity: Severity) -> None:
    """A solved task may be deterministic; the same entropy with a fallen return is critical."""
    watch = Watch()
    rising = np.linspace(20, 490, 40).tolist() + [last_return] * 6
    found = watch.check(signal_block(46, episode__return__mean=rising, policy__entropy__norm=0.04))["entropy_collapse"]
    assert found.severity[-1] == severity.rank
    assert found.severity[5] == Severity.CRITICAL.rank


def test_entropy_collapse_without_returns_is_critical_and_says_what_it_cannot_tell() -> None:
    """Convergence that is not known is not assumed."""
    watch = Watch()
    found = watch.check(signal_block(40, policy__entropy__norm=0.01, drop=["episode.return.mean"]))["entropy_collapse"]
    assert (found.severity[-1], found.code[-1]) == (Severity.CRITICAL.rank, BREACH)
    assert found.reason == "cannot tell a solved task apart in this update"


def test_entropy_low_falling_far_faster_than_usual_warns_before_the_floor() -> None:
    """At 0.3 to 0.5 and on its way to the floor within 15 updates: a warning with the updates left."""
    watch = Watch()
    rng = np.random.default_rng(4)
    calm = 0.8 - 0.003 * np.arange(100) + 0.003 * rng.normal(size=100)
    falling = calm[-1] - 0.04 * np.arange(1, 9)
    watch.check(signal_block(100, policy__entropy__norm=calm.tolist()))
    found = watch.check(signal_block(8, start=100, policy__entropy__norm=falling.tolist()))["entropy_low"]
    warned = [i for i in range(8) if found.code[i] == BREACH and found.severity[i] == Severity.WARNING.rank]
    assert warned
    first = warned[0]
    assert found.limit[first] == 10.0
    assert 0 < found.value[first] < 15
    assert falling[first] > 0.3


def test_entropy_low_falling_fast_from_high_is_not_yet_a_warning() -> None:
    """Above half of its maximum there is time to look; the same fall below it warns."""
    watch = Watch()
    calm = 0.95 + 0.002 * np.random.default_rng(4).normal(size=100)
    falling = 0.95 - 0.06 * np.arange(1, 13)
    watch.check(signal_block(100, policy__entropy__norm=calm.tolist()))
    found = watch.check(signal_block(12, start=100, policy__entropy__norm=falling.tolist()))["entropy_low"]
    warned = (found.code == BREACH) & (found.severity == Severity.WARNING.rank)
    assert not warned[falling > 0.5].any()
    assert warned[falling < 0.5].any()


def test_entropy_low_annealed_steadily_is_at_most_info() -> None:
    """A fall that is usual for the run is no warning, however low it ends."""
    watch = Watch()
    norm = np.maximum(1.0 - 0.004 * np.arange(240), 0.06) + 0.002 * np.random.default_rng(0).normal(size=240)
    found = watch.check(signal_block(240, policy__entropy__norm=norm.tolist()))["entropy_low"]
    assert found.severity[found.code == BREACH].max() == Severity.INFO.rank
