"""One anomaly per cause: what is attached to what, and what is not."""

from __future__ import annotations

import math

from gradwatch_contracts.control import Severity
from gradwatch_daemon.anomalies.cause import explains
from gradwatch_daemon.anomalies.lifecycle import Lifecycle
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.records import Verdict, Verdicts
from harness.blocks import STREAM, Watch, signal_block

RULES = load_profile("default").rules
INFO, WARNING = Severity.INFO.rank, Severity.WARNING.rank


def said(kind: str, breach: bool, rank: int) -> Verdicts:
    """One detector's word on one update."""
    code = bytes([Verdict.BREACH if breach else Verdict.CLEAR])
    return Verdicts(kind, "", code, [rank], [1.0], [1.0], [math.nan], [-1], [4], "", [0])


def test_cause_graph_explains_what_may_follow_and_no_bug_of_the_trainer() -> None:
    """NaN explains all; data, critic and policy each other, in time; a mismatch or NaN is never a consequence; nor is a return
    the cause of anything."""
    pairs = {(a, b) for a in RULES for b in RULES if explains(RULES[a], b)}
    assert all(("nonfinite", kind) in pairs for kind in RULES if kind != "nonfinite")
    never = {"nonfinite", "rollout_mismatch", "observation_unhealthy", "reward_unhealthy", "skipped_steps", "telemetry_gap"}
    assert not {(a, b) for a, b in pairs if b in never and a != "nonfinite"}
    assert {("reward_unhealthy", "value_collapse"), ("value_collapse", "kl_spike"), ("kl_spike", "value_collapse")} <= pairs
    assert not {b for a, b in pairs if a == "performance_degradation"}
    assert ("entropy_collapse", "kl_spike") not in pairs
    assert all(b in RULES for rule in RULES.values() for b in rule.explains if b != "*")


def test_cause_that_speaks_later_but_began_with_it_and_stands_before_it_takes_the_root() -> None:
    """Stale log-probabilities explode the ratio at once; the mismatch needs two updates to be said, and is the cause."""
    watch = Watch()
    given = {"policy__ratio__max": 30.0, "policy__ratio__first_mb_dev": 0.5}
    (first,) = watch.feed(signal_block(1, **given))
    assert (first.kind, first.attached) == ("ratio_explosion", ())
    (known,) = watch.feed(signal_block(1, start=1, **given))
    assert (known.id, known.kind, known.update_onset) == (first.id, "rollout_mismatch", 0)
    assert [(a.kind, a.value, a.update_onset) for a in known.attached] == [("ratio_explosion", 30.0, 0)]
    assert known.sentence.startswith("Ratio before the first optimizer step")


def test_cause_info_finding_that_becomes_graver_joins_what_explains_it() -> None:
    """A note of its own is closed, and the warning is one anomaly with its cause."""
    watch = Watch()
    found = watch.feed(signal_block(2, policy__ratio__max=[6.0, 30.0], policy__ratio__first_mb_dev=0.5, policy__kl__k3=0.01))
    assert {a.kind: a.state for a in found} == {"ratio_explosion": "resolved", "rollout_mismatch": "firing"}
    (mismatch,) = watch.lifecycle.open
    assert [a.kind for a in mismatch.attached] == ["ratio_explosion"]


def test_cause_ratio_and_kl_in_one_update_are_one_anomaly_with_the_ratio_as_root() -> None:
    """Both fire at update 3; the KL is attached with its own numbers."""
    (anomaly,) = Watch().feed(
        signal_block(4, policy__ratio__max=[1.4, 1.4, 1.4, 80.0], policy__kl__k3=[0.01, 0.01, 0.01, 0.75])
    )
    assert (anomaly.kind, anomaly.update_onset) == ("ratio_explosion", 3)
    (attached,) = anomaly.attached
    assert (attached.kind, attached.severity, attached.update_fired) == ("kl_extreme", Severity.CRITICAL, 3)
    assert (attached.value, attached.limit) == (0.75, 0.5)


def test_cause_spike_then_extreme_of_one_excursion_is_one_anomaly_lifted_to_critical() -> None:
    """The graver attached finding lifts the root's severity, not its numbers."""
    watch = Watch("classic")
    found = watch.feed(signal_block(6, policy__kl__k3=[0.01, 0.2, 0.3, 0.7, 0.3, 0.2]))
    assert [(a.kind, a.severity, a.update_onset, a.count) for a in found] == [("kl_spike", Severity.CRITICAL, 1, 5)]
    assert [(a.kind, a.update_onset) for a in found[0].attached] == [("kl_extreme", 3)]
    assert found[0].value == 0.2 or abs(found[0].value - 0.2) < 1e-6


