"""Value function, gradients, recurrent state, optimizer steps and returns: each limit, each border, each missing input."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Severity
from gradwatch_daemon.detect.catalogue import PROFILES
from gradwatch_daemon.detect.ema import WARM_UP
from gradwatch_daemon.records import Verdict
from harness.blocks import Watch, above, below, signal_block
from harness.watched import learned, severities, wobble

BREACH, CLEAR, HOLD, BLIND, LEARNING = Verdict.BREACH, Verdict.CLEAR, Verdict.HOLD, Verdict.BLIND, Verdict.LEARNING

INFO, WARNING, CRITICAL = Severity.INFO.rank, Severity.WARNING.rank, Severity.CRITICAL.rank


FIXED = [
    ("gradient_vanishing", "grad__tensor_norm__min", "<", 1e-7, "classic", WARNING),
    ("gradient_exploding", "grad__tensor_norm__over_clip", ">", 10.0, "classic", WARNING),
    ("gradient_unhealthy", "grad__health", "<", 0.5, "classic", WARNING),
    ("lstm_unhealthy", "rnn__h__rms", ">", 10.0, "classic", WARNING),
    ("lstm_unhealthy", "rnn__h__rms", "<", 1e-6, "classic", WARNING),
    ("lstm_unhealthy", "rnn__c__rms", ">", 10.0, "classic", WARNING),
    ("lstm_unhealthy", "rnn__c__rms", "<", 1e-6, "classic", WARNING),
    ("gradient_vanishing", "grad__tensor_norm__min", "<", 1e-7, "default", INFO),
    ("gradient_exploding", "grad__tensor_norm__over_clip", ">", 10.0, "default", INFO),
    ("gradient_unhealthy", "grad__health", "<", 0.5, "default", WARNING),
    ("lstm_unhealthy", "rnn__h__saturation", ">", 0.5, "default", WARNING),
]


@pytest.mark.parametrize(("kind", "signal", "op", "limit", "profile", "rank"), FIXED)
def test_detector_at_its_limit_is_silent_and_just_beyond_breaches(
    kind: str, signal: str, op: str, limit: float, profile: str, rank: int
) -> None:
    """Strict in float32; the breach carries value and limit."""
    inside, beyond = (below(limit), above(limit)) if op == ">" else (above(limit), below(limit))
    watch = learned(profile=profile)
    assert severities(watch, kind, 2, **{signal: [inside, limit]}) == [-1, -1]
    found = watch.check(signal_block(3, start=82, **{signal: beyond}))[kind]
    assert (found.code[2], found.severity[2]) == (BREACH, rank)
    assert (found.value[2], found.limit[2]) == (np.float32(beyond), limit)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", ["gradient_vanishing", "gradient_exploding", "gradient_unhealthy", "gradient_drift:norm"])
def test_gradient_detectors_of_a_model_without_gradients_are_blind_and_say_so(profile: str, kind: str) -> None:
    """A frozen model has no vanishing gradients; it has none."""
    names = ("grad__norm__mean", "grad__health", "grad__tensor_norm__min", "grad__tensor_norm__over_clip")
    found = Watch(profile).check(signal_block(2, **dict.fromkeys(names, Status.NO_GRADIENT)))[kind]
    assert found.code.tolist() == [BLIND, BLIND]
    assert "no parameter had a gradient" in found.reason


def test_gradient_vanishing_default_is_a_thousandth_of_usual_while_the_rate_is_not_zero() -> None:
    """An unknown learning rate counts as one; a rate of 0 is annealing's end."""
    tiny = 0.4 * 0.9e-3
    assert severities(learned(), "gradient_vanishing", 2, grad__norm__mean=[0.4 * 1.2e-3, tiny]) == [-1, WARNING]
    assert severities(learned(), "gradient_vanishing", 1, grad__norm__mean=tiny, opt__lr=0.0) == [-1]
    assert severities(learned(), "gradient_vanishing", 1, grad__norm__mean=0.0, opt__lr=Status.NOT_CALLED) == [WARNING]


