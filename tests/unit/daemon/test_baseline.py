"""Median and MAD of the run's own past: what enters, what does not, and when it starts again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradwatch_daemon.detect.baseline import (
    GUARD,
    LEARNED,
    MAD_TO_SIGMA,
    REFRESH,
    REJECTIONS,
    WINDOW,
    Baseline,
    Scale,
    nearest_run,
)

LOG = Scale(log=True, mad_least=0.05, least=1e-8)
LINEAR = Scale(log=False, mad_least=0.001)


def taught(values: list[float], scale: Scale = LINEAR) -> Baseline:
    """A baseline after one value per update from 0."""
    baseline = Baseline(scale)
    for value in values:
        baseline.step(value)
    return baseline


def noise(n: int, seed: int = 1) -> list[float]:
    """Log-normal KL around 0.01, log-sigma 0.35."""
    return (0.01 * np.exp(0.35 * np.random.default_rng(seed).normal(size=n))).tolist()


def test_baseline_with_too_little_history_gives_no_score() -> None:
    """No number before half a window lies behind the guard band; then there is one."""
    baseline = taught(noise(LEARNED + GUARD - 1), LOG)
    assert baseline.learned == LEARNED - 1
    assert math.isnan(baseline.step(0.01).z)
    assert baseline.learned == LEARNED
    assert not math.isnan(baseline.step(0.01).z)
    assert not math.isnan(baseline.standing.usual)


def test_baseline_outlier_never_enters() -> None:
    """A value 5 spreads away is scored and rejected; a good one enters."""
    baseline = taught(noise(60), LOG)
    assert baseline.step(1.0).z > 4
    for _ in range(3):
        baseline.step(0.01)
    window = baseline.state()[0]
    assert len(window) == 63
    assert max(window) < math.log(0.1)


def test_baseline_score_is_of_the_window_at_the_last_measurement_without_its_newest() -> None:
    """Every REFRESH accepted values the window is measured anew, up to the GUARD newest; by numpy."""
    values = noise(100)
    baseline = taught(values[:98], LOG)
    measured = LEARNED + GUARD + (98 - LEARNED - GUARD) // REFRESH * REFRESH
    window = np.log(values[:measured])[: measured - GUARD][-WINDOW:]
    centre = np.median(window)
    deviations = np.sort(np.abs(window - centre))
    spread = MAD_TO_SIGMA * deviations[(len(window) + 1) // 2 - 1]
    score = baseline.step(0.02)
    assert score.z == pytest.approx((math.log(0.02) - centre) / spread, rel=1e-9)
    assert score.usual == pytest.approx(math.exp(centre))
    assert score.limit == pytest.approx(math.exp(centre + 4 * spread))


def test_baseline_flat_signal_believes_no_smaller_spread_than_the_floor() -> None:
    """A constant KL does not make a wobble of 10 % an alarm: z is ln(1.1) / (1.4826 x 0.05)."""
    score = taught([0.01] * 80, LOG).step(0.011)
    assert score.z == pytest.approx(math.log(1.1) / (MAD_TO_SIGMA * 0.05))


def test_baseline_rejections_in_a_row_become_the_new_window() -> None:
    """A new regime is learned at once; one fewer rejection, or one good value between, is not."""
    baseline = taught(noise(80), LOG)
    for _ in range(REJECTIONS - 1):
        assert baseline.step(5.0).z > 4
    assert baseline.standing.usual == pytest.approx(0.01, rel=0.3)
    assert baseline.step(5.0).z > 4
    assert baseline.standing.usual == pytest.approx(5.0)
    assert baseline.learned == LEARNED
    assert baseline.step(5.0).z == pytest.approx(0.0)

    interrupted = taught(noise(80), LOG)
    for update in range(2 * REJECTIONS - 2):
        interrupted.step(0.01 if update == REJECTIONS - 2 else 5.0)
    assert interrupted.standing.usual == pytest.approx(0.01, rel=0.3)


def test_baseline_zero_and_negative_values_count_as_the_least() -> None:
    """A KL of exactly 0, or -1e-9 by rounding, has a logarithm all the same."""
    assert taught(noise(60), LOG).step(0.0).z == taught(noise(60), LOG).step(-1e-9).z < -4


def test_nearest_run_equals_sorted_deviations_from_any_start() -> None:
    """The sliding answer is the median absolute deviation, wherever the search begins."""
    rng = np.random.default_rng(0)
    for n in (32, 33, 63, 64):
        ordered = np.sort(rng.standard_t(2, size=n)).tolist()
        centre = float(np.median(ordered))
        k = (n + 1) // 2
        expected = sorted(abs(x - centre) for x in ordered)[k - 1]
        found = {nearest_run(ordered, centre, start) for start in range(0, n)}
        assert len(found) == 1
        near = found.pop()
        assert max(centre - ordered[near], ordered[near + k - 1] - centre) == expected


def test_baseline_restored_from_state_goes_on_bit_for_bit() -> None:
    """After a restart every score is the same number."""
    values = noise(300, seed=5)
    one = taught(values[:150], LOG)
    other = Baseline.restored(LOG, one.state())
    for update in range(150, 300):
        assert one.step(values[update]) == other.step(values[update])
    assert one.state() == other.state()