def test_cause_finding_that_becomes_a_warning_below_an_info_root_stands_on_its_own() -> None:
    """The note of an entropy that falls began the anomaly, large gradients that began earlier became its root; the warning of
    the same votes is not hidden below them, neither now nor for what it explains, and a restart changes nothing."""
    watch = Watch()
    life, news = watch.lifecycle, []
    for update in range(40):
        gradient = said("gradient_exploding", update in (0, 3) or 4 <= update < 20, INFO)
        entropy = said("entropy_collapse", 1 <= update < 20, WARNING)
        stalled = said("update_stalled", 12 <= update < 20, WARNING)
        news += life.observe(update, update, [gradient, entropy, stalled])
        restored = Lifecycle(STREAM, watch.profile.rules, watch.profile.rules_hash)
        restored.load(life.dump())
        life = restored

    firsts = {anomaly.id: anomaly for anomaly in reversed(news)}
    assert sorted((a.kind, a.severity, a.update_fired) for a in firsts.values()) == [
        ("entropy_collapse", Severity.INFO, 3),
        ("entropy_collapse", Severity.WARNING, 8),
    ]
    note, warning = sorted({anomaly.id: anomaly for anomaly in news}.values(), key=lambda a: a.update_fired)
    assert (note.kind, note.severity, [(a.kind, a.severity) for a in note.attached]) == (
        "gradient_exploding",
        Severity.INFO,
        [("entropy_collapse", Severity.INFO)],
    )
    assert (warning.kind, warning.update_onset, [a.kind for a in warning.attached]) == (
        "entropy_collapse",
        1,
        ["update_stalled"],
    )
    assert (note.state, warning.state) == ("resolved", "resolved")


def test_cause_note_that_becomes_a_warning_while_it_explains_others_says_the_numbers_of_the_warning() -> None:
    """It goes on as the root, and is as grave as it says."""
    watch = Watch()
    for update in range(12):
        entropy = said("entropy_collapse", True, WARNING)
        watch.lifecycle.observe(update, update, [entropy, said("entropy_low", update < 4, INFO)])
    (anomaly,) = watch.lifecycle.open
    assert (anomaly.kind, anomaly.severity, anomaly.count) == ("entropy_collapse", Severity.WARNING, 12)
    assert [a.severity for a in anomaly.attached] == [Severity.INFO]
    assert "at update 7" in anomaly.sentence


def test_cause_nan_is_never_hidden_below_something_else() -> None:
    """A run that explodes and then breaks has two anomalies; one that only breaks has one, with the rest attached."""
    watch = Watch()
    found = watch.feed(
        signal_block(3, policy__ratio__max=[1.4, 80.0, 80.0], policy__kl__k3=[0.01, 2.0, 2.0], loss__total__nonfinite=[0, 0, 6])
    )
    assert [(a.kind, a.update_onset) for a in found] == [("ratio_explosion", 1), ("nonfinite", 2)]
    (root,) = Watch().feed(signal_block(2, obs__input__nonfinite=[0, 3], policy__kl__k3=[0.01, 2.0]))
    assert (root.kind, root.stage, [a.kind for a in root.attached]) == ("nonfinite", "obs", ["kl_extreme"])


def test_cause_finding_that_began_before_nan_or_long_after_its_root_stands_alone() -> None:
    """Time must agree: before the onset of what it cannot cause, or more than 32 updates past the last breach."""
    watch = Watch()
    early = watch.feed(signal_block(3, policy__kl__k3=[0.3, 0.3, 0.3], policy__logratio__nonfinite=[0, 1, 0]))
    assert [(a.kind, a.update_onset, len(a.attached)) for a in early] == [("nonfinite", 1, 0), ("kl_extreme", 0, 0)]
    for quiet, kinds in ((30, ["ratio_explosion"]), (31, []), (32, [])):
        late = Watch()
        late.feed(signal_block(2, policy__ratio__max=[1.4, 30.0]))
        late.feed(signal_block(quiet, start=2))
        found = late.feed(signal_block(1, start=2 + quiet, policy__kl__k3=0.9))
        assert [a.kind for a in found] == (kinds or ["ratio_explosion"] if quiet < 32 else ["kl_extreme"])


def test_cause_earlier_step_explains_a_later_one() -> None:
    """A KL that has been high since update 0 is no consequence of a ratio that exploded at update 2; it may be its cause."""
    (found,) = Watch().feed(signal_block(3, policy__ratio__max=[1.4, 1.4, 30.0], policy__kl__k3=[0.3, 0.3, 0.3]))
    assert (found.kind, found.update_onset, [a.kind for a in found.attached]) == ("kl_extreme", 0, ["ratio_explosion"])


def test_cause_info_anomaly_explains_no_warning() -> None:
    """A note in the timeline must not swallow an alarm."""
    watch = Watch()
    found = watch.feed(signal_block(3, policy__ratio__max=[6.0, 6.0, 6.0], policy__kl__k3=[0.01, 0.01, 0.8]))
    assert [(a.kind, a.severity) for a in found] == [("ratio_explosion", Severity.INFO), ("kl_extreme", Severity.CRITICAL)]


def test_cause_anomaly_stays_open_until_its_last_finding_is_over() -> None:
    """The root's own finding ends first; the anomaly ends with the attached one."""
    watch = Watch()
    watch.feed(signal_block(1, policy__ratio__max=30.0, policy__kl__k3=0.9))
    watch.feed(signal_block(8, start=1, policy__kl__k3=0.15))
    (open_one,) = watch.lifecycle.open
    assert (open_one.kind, open_one.state) == ("ratio_explosion", "firing")
    (over,) = watch.feed(signal_block(8, start=9))
    assert (over.state, over.update_resolved) == ("resolved", 16)


def test_cause_two_heads_do_not_explain_each_other() -> None:
    """A collapsed arm is not the cause of a low leg."""
    watch = Watch("classic")
    given = {"policy__entropy__norm__of__arm": 0.05, "policy__entropy__norm__of__leg": 0.25}
    found = watch.feed(signal_block(3, drop=["policy.entropy.norm"], **given))
    assert [(a.kind, a.subject, [x.kind for x in a.attached]) for a in found] == [
        ("entropy_collapse", "arm", ["entropy_low"]),
        ("entropy_low", "leg", []),
    ]