def test_gradient_exploding_default_needs_ten_times_usual_three_times_or_a_hundred_times_once() -> None:
    """One spike by 20 is survivable; three in five are not; a hundredfold is critical at once."""
    watch = learned()
    assert [a.kind for a in watch.feed(signal_block(3, start=80, grad__norm__mean=[8.0, 0.4, 8.0]))] == []
    (found,) = watch.feed(signal_block(2, start=83, grad__norm__mean=[0.4, 8.0]))
    assert (found.kind, found.severity, found.update_onset, found.update_fired) == (
        "gradient_exploding",
        Severity.WARNING,
        80,
        84,
    )
    assert severities(learned(), "gradient_exploding", 3, grad__norm__mean=[3.5, 3.5, 3.5]) == [-1, -1, -1]
    assert severities(learned(), "gradient_exploding", 2, grad__norm__mean=[30.0, 60.0]) == [WARNING, CRITICAL]


def test_gradient_exploding_default_in_a_noisy_run_is_not_ten_times_its_usual() -> None:
    """Ten times the usual with a z below 4 is noise."""
    watch = learned(grad__norm__mean=wobble(80, 0.4, noise=1.5))
    assert severities(watch, "gradient_exploding", 3, grad__norm__mean=8.0) == [-1] * 3


def test_gradient_unhealthy_default_warns_only_where_it_is_low_for_this_run() -> None:
    """A run whose tensors always exceed ten times the clip limit is configured so: a note."""
    assert severities(learned(), "gradient_unhealthy", 1, grad__health=0.45) == [WARNING]
    assert severities(learned(grad__health=0.4), "gradient_unhealthy", 1, grad__health=0.35) == [INFO]


def test_gradient_drift_names_direction_and_subject() -> None:
    """Half as much again is divergence of the norm; half of the health is its collapse."""
    watch = Watch("classic")
    anomalies = watch.feed(signal_block(WARM_UP + 1, grad__norm__mean=[0.4] * WARM_UP + [0.7]))
    assert [(a.kind, a.subject, round(a.value, 2), a.limit) for a in anomalies] == [("gradient_drift", "norm", 0.75, 0.5)]
    assert anomalies[0].sentence.startswith("Divergence of the gradient norm: ")
    (fallen,) = Watch("classic").feed(signal_block(WARM_UP + 1, grad__health=[1.0] * WARM_UP + [0.45]))
    assert fallen.kind == "gradient_unhealthy"
    assert [(a.kind, a.subject, round(a.value, 2), a.limit) for a in fallen.attached] == [
        ("gradient_drift", "health", -0.55, -0.5)
    ]


@pytest.mark.parametrize(("factor", "code"), [(1.499, CLEAR), (1.501, BREACH), (0.501, CLEAR), (0.499, BREACH)])
def test_gradient_drift_classic_has_its_limit_on_both_sides(factor: float, code: int) -> None:
    """To a thousandth: the average of equal numbers is that number but for its last bits."""
    watch = Watch("classic")
    watch.check(signal_block(WARM_UP, grad__norm__mean=0.5))
    found = watch.check(signal_block(1, start=WARM_UP, grad__norm__mean=0.5 * factor))["gradient_drift:norm"]
    assert found.code.tolist() == [code]


def test_gradient_drift_warms_up_by_its_own_updates_and_says_how_far() -> None:
    """A resumed run that starts at update 300 has learned nothing yet; updates without the norm teach nothing."""
    watch = Watch()
    watch.check(signal_block(12, start=300))
    found = watch.check(signal_block(3, start=312, grad__norm__mean=[0.4, Status.NOT_CALLED, 0.4]))["gradient_drift:norm"]
    assert found.code.tolist() == [LEARNING, BLIND, LEARNING]
    assert found.reason == "10 of 28 updates to learn from"


def test_gradient_drift_default_warns_when_it_lasts_and_notes_when_it_does_not() -> None:
    """Twelve times the usual norm: a note, a warning once the sum is beyond 12; eight times, and a quarter, stay notes."""
    ranks = severities(learned(), "gradient_drift:norm", 12, grad__norm__mean=4.8)
    assert ranks[0] == INFO
    assert ranks.index(WARNING) == 4
    assert ranks[-1] == WARNING
    assert set(severities(learned(), "gradient_drift:norm", 12, grad__norm__mean=3.2)) == {INFO}
    assert set(severities(learned(), "gradient_drift:norm", 12, grad__norm__mean=0.1)) == {INFO}


