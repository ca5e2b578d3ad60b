"""Pending, firing, resolved: on the update clock, with votes, holds, blindness and lifted severity."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest

from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_contracts.control import Severity
from gradwatch_daemon.anomalies.lifecycle import Lifecycle
from gradwatch_daemon.anomalies.votes import Change, Track
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.records import DetectorState, Verdict
from gradwatch_daemon.records.rules import Vote
from harness.blocks import QUIET, STREAM, Watch, signal_block


def kinds(found: object) -> list[tuple[str, str]]:
    """(kind, state) of anomalies."""
    return [(anomaly.kind, anomaly.state) for anomaly in found]  # type: ignore[attr-defined]


def test_lifecycle_vote_not_carried_fires_nothing() -> None:
    """Two of three: one breach alone, and two too far apart, stay pending and are not returned."""
    watch = Watch()
    found = watch.feed(signal_block(8, policy__ratio__first_mb_dev=[0.1, 1e-6, 1e-6, 0.1, 1e-6, 1e-6, 1e-6, 0.1]))
    assert found == []
    assert watch.lifecycle.open == ()


def test_lifecycle_vote_carried_fires_with_the_onset_of_its_first_breach() -> None:
    """Onset is the first breach that counted; fired, value and time are those of the update that carried the vote."""
    watch = Watch()
    (anomaly,) = watch.feed(signal_block(4, start=10, policy__ratio__first_mb_dev=[1e-6, 0.1, 1e-6, 0.25]))
    assert (anomaly.kind, anomaly.severity, anomaly.state) == ("rollout_mismatch", Severity.CRITICAL, "firing")
    assert (anomaly.update_onset, anomaly.update_fired, anomaly.update_last, anomaly.count) == (11, 13, 13, 2)
    assert (anomaly.value, anomaly.limit, anomaly.baseline, anomaly.update_resolved) == (0.25, 1e-3, None, None)
    assert (anomaly.t_ns, anomaly.stage, anomaly.minibatch) == (13_007, "policy", -1)
    assert (anomaly.run, anomaly.attempt, anomaly.rank) == STREAM
    assert anomaly.tries == watch.profile.rules["rollout_mismatch"].tries
    assert anomaly.rules_hash == watch.profile.rules_hash
    assert anomaly.sentence == (
        "Ratio before the first optimizer step off 1 by 0.25 at update 13, limit 0.001, since update 11."
    )


def test_lifecycle_resolves_after_enough_clear_updates_and_not_before() -> None:
    """Eight clear updates in a row; a held one in between begins the count anew."""
    watch = Watch()
    values = [0.9, *[0.01] * 7, 0.15, *[0.01] * 7]
    assert kinds(watch.feed(signal_block(16, policy__kl__k3=values))) == [("kl_extreme", "firing")]
    (anomaly,) = watch.feed(signal_block(1, start=16))
    assert (anomaly.state, anomaly.update_resolved, anomaly.update_last) == ("resolved", 16, 0)
    assert watch.lifecycle.open == ()


def test_lifecycle_blind_and_partial_updates_neither_clear_nor_breach() -> None:
    """A finding stays open while its detector cannot see; then counting goes on where it was."""
    watch = Watch()
    values = [0.9, *[0.01] * 7, *[Status.LEVEL] * 30, *[0.01]]
    flags = [0] * 8 + [RowFlag.PARTIAL] * 5 + [0] * 26
    found = watch.feed(signal_block(39, policy__kl__k3=values, flags=flags))
    assert [(a.kind, a.update_resolved) for a in found] == [("kl_extreme", 38)]


def test_lifecycle_nonfinite_stays_open_for_twenty_clear_updates() -> None:
    """NaN is latched: 19 clean updates are not enough."""
    watch = Watch()
    watch.feed(signal_block(20, policy__logratio__nonfinite=[5] + [0] * 19))
    assert [a.kind for a in watch.lifecycle.open] == ["nonfinite"]
    assert kinds(watch.feed(signal_block(1, start=20))) == [("nonfinite", "resolved")]


def test_track_each_vote_counts_in_its_own_window() -> None:
    """A rule of two votes: a breach older than the shorter window does not count there, though the longer keeps it."""
    warning, critical = Severity.WARNING, Severity.CRITICAL
    votes = (Vote(warning, 2, 2, warning), Vote(critical, 3, 5, critical))
    rule = replace(load_profile("default").rules["kl_extreme"], votes=votes)
    track = Track()
    assert [track.advance(update, Verdict.BREACH, warning.rank, rule) for update in (0, 2, 4)] == [Change.NONE] * 3
    assert track.advance(5, Verdict.BREACH, warning.rank, rule) is Change.FIRED
    assert (track.onset, track.count) == (4, 2)


def test_track_votes_of_a_past_that_a_trainer_went_back_from_do_not_count() -> None:
    """A breach at update 90, then the trainer resumes at 50: one breach there is one of three, not two."""
    rule = load_profile("default").rules["rollout_mismatch"]
    track = Track()
    assert track.advance(90, Verdict.BREACH, Severity.CRITICAL.rank, rule) is Change.NONE
    assert track.advance(50, Verdict.BREACH, Severity.CRITICAL.rank, rule) is Change.NONE
    assert track.advance(51, Verdict.BREACH, Severity.CRITICAL.rank, rule) is Change.FIRED
    assert track.onset == 50


def test_lifecycle_second_excursion_soon_after_is_the_same_anomaly_and_later_another() -> None:
    """What flaps is one anomaly, which opens again; after 32 quiet updates the same fault has another onset and another id."""
    watch = Watch()
    (first,) = watch.feed(signal_block(10, policy__kl__k3=[0.9] + [0.01] * 9))
    assert first.state == "resolved"
    (again,) = watch.feed(signal_block(10, start=10, policy__kl__k3=[0.01] * 5 + [0.9] + [0.01] * 4))
    assert (again.id, again.state, again.update_onset, again.count) == (first.id, "firing", 0, 2)
    watch.feed(signal_block(30, start=20))
    (later,) = watch.feed(signal_block(1, start=50, policy__kl__k3=0.9))
    assert later.id != first.id
    assert (later.update_onset, later.state) == (50, "firing")


def test_lifecycle_sustained_moderate_kl_is_critical_by_three_of_five() -> None:
    """k3 > 0.2 three times in five updates; the sentence names that limit."""
    watch = Watch("default")
    assert watch.feed(signal_block(4, policy__kl__k3=[0.3, 0.01, 0.3, 0.01])) == []
    (anomaly,) = watch.feed(signal_block(1, start=4, policy__kl__k3=0.3))
    assert (anomaly.severity, anomaly.update_onset, anomaly.limit) == (Severity.CRITICAL, 0, 0.2)
    assert anomaly.sentence == "KL (k3) 0.3 nats at update 4, limit 0.2 nats, since update 0."


def test_lifecycle_grave_finding_does_not_inherit_the_onset_of_an_info_one() -> None:
    """A bare ratio of 6 is a note; the explosion six updates later is an anomaly of its own, and the note is closed."""
    watch = Watch()
    found = watch.feed(signal_block(8, policy__ratio__max=[6.0, 1.4, 1.4, 1.4, 1.4, 1.4, 31.0, 31.0]))
    assert [(a.severity, a.state, a.update_onset, a.value) for a in found] == [
        (Severity.INFO, "resolved", 0, 6.0),
        (Severity.CRITICAL, "firing", 6, 31.0),
    ]


def test_lifecycle_rising_severity_of_one_excursion_keeps_its_id_and_takes_the_graver_numbers() -> None:
    """Warning, then critical: one anomaly, with the numbers that made it critical."""
    watch = Watch()
    quiet = signal_block(80, policy__ratio__max=[1.3, 1.4, 1.5, 1.6] * 20)
    watch.feed(quiet)
    given = {"policy__ratio__max": [4.5, 4.5], "policy__ratio__tail_index": 3.5}
    (warning,) = watch.feed(signal_block(2, start=80, **given))
    (critical,) = watch.feed(signal_block(1, start=82, policy__ratio__max=40.0))
    assert (warning.severity, critical.severity) == (Severity.WARNING, Severity.CRITICAL)
    assert warning.id == critical.id
    assert (critical.value, critical.limit, critical.update_onset, critical.update_fired, critical.count) == (
        40.0,
        20.0,
        80,
        81,
        3,
    )
    assert "40 (" in critical.sentence
    assert "x its usual 1.45" in critical.sentence


def test_lifecycle_sentence_of_nan_names_stage_and_minibatch() -> None:
    """The words a person reads at three in the morning."""
    watch = Watch()
    given = {"grad__norm__nonfinite": [0, 2], "grad__norm__nonfinite_mb": [Status.UNDEFINED, 5]}
    (anomaly,) = watch.feed(signal_block(2, start=56, **given))
    assert anomaly.sentence == "NaN or infinite values in the gradients at update 57, minibatch 5: 2, since update 57."
    assert (anomaly.stage, anomaly.minibatch) == ("grad", 5)
    (weights,) = Watch().feed(signal_block(1, param__nonfinite=2))
    assert weights.minibatch == -1
    assert weights.sentence == "NaN or infinite values in the weights at update 0: 2, since update 0."


def test_lifecycle_head_is_named_in_the_sentence_and_the_id() -> None:
    """Two heads, two anomalies."""
    watch = Watch("classic")
    given = {"policy__entropy__norm__of__arm": 0.2, "policy__entropy__norm__of__leg": 0.25}
    found = watch.feed(signal_block(3, drop=["policy.entropy.norm"], **given))
    assert [(a.kind, a.subject, a.update_fired) for a in found] == [("entropy_low", "arm", 2), ("entropy_low", "leg", 2)]
    assert found[0].id != found[1].id
    assert "of head 'arm' 0.2 at update 2, limit 0.3" in found[0].sentence


def test_lifecycle_classic_entropy_needs_three_in_a_row_and_recovers_at_half_as_much_again() -> None:
    """A streak of 3, held until 1.5 times the limit."""
    watch = Watch("classic")
    assert watch.feed(signal_block(5, policy__entropy__norm=[0.2, 0.2, 0.4, 0.2, 0.2])) == []
    assert kinds(watch.feed(signal_block(5, start=5, policy__entropy__norm=[0.2, 0.44, 0.44, 0.44, 0.44]))) == [
        ("entropy_low", "firing")
    ]
    assert kinds(watch.feed(signal_block(3, start=10, policy__entropy__norm=0.46))) == [("entropy_low", "resolved")]


def test_lifecycle_detector_states_say_armed_learning_blind_firing() -> None:
    """How each detector stands, and why."""
    watch = Watch()
    drop = ["policy.ratio.min"]
    watch.feed(signal_block(10, drop=drop, policy__ratio__first_mb_dev=0.1))
    states = {state.kind: state for state in watch.lifecycle.detector_states()}
    assert len(states) == len(watch.profile.detectors)
    assert states["rollout_mismatch"].state == "firing"
    assert states["kl_spike"] == DetectorState("kl_spike", "", "learning", "6 of 28 updates to learn from")
    assert states["kl_extreme"] == DetectorState("kl_extreme", "", "armed", "")
    blind = DetectorState(
        "ratio_collapse", "", "blind", "policy.ratio.min is not sent: pass new_logp and old_logp to mon.ppo()"
    )
    assert states["ratio_collapse"] == blind
    assert "relative part: 6 of 28" in states["ratio_explosion"].reason


@pytest.mark.parametrize("size", [1, 5])
def test_lifecycle_detector_whose_input_is_thinned_rests_and_is_not_blind(size: int) -> None:
    """It stands as it stood when it could judge last, whatever the rows are batched like; for too long it is blind. One whose
    call is missing is blind at once, also behind an update that rests."""
    watch = Watch()
    rests = [index % 4 != 0 for index in range(20)]
    given = {"policy__ratio__min": [Status.THINNED if rest else 0.5 for rest in rests], "opt__lr": Status.NOT_CALLED}
    whole = signal_block(20, **given)
    for start in range(0, 20, size):
        watch.feed(whole.select(slice(start, start + size)))
        last = start + size - 1
        state = {state.kind: state for state in watch.lifecycle.detector_states()}["ratio_collapse"]
        assert state.state in {"armed", "learning"}
        assert (f"rests, judged last in update {last - last % 4}: " in state.reason) is rests[last]
    restored = Lifecycle(STREAM, watch.profile.rules, watch.profile.rules_hash)
    restored.load(watch.lifecycle.dump())
    assert restored.detector_states() == watch.lifecycle.detector_states()
    for start in range(20, 160, size):
        watch.feed(signal_block(size, start=start, policy__ratio__min=Status.THINNED))
    assert {state.kind: state.state for state in watch.lifecycle.detector_states()}["ratio_collapse"] == "blind"


def test_lifecycle_ids_are_content() -> None:
    """Replaying the same rows gives the same ids; another stream does not."""
    block = signal_block(3, policy__kl__k3=0.9)
    (one,), (two,) = Watch().feed(block), Watch().feed(block)
    assert one == two
    watch = Watch()
    elsewhere = Lifecycle(STREAM._replace(attempt=2), watch.profile.rules, watch.profile.rules_hash)
    (other,) = elsewhere.step(block, watch.engine.check(watch.state, block))
    assert other.id != one.id
    assert len(one.id) == 16


def test_lifecycle_after_load_goes_on_as_if_nothing_happened() -> None:
    """A restart in the middle of an anomaly changes neither its record nor the bytes."""
    watch = Watch()
    watch.feed(signal_block(5, policy__kl__k3=[0.01, 0.9, 0.3, 0.3, 0.01], policy__ratio__max=6.0))
    restored = Lifecycle(STREAM, watch.profile.rules, watch.profile.rules_hash)
    restored.load(watch.lifecycle.dump())
    assert restored.dump() == watch.lifecycle.dump()
    assert restored.open == watch.lifecycle.open
    assert restored.detector_states() == watch.lifecycle.detector_states()
    block = signal_block(20, start=5)
    verdicts = watch.engine.check(watch.state, block)
    assert restored.step(block, verdicts) == watch.lifecycle.step(block, verdicts)
    assert restored.dump() == watch.lifecycle.dump()


def test_lifecycle_state_of_another_format_is_refused() -> None:
    """Bytes of another version are replayed from the store, not misread."""
    watch = Watch()
    with pytest.raises(ValueError, match="expected format 3, got 0; replay the stream"):
        watch.lifecycle.load(msgpack.packb([0, [], [], []]))


def test_lifecycle_quiet_rows_change_nothing() -> None:
    """Healthy rows return nothing and leave nothing behind."""
    watch = Watch("classic")
    assert watch.feed(signal_block(50)) == []
    learning = {state.kind for state in watch.lifecycle.detector_states() if state.state != "armed"}
    assert learning == {"gradient_drift", "performance_degradation"}
    assert set(QUIET) >= {"policy.kl.k3"}
