"""Every threshold of every profile: not reached at its limit, reached beyond it, and moved by the configuration.

One table over all detectors, from the outside: rows in, verdicts out. What is compared as it was measured is exact to one
float32; what detection computes itself (a multiple of the usual, a score) to a thousandth. The last test fails for a
threshold without a row here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_contracts.control import Severity
from gradwatch_daemon.detect.catalogue import PROFILES, load_profile
from gradwatch_daemon.records import Verdict
from harness.blocks import Watch, above, below, signal_block

INFO, WARNING, CRITICAL = (severity.rank for severity in Severity)
LEARNED = 80
"""Healthy updates before a detector is tried: more than any of them needs."""

SIGMA = 1.4826 * (1 + 4 / 64)
"""Standard deviation of a Gaussian / its MAD, and what the board adds for a window of 64."""

NS = 1_000_000_000

Play = Callable[[Watch, float], int]
"""Feed a value to a fresh watch; the rank of the breach in the last row, -1 for none."""


@dataclass(frozen=True)
class Case:
    """One threshold: `at` does not reach `rank`, `beyond` does, and with the limit at `further` it no longer does."""

    profile: str
    kind: str
    key: str
    play: Play
    at: float
    beyond: float
    rank: int
    further: float

    def __str__(self) -> str:
        return f"{self.profile}-{self.kind}-{self.key}"


def rank_of(watch: Watch, kind: str, n: int, start: int, **given: object) -> int:
    """Feed rows; how `kind` (with its subject) stands in the last."""
    found = watch.check(signal_block(n, start=start, **given))[kind]
    return int(found.severity[-1]) if found.code[-1] == Verdict.BREACH else -1


def played(
    kind: str, name: str, n: int = 1, start: int = LEARNED, past: dict[str, object] | None = None, **given: object
) -> Play:
    """`n` rows of the value in signal `name` and of `given`, behind a healthy past."""

    def play(watch: Watch, value: float) -> int:
        if start:
            watch.check(signal_block(start, **(past or {})))
        return rank_of(watch, kind, n, start, **{**given, name: value})

    return play


def flagged(kind: str, flag: RowFlag) -> Play:
    """One combined row behind a healthy past, with the flag where the value is 1."""

    def play(watch: Watch, value: float) -> int:
        watch.check(signal_block(LEARNED))
        return rank_of(watch, kind, 1, LEARNED, flags=int(flag) if value else 0)

    return play


def spread(level: float, mad: float) -> list[float]:
    """A past of this median whose logarithms have this median absolute deviation, in any part of it."""
    return [level * math.exp(mad * (i % 3 - 1)) for i in range(LEARNED)]


def fallen(rate: float) -> Play:
    """An entropy that stood still and then falls by `rate` an update for twelve updates, to the value."""

    def play(watch: Watch, value: float) -> int:
        top = value + 12 * rate
        watch.check(signal_block(LEARNED, policy__entropy__norm=top))
        line = [top - rate * (i + 1) for i in range(12)]
        return rank_of(watch, "entropy_low", 12, LEARNED, policy__entropy__norm=line)

    return play


def skipping(watch: Watch, skipped: float) -> int:
    """So many of 800 steps skipped in the window."""
    play = played("skipped_steps", "opt__skipped", start=49, past={"opt__steps": 16.0}, opt__steps=16.0 - skipped)
    return play(watch, skipped)


def idle(watch: Watch, updates: float) -> int:
    """So many updates on end in which every step was skipped."""
    return played("skipped_steps", "opt__steps", int(updates), start=0, opt__skipped=16.0)(watch, 0.0)


def returning(watch: Watch, level: float) -> int:
    """Returns that were 0, rose to 1,000 and then stay at this level for twenty updates."""
    given = {"episode__count": 20.0, "episode__return__std": 50.0}
    rising = [25.0 * min(max(i - 10, 0), 40) for i in range(LEARNED)]
    past = {"episode__return__mean": rising, **given}
    return played("performance_degradation", "episode__return__mean", 20, past=past, **given)(watch, level)


def returning_to(watch: Watch, level: float) -> int:
    """Returns of 1,000 up to a fifth of the run, and then ten of this level."""
    past = {"episode__return__mean": 1000.0}
    return played("performance_degradation", "episode__return__mean", 10, start=200, past=past)(watch, level)


def stalled(gap_ns: int) -> Play:
    """No update for the value, in seconds, where one usually comes every `gap_ns`."""

    def play(watch: Watch, waited_s: float) -> int:
        block = signal_block(LEARNED)
        block.t_ns[:] = (block.update + 1) * gap_ns
        watch.check(block)
        told = watch.engine.tick(watch.state, LEARNED * gap_ns + int(waited_s * NS))
        return int(told[0].severity[0]) if told else -1

    return play


def lost(watch: Watch, records: float) -> int:
    """So many of the last 200 records lost."""
    watch.check(signal_block(300))
    (found,) = watch.engine.lose(watch.state, "outbox full", int(records))
    return int(found.severity[0])


def silent(watch: Watch, updates: float) -> int:
    """So many updates without a signal that always came."""
    return played("telemetry_gap:ppo", "loss__total", int(updates))(watch, Status.NOT_CALLED)


def standing(watch: Watch, updates: float) -> int:
    """So many updates with exactly the numbers of the one before, after some that varied."""
    varied = {"loss__total": [1.0 + i for i in range(LEARNED)]}
    return played("telemetry_frozen:ppo", "loss__total", int(updates) + 1, past=varied)(watch, 0.5)


def _exact(limit: float, op: str) -> tuple[float, float]:
    """The limit as it is stored, and the float32 next to it on the side of the breach."""
    return limit, above(limit) if op == ">" else below(limit)


def _about(limit: float, op: str) -> tuple[float, float]:
    """A thousandth on either side."""
    return (limit * 0.999, limit * 1.001) if op == ">" else (limit * 1.001, limit * 0.999)


def _plain(profile: str, kind: str, key: str, name: str, op: str, limit: float, rank: int, **given: object) -> Case:
    """A limit of one signal, with the others as they usually are."""
    further = limit * 3 if (op == ">") == (limit > 0) else limit / 3
    return Case(profile, kind, key, played(kind, name, **given), *_exact(limit, op), rank, further)  # type: ignore[arg-type]


KL, RATIO, ENTROPY, NORM = "policy__kl__k3", "policy__ratio__max", "policy__entropy__norm", "grad__norm__mean"
NMSE, EV, TAIL, CELL = "value__nmse", "value__explained_variance", "policy__ratio__tail_index", "rnn__c__absmax"
USUAL_1 = {NORM: 1.0}
PHASES = (("early", 50, -0.5, -0.9), ("settling", 150, -0.2, -0.6), ("middle", 400, 0.0, -0.5), ("late", 800, 0.1, -0.5))
"""Key, an update within the phase of a run of 1,000, the limit, and one further off."""

BOTH = [
    case
    for p in PROFILES
    for case in (
        Case(p, "nonfinite", "count", played("nonfinite", "policy__logratio__nonfinite"), 0.0, 1.0, CRITICAL, 3.0),
        _plain(p, "rollout_mismatch", "deviation", "policy__ratio__first_mb_dev", ">", 1e-3, CRITICAL),
        Case(p, "skipped_steps", "share", skipping, 16.0, 17.0, CRITICAL, 0.1),
        Case(p, "skipped_steps", "updates_idle", idle, 2.0, 3.0, CRITICAL, 5.0),
        Case(p, "stall", "seconds", stalled(NS // 1000), 5.0, 5.001, WARNING, 9.0),
        Case(p, "stall", "times_usual", stalled(2 * NS), 20.0, 20.001, WARNING, 30.0),
        Case(p, "telemetry_gap", "share", lost, 2.0, 3.0, WARNING, 0.1),
        Case(p, "telemetry_gap", "updates_missing", silent, 4.0, 5.0, WARNING, 9.0),
    )
]
CLASSIC = [
    *(
        Case("classic", "value_collapse", key, played("value_collapse", EV, start=at), *_exact(limit, "<"), WARNING, further)
        for key, at, limit, further in PHASES
    ),
    _plain("classic", "ratio_explosion", "max", RATIO, ">", 5.0, WARNING),
    _plain("classic", "ratio_collapse", "min", "policy__ratio__min", "<", 0.1, WARNING),
    _plain("classic", "kl_extreme", "k3", KL, ">", 0.5, CRITICAL),
    _plain("classic", "kl_spike", "k3", KL, ">", 0.1, WARNING),
    _plain("classic", "entropy_collapse", "norm", ENTROPY, "<", 0.1, CRITICAL),
    _plain("classic", "entropy_low", "norm", ENTROPY, "<", 0.3, WARNING),
    _plain("classic", "gradient_exploding", "over_clip", "grad__tensor_norm__over_clip", ">", 10.0, WARNING),
    _plain("classic", "gradient_vanishing", "tensor", "grad__tensor_norm__min", "<", 1e-7, WARNING),
    _plain("classic", "gradient_unhealthy", "health", "grad__health", "<", 0.5, WARNING),
    Case(
        "classic", "gradient_drift", "drift", played("gradient_drift:norm", NORM, past=USUAL_1), *_about(1.5, ">"), WARNING, 2.0
    ),
    _plain("classic", "lstm_unhealthy", "hidden_high", "rnn__h__rms", ">", 10.0, WARNING),
    _plain("classic", "lstm_unhealthy", "hidden_low", "rnn__h__rms", "<", 1e-6, WARNING),
    _plain("classic", "lstm_unhealthy", "cell_high", "rnn__c__rms", ">", 10.0, WARNING),
    _plain("classic", "lstm_unhealthy", "cell_low", "rnn__c__rms", "<", 1e-6, WARNING),
    Case("classic", "performance_degradation", "drop", returning_to, *_about(900.0, "<"), WARNING, 0.3),
]
DEFAULT_POLICY = [
    _plain("default", "ratio_explosion", "max", RATIO, ">", 20.0, CRITICAL),
    _plain("default", "ratio_explosion", "max_info", RATIO, ">", 5.0, INFO),
    _plain("default", "ratio_explosion", "tail", TAIL, ">", 4.0, CRITICAL, start=0, policy__kl__k3=0.06),
    _plain("default", "ratio_explosion", "tail_k3", KL, ">", 0.05, CRITICAL, start=0, policy__ratio__tail_index=4.5),
    _plain("default", "ratio_explosion", "tail_odd", TAIL, ">", 3.0, WARNING, past={RATIO: 1.0}, policy__ratio__max=4.5),
    Case(
        "default",
        "ratio_explosion",
        "z",
        played("ratio_explosion", RATIO, past={RATIO: spread(2.0, 0.1)}, policy__ratio__tail_index=3.5),
        *_about(2.0 * math.exp(4 * 0.1 * SIGMA), ">"),
        WARNING,
        8.0,
    ),
    _plain("default", "ratio_collapse", "min", "policy__ratio__min", "<", 0.02, INFO),
    _plain("default", "ratio_collapse", "spread", "policy__logratio__std", ">", 0.3, WARNING, policy__ratio__min=0.01),
    _plain("default", "kl_extreme", "k3", KL, ">", 0.5, CRITICAL),
    _plain("default", "kl_extreme", "sustained", KL, ">", 0.2, WARNING),
    _plain("default", "kl_spike", "k3", KL, ">", 0.03, WARNING, past={KL: 1e-3}),
    Case(
        "default",
        "kl_spike",
        "z",
        played("kl_spike", KL, past={KL: spread(0.02, 0.4)}),
        *_about(0.02 * math.exp(4 * 0.4 * SIGMA), ">"),
        WARNING,
        8.0,
    ),
    Case("default", "kl_spike", "times_usual", played("kl_spike", KL, past={KL: 0.02}), *_about(0.06, ">"), WARNING, 9.0),
    _plain("default", "entropy_collapse", "norm", ENTROPY, "<", 0.05, CRITICAL),
    _plain("default", "entropy_low", "norm", ENTROPY, "<", 0.3, INFO),
    Case("default", "entropy_low", "updates_left", fallen(0.02), *_about(0.25, "<"), WARNING, 9.0),
    Case("default", "entropy_low", "falling_norm", fallen(0.04), *_about(0.4, "<"), WARNING, 0.3),
    Case(
        "default", "entropy_low", "z", lambda watch, r: fallen(r)(watch, 0.15), *_about(4 * 0.002 * SIGMA, ">"), WARNING, -9.0
    ),
]
DEFAULT_VALUE = [
    _plain("default", "value_collapse", "nmse", NMSE, ">", 1.5, WARNING, past={NMSE: 0.25}),
    _plain("default", "value_collapse", "nmse_absurd", NMSE, ">", 10.0, CRITICAL),
    Case(
        "default",
        "value_collapse",
        "times_usual",
        played("value_collapse", NMSE, past={NMSE: 1.0}),
        *_about(3.0, ">"),
        WARNING,
        9.0,
    ),
    _plain("default", "value_collapse", "ev", EV, "<", -0.5, INFO, value__nmse=1.2),
    _plain("default", "value_collapse", "ev_error", NMSE, ">", 1.0, INFO, value__explained_variance=-0.6),
]
DEFAULT_REST = [
    Case(
        "default",
        "gradient_exploding",
        "times_usual",
        played("gradient_exploding", NORM, 3, past=USUAL_1),
        *_about(10.0, ">"),
        WARNING,
        30.0,
    ),
    Case(
        "default",
        "gradient_exploding",
        "times_critical",
        played("gradient_exploding", NORM, past=USUAL_1),
        *_about(100.0, ">"),
        CRITICAL,
        300.0,
    ),
    Case(
        "default",
        "gradient_exploding",
        "z",
        played("gradient_exploding", NORM, 3, past={NORM: spread(1.0, 0.5)}),
        *_about(math.exp(4 * 0.5 * SIGMA), ">"),
        WARNING,
        8.0,
    ),
    Case(
        "default",
        "gradient_exploding",
        "z_alone",
        played("gradient_exploding", NORM, past={NORM: spread(1.0, 0.6)}),
        *_about(math.exp(6 * 0.6 * SIGMA), ">"),
        CRITICAL,
        9.0,
    ),
    _plain("default", "gradient_exploding", "over_clip", "grad__tensor_norm__over_clip", ">", 10.0, INFO),
    Case(
        "default",
        "gradient_vanishing",
        "share_of_usual",
        played("gradient_vanishing", NORM, past=USUAL_1),
        *_about(1e-3, "<"),
        WARNING,
        1e-4,
    ),
    _plain("default", "gradient_vanishing", "tensor", "grad__tensor_norm__min", "<", 1e-7, INFO),
    _plain("default", "gradient_unhealthy", "health", "grad__health", "<", 0.5, WARNING),
    Case(
        "default",
        "gradient_unhealthy",
        "share_of_usual",
        played("gradient_unhealthy", "grad__health", past={"grad__health": 0.5}),
        *_about(0.35, "<"),
        WARNING,
        0.5,
    ),
    Case("default", "telemetry_frozen", "updates", standing, 20.0, 21.0, WARNING, 30.0),
    Case("default", "rank_missing", "marked", flagged("rank_missing", RowFlag.RANKS_MISSING), 0.0, 1.0, WARNING, 1.0),
    Case("default", "rank_desync", "marked", flagged("rank_desync", RowFlag.RANKS_DIFFER), 0.0, 1.0, WARNING, 1.0),
    Case("default", "rank_slow", "marked", flagged("rank_slow", RowFlag.RANK_SLOW), 0.0, 1.0, WARNING, 1.0),
    Case("default", "gradient_drift", "drift", played("gradient_drift:norm", NORM, past=USUAL_1), *_about(1.5, ">"), INFO, 2.0),
    _plain("default", "lstm_unhealthy", "saturation", "rnn__h__saturation", ">", 0.5, WARNING, n=3),
    _plain("default", "lstm_unhealthy", "cell", CELL, ">", 20.0, WARNING, n=2),
    Case(
        "default",
        "lstm_unhealthy",
        "times_usual",
        played("lstm_unhealthy", CELL, 2, past={CELL: 8.0}),
        *_about(32.0, ">"),
        WARNING,
        9.0,
    ),
    _plain("default", "lstm_unhealthy", "dead", "rnn__h__rms", "<", 1e-6, WARNING, n=2),
    Case("default", "performance_degradation", "drop", returning, *_about(500.0, "<"), WARNING, 0.9),
    Case("default", "performance_degradation", "drop_critical", returning, *_about(400.0, "<"), CRITICAL, 0.9),
]
CASES = [*BOTH, *CLASSIC, *DEFAULT_POLICY, *DEFAULT_VALUE, *DEFAULT_REST]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_threshold_is_not_reached_at_its_limit_and_is_beyond_it(case: Case) -> None:
    """Strictness, and that no other threshold of the detector speaks first."""
    assert case.play(Watch(case.profile), case.at) < case.rank
    assert case.play(Watch(case.profile), case.beyond) == case.rank


@pytest.mark.parametrize("case", CASES, ids=str)
def test_threshold_set_further_off_is_no_longer_reached(case: Case) -> None:
    """What the configuration says is what is compared with: a key that nobody reads shows here."""
    profile = load_profile(case.profile, {case.kind: {case.key: case.further}})

    assert case.play(Watch(profile), case.beyond) < case.rank


@pytest.mark.parametrize("profile", PROFILES)
def test_threshold_of_every_detector_has_a_row_here(profile: str) -> None:
    """One that is added without a test of its border fails by name; those of rules made of parts are all in test_parts.py."""
    rules = load_profile(profile).rules
    declared = {(rule.kind, threshold.key) for rule in rules.values() for threshold in rule.thresholds if not rule.parts}
    tried = [(case.kind, case.key) for case in CASES if case.profile == profile]

    assert declared <= set(tried)
    assert {kind for kind, key in tried if rules[kind].threshold(key) is None} == set()
    assert len(tried) == len(set(tried))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_threshold_says_the_severity_that_it_gives(case: Case) -> None:
    """What docs, HTTP and `gradwatch explain` print beside a limit is what crossing it alone makes of a run."""
    said = load_profile(case.profile).rules[case.kind].threshold(case.key).severity

    assert said is None or said.rank == case.rank