def test_gradient_drift_follows_a_trainer_that_goes_back() -> None:
    """After a bad stretch the trainer resumes at update 80: the average is the one of then, so nothing drifts."""
    watch, straight = learned(profile="classic"), learned(profile="classic")
    watch.check(signal_block(30, start=80, grad__norm__mean=2.0))
    again = watch.check(signal_block(5, start=80, grad__norm__mean=0.41))["gradient_drift:norm"]
    expected = straight.check(signal_block(5, start=80, grad__norm__mean=0.41))["gradient_drift:norm"]
    assert again.value.tolist() == expected.value.tolist()
    assert again.code.tolist() == [CLEAR] * 5


def test_lstm_phases_are_judged_apart_and_one_that_appears_later_is_taken_up() -> None:
    """The state of the update may run away while that of the rollout is well."""
    names = ("rnn.h.rms", "rnn.h.saturation", "rnn.c.rms", "rnn.c.absmax")
    rollout = {f"{name.replace('.', '__')}__of__rollout": x for name, x in zip(names, (0.3, 0.1, 0.8, 3.0), strict=True)}
    update = {f"{name.replace('.', '__')}__of__update": x for name, x in zip(names, (0.3, 0.9, 30.0, 3.0), strict=True)}
    for profile in PROFILES:
        watch = Watch(profile)
        before = watch.check(signal_block(4, drop=names, **rollout))
        assert "lstm_unhealthy:update" not in before
        (anomaly,) = [a for a in watch.feed(signal_block(4, start=4, drop=names, **rollout, **update)) if "lstm" in a.kind]
        assert anomaly.subject == "update"
        assert " in the update " in anomaly.sentence


def test_lstm_default_votes_of_its_parts() -> None:
    """Saturation, a grown cell and a dead state: each twice in three."""
    for given in (
        {"rnn__h__saturation": [0.6, 0.1, 0.6]},
        {"rnn__c__absmax": [25.0, 3.0, 25.0]},
        {"rnn__h__rms": [0.3, 1e-7, 1e-7]},
    ):
        found = learned().feed(signal_block(3, start=80, **given))
        assert [(a.kind, a.update_fired) for a in found] == [("lstm_unhealthy", 82)]
    usual = learned(rnn__c__absmax=8.0)
    assert severities(usual, "lstm_unhealthy", 2, rnn__c__absmax=30.0) == [-1, -1]
    assert severities(learned(), "lstm_unhealthy", 2, rnn__c__absmax=20.0) == [-1, -1]


def test_lstm_of_a_policy_without_cell_state_says_what_is_not_watched() -> None:
    """A GRU is judged on its hidden state; a policy without recurrence makes it blind."""
    gru = Watch("classic").check(signal_block(1, drop=["rnn.c.rms", "rnn.c.absmax"], rnn__h__rms=20.0))["lstm_unhealthy"]
    assert gru.code.tolist() == [BREACH]
    assert "no cell state is passed" in gru.reason
    names = ["rnn.h.rms", "rnn.h.saturation", "rnn.c.rms", "rnn.c.absmax"]
    assert Watch().check(signal_block(1, drop=names))["lstm_unhealthy"].code.tolist() == [BLIND]


def test_nonfinite_recurrent_state_is_a_nan_of_the_recurrent_stage() -> None:
    """What is no number is the business of nonfinite."""
    (anomaly,) = Watch().feed(signal_block(1, rnn__h__nonfinite__of__update=4))
    assert (anomaly.kind, anomaly.stage) == ("nonfinite", "rnn")


@pytest.mark.parametrize("profile", PROFILES)
def test_skipped_steps_share_is_judged_over_fifty_updates_and_strictly(profile: str) -> None:
    """16 of 800 are exactly 2 %; 17 are more. Before 50 updates a share says nothing."""
    few = [4.0] * 4 + [0.0] * 45
    taken = [16.0 - x for x in few]
    watch = learned(49, profile, opt__skipped=few, opt__steps=taken)
    assert severities(watch, "skipped_steps", 1, start=49) == [-1]
    watch = learned(49, profile, opt__skipped=few, opt__steps=taken)
    assert severities(watch, "skipped_steps", 1, start=49, opt__skipped=1.0, opt__steps=15.0) == [CRITICAL]


@pytest.mark.parametrize("profile", PROFILES)
def test_skipped_steps_three_updates_without_any_step_are_critical_at_once(profile: str) -> None:
    """Two are not, nor are three with a step between."""
    watch = Watch(profile)
    given = {"opt__skipped": 16.0, "opt__steps": [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]}
    assert severities(watch, "skipped_steps", 6, start=0, **given) == [-1] * 5 + [CRITICAL]


