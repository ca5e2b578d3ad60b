"""Value function, gradients, recurrent state, optimizer steps and returns: each limit, each border, each missing input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Severity
from gradwatch_daemon.detect.catalogue import PROFILES
from gradwatch_daemon.detect.ema import WARM_UP
from gradwatch_daemon.records import Verdict
from harness.blocks import Watch, above, below, signal_block

INF, NAN = math.inf, math.nan
BREACH, CLEAR, HOLD, BLIND, LEARNING = Verdict.BREACH, Verdict.CLEAR, Verdict.HOLD, Verdict.BLIND, Verdict.LEARNING
INFO, WARNING, CRITICAL = Severity.INFO.rank, Severity.WARNING.rank, Severity.CRITICAL.rank


def wobble(n: int, level: float, noise: float = 0.05, seed: int = 3) -> list[float]:
    """A positive signal with log-noise."""
    return (level * np.exp(noise * np.random.default_rng(seed).normal(size=n))).tolist()


def learned(n: int = 80, profile: str = "default", **given: object) -> Watch:
    """A watch after `n` healthy updates."""
    watch = Watch(profile)
    usual = {"value__nmse": wobble(n, 0.4), "grad__norm__mean": wobble(n, 0.4)}
    watch.check(signal_block(n, **{**usual, **given}))
    return watch


def severities(watch: Watch, kind: str, n: int, start: int = 80, **given: object) -> list[int]:
    """Rank of each row in breach, -1 of the others."""
    found = watch.check(signal_block(n, start=start, **given))[kind]
    return [int(s) if c == BREACH else -1 for c, s in zip(found.code, found.severity, strict=True)]


# -- fixed thresholds -----------------------------------------------------------------------------------------------------

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


# -- value function -------------------------------------------------------------------------------------------------------

PHASES = [((0, 99), -0.5), ((100, 249), -0.2), ((250, 749), 0.0), ((750, 999, 1000, 5000), 0.1)]
BORDERS = [(update, limit) for updates, limit in PHASES for update in updates]


@pytest.mark.parametrize(("update", "limit"), BORDERS)
def test_value_collapse_classic_limit_of_each_phase_begins_exactly_at_its_border(update: int, limit: float) -> None:
    """10 %, 25 % and 75 % of 1,000 updates; an update beyond the end is still late."""
    found = Watch("classic").check(signal_block(2, start=update, value__explained_variance=[limit, below(limit)]))
    first = found["value_collapse"]
    assert first.code[0] == CLEAR
    alone = Watch("classic").check(signal_block(1, start=update, value__explained_variance=below(limit)))["value_collapse"]
    assert (alone.code[0], alone.limit[0], alone.severity[0]) == (BREACH, limit, WARNING)


def test_value_collapse_classic_without_progress_is_blind_and_names_the_argument() -> None:
    """No default pretends to know how far a run is; nor does a total of nothing."""
    for total in (None, 0, -5):
        found = Watch("classic", updates_total=total).check(signal_block(2, value__explained_variance=-9.0))["value_collapse"]
        assert found.code.tolist() == [BLIND, BLIND]
        assert "pass updates_total to watch()" in found.reason


def test_value_collapse_beyond_updates_total_is_judged_late_and_says_that_the_total_is_wrong() -> None:
    """A run that goes on past its announced end."""
    found = Watch("classic", updates_total=100).check(signal_block(2, start=150))["value_collapse"]
    assert found.reason == "update 151 is beyond updates_total 100"


def test_value_collapse_needs_a_large_error_that_is_unusual_too() -> None:
    """Beyond 1.5 and beyond 3 times the usual 0.4; 10 is critical; each is strict."""
    assert severities(learned(), "value_collapse", 4, value__nmse=[1.5, above(1.5), 10.0, above(10.0)]) == [
        -1,
        WARNING,
        WARNING,
        CRITICAL,
    ]
    high = learned(value__nmse=wobble(80, 1.0))
    assert severities(high, "value_collapse", 2, value__nmse=[2.5, 3.5]) == [-1, WARNING]
    bad_from_the_start = learned(value__nmse=wobble(80, 12.0))
    assert severities(bad_from_the_start, "value_collapse", 1, value__nmse=12.0) == [CRITICAL]


def test_value_collapse_cannot_be_fired_by_returns_that_hardly_vary() -> None:
    """The variance counts as half of its average at least, so 50 times next to nothing is a note, however often it comes."""
    low = {"value__nmse": 50.0, "value__explained_variance": -40.0, "value__target__std": 0.5}
    watch = learned()
    assert max(severities(watch, "value_collapse", 60, **low)) == INFO
    assert severities(watch, "value_collapse", 1, start=140, value__nmse=5.0) == [WARNING]


def test_value_collapse_equal_returns_are_blind_not_healthy() -> None:
    """Zero variance: neither error nor explained variance is defined."""
    given = {"value__nmse": Status.UNDEFINED, "value__explained_variance": Status.UNDEFINED, "value__target__std": 0.0}
    for profile in PROFILES:
        found = learned(profile=profile).check(signal_block(1, start=80, **given))["value_collapse"]
        assert found.code.tolist() == [BLIND]
        assert "all returns of the update were equal" in found.reason


def test_value_collapse_explained_variance_alone_is_info_in_default() -> None:
    """And only beside an error that is large too."""
    given = {"value__explained_variance": [-0.5, below(-0.5)], "value__nmse": 1.2}
    assert severities(learned(), "value_collapse", 2, **given) == [-1, INFO]
    watch = learned()
    assert severities(watch, "value_collapse", 2, value__explained_variance=-9.0, value__nmse=[0.9, 1.1]) == [-1, INFO]


# -- gradients ------------------------------------------------------------------------------------------------------------


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


# -- recurrent state ------------------------------------------------------------------------------------------------------


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


# -- optimizer steps ------------------------------------------------------------------------------------------------------


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


# -- returns --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("drop", "breach"), [(0.1, False), (0.11, True)])
def test_performance_classic_rolling_drop_of_more_than_a_tenth(drop: float, breach: bool) -> None:
    """The mean of the last ten against its best; strict."""
    watch = Watch("classic")
    watch.check(signal_block(20, start=200, episode__return__mean=100.0))
    found = watch.check(signal_block(10, start=220, episode__return__mean=100.0 * (1 - drop)))["performance_degradation"]
    assert bool(found.code[-1] == BREACH) is breach


@pytest.mark.parametrize(("start", "code"), [(89, LEARNING), (90, BREACH)])
def test_performance_classic_judges_from_exactly_a_tenth_of_the_run(start: int, code: int) -> None:
    """Update 99 of 1,000 is before the border, update 100 behind it."""
    watch = Watch("classic")
    watch.check(signal_block(start, episode__return__mean=100.0))
    found = watch.check(signal_block(11, start=start, episode__return__mean=10.0))["performance_degradation"]
    assert found.code[-1] == code


def test_performance_classic_without_progress_is_blind_and_of_negative_returns_is_a_share_of_their_size() -> None:
    """-1000 falling to -1200 is a fifth."""
    found = Watch("classic", updates_total=None).check(signal_block(30))["performance_degradation"]
    assert set(found.code.tolist()) == {BLIND}
    assert "pass updates_total" in found.reason
    watch = Watch("classic")
    watch.check(signal_block(20, start=200, episode__return__mean=-1000.0))
    fallen = watch.check(signal_block(10, start=220, episode__return__mean=-1200.0))["performance_degradation"]
    assert fallen.code[-1] == BREACH


def rising(n: int = 60) -> dict[str, object]:
    """Returns that rise from 0 to 1,000, with 20 episodes an update."""
    returns = [1000.0 * min(i, n - 20) / (n - 20) for i in range(n)]
    return {"episode__return__mean": returns, "episode__count": 20.0, "episode__return__std": 50.0}


@pytest.mark.parametrize(("level", "ranks"), [(600.0, {-1}), (450.0, {-1, WARNING}), (300.0, {-1, WARNING, CRITICAL})])
def test_performance_default_drop_must_be_large_and_held_by_episodes(level: float, ranks: set[int]) -> None:
    """More than half of the gain for 8 updates and 100 episodes warns; 60 % for twice as long is critical."""
    watch = learned(60, **rising())
    given = {"episode__return__mean": level, "episode__count": 20.0, "episode__return__std": 50.0}
    found = severities(watch, "performance_degradation", 20, start=60, **given)
    assert set(found) == ranks
    assert found[:6] == [-1] * 6
    few = learned(60, **rising())
    found = severities(few, "performance_degradation", 20, start=60, **{**given, "episode__count": 2.0})
    assert set(found) == {-1}


def test_performance_default_updates_without_episodes_are_not_blind() -> None:
    """Long episodes do not end in every update: the count is then not defined, and nothing is amiss."""
    watch = learned(60, **rising())
    names = ("episode__return__mean", "episode__return__std", "episode__count")
    found = watch.check(signal_block(2, start=60, **dict.fromkeys(names, Status.UNDEFINED)))["performance_degradation"]
    assert found.code.tolist() == [HOLD, HOLD]
    never = Watch().check(signal_block(2, **dict.fromkeys(names, Status.NOT_CALLED)))["performance_degradation"]
    assert never.code.tolist() == [BLIND, BLIND]
    assert "pass episode_returns to mon.step()" in never.reason


# -- telemetry: what rows show --------------------------------------------------------------------------------------------


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