@pytest.mark.parametrize("profile", PROFILES)
def test_telemetry_gap_signal_that_stops_coming_is_named_by_its_call(profile: str) -> None:
    """Four updates without are not yet a gap, five are; it ends when the signal is back."""
    watch = Watch(profile)
    watch.check(signal_block(30))
    assert "telemetry_gap:ppo" in watch.check(signal_block(4, start=30, loss__total=Status.NOT_CALLED))
    (anomaly,) = [a for a in watch.feed(signal_block(2, start=34, loss__total=Status.NOT_CALLED)) if a.kind == "telemetry_gap"]
    assert (anomaly.subject, anomaly.severity, anomaly.value, anomaly.update_onset) == ("ppo", Severity.WARNING, 5.0, 34)
    assert anomaly.sentence == ("Updates without a signal that always came (ppo): 5 at update 34, limit 4, since update 34.")
    ended = watch.feed(signal_block(20, start=36))
    assert [a.state for a in ended if a.kind == "telemetry_gap"] == ["resolved"]


def test_healthy_streams_of_every_signal_give_nothing_above_info() -> None:
    """400 updates with the noise of real runs, five seeds, in default."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        n, t = 400, np.arange(400)

        def noisy(level: object, sigma: float, rng: np.random.Generator = rng, n: int = n) -> np.ndarray:
            return np.asarray(level) * np.exp(sigma * rng.normal(size=n))

        solved = t > 250
        std = np.where(solved & (rng.random(n) < 0.5), 1.1, noisy(10.0, 0.3))
        found = Watch(updates_total=400).feed(
            signal_block(
                n,
                value__nmse=np.where(std < 2, 7.0, noisy(1.0 - 0.6 * t / n, 0.2)).tolist(),
                value__target__std=std.tolist(),
                value__explained_variance=(0.5 + 0.3 * rng.normal(size=n)).tolist(),
                grad__norm__mean=noisy(12.0 * np.exp(-t / 100) + 0.5, 0.4).tolist(),
                grad__health=rng.uniform(0.6, 1.0, size=n).tolist(),
                grad__tensor_norm__min=noisy(1e-4, 0.8).tolist(),
                grad__tensor_norm__over_clip=noisy(12.0, 0.5).tolist(),
                rnn__h__rms=noisy(0.3, 0.1).tolist(),
                rnn__h__saturation=rng.uniform(0.0, 0.3, size=n).tolist(),
                rnn__c__absmax=noisy(4.0 + t / 60, 0.15).tolist(),
                episode__return__mean=np.minimum(20 + 2 * t + 40 * rng.normal(size=n), 500).tolist(),
                episode__return__std=60.0,
                episode__count=rng.integers(1, 4, size=n).astype(float).tolist(),
            )
        )
        assert [anomaly.sentence for anomaly in found if anomaly.severity.rank > 0] == []


STUCK = {"policy__ratio__max": 1.0, "policy__kl__k3": 0.0, "episode__return__mean": 50.0}
"""Updates at whose end the policy is what it was, below the run's best return."""


@pytest.mark.parametrize(("first", "said"), [(1.0, -1), (1.0 / 0.999, -1), (1.0011, WARNING), (1.4, WARNING)])
def test_update_stalled_needs_a_ratio_that_was_once_another(first: float, said: int) -> None:
    """A ratio of 1 from the first update on is no fall; from just above a thousandth it is one, however long it lasts."""
    watch = learned(policy__ratio__max=first)
    assert severities(watch, "update_stalled", 200, **STUCK) == [said] * 200


@pytest.mark.parametrize("kl", [0.0, 1e-15])
def test_run_of_one_step_per_rollout_is_not_stalled(kl: float) -> None:
    """Advantage actor-critic: the ratio is 1 and the KL 0 always, up to rounding, while the return rises and falls."""
    n = 300
    returns = (100.0 + 40.0 * np.sin(np.arange(n) / 9.0)).tolist()
    divergences = [kl if update % 3 else 0.0 for update in range(n)]
    ratios = [1.0 + 1e-7 * (update % 2) for update in range(n)]
    given = {"policy__ratio__max": ratios, "policy__kl__k3": divergences, "episode__return__mean": returns}
    found = Watch().feed(signal_block(n, **given))
    attached = [one.kind for anomaly in found for one in anomaly.attached]
    assert "update_stalled" not in [*(anomaly.kind for anomaly in found), *attached]
