"""The moving average: its closed form, warm-up, direction, what never enters, saving, and a trainer that goes back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradwatch_daemon.detect.ema import AVERAGE_LEAST, HISTORY, MOMENTUM, OUTLIER_FACTOR, REJECTIONS, WARM_UP, Average, Ema


def fed(values: list[float], momentum: float = MOMENTUM) -> Ema:
    """An average of one value per update from 0."""
    ema = Ema(momentum)
    for update, value in enumerate(values):
        ema.step(update, value)
    return ema


def noise(n: int, level: float = 0.4, seed: int = 1) -> list[float]:
    """Log-normal values with log-sigma 0.3."""
    return (level * np.exp(0.3 * np.random.default_rng(seed).normal(size=n))).tolist()


def test_ema_nonfinite_values_never_enter_and_teach_nothing() -> None:
    """NaN and infinities leave average, count and bytes as they were."""
    ema, other = fed(noise(80)), fed(noise(80))
    assert math.isnan(ema.step(80, math.nan))
    assert math.isnan(ema.step(81, -math.inf))
    assert ema.step(82, math.inf) == math.inf
    assert ema.state() == other.state()
    fresh = Ema()
    assert math.isnan(fresh.step(0, math.nan))
    assert fresh.count == 0
    assert math.isnan(fresh.average)


def test_ema_outlier_has_a_drift_and_does_not_enter() -> None:
    """Nine times the average is told and forgotten; so is a ninth of it."""
    ema = fed([1.0] * 60)
    before = ema.average
    assert ema.step(60, OUTLIER_FACTOR + 1.0) == pytest.approx(OUTLIER_FACTOR)
    assert ema.step(61, 1 / (OUTLIER_FACTOR + 1.0)) == pytest.approx(1 / 9 - 1)
    assert ema.average == before
    assert ema.count == 60


def test_ema_outliers_for_ever_are_a_new_regime() -> None:
    """After 32 in a row they are the average; one good value between begins the count anew."""
    ema = fed([1.0] * 60)
    for update in range(60, 60 + REJECTIONS - 1):
        ema.step(update, 100.0)
    assert ema.count == 60
    ema.step(200, 1.0)
    for update in range(201, 200 + REJECTIONS):
        ema.step(update, 100.0)
    assert ema.count == 61
    ema.step(300, 100.0)
    assert ema.count == REJECTIONS
    assert ema.average == pytest.approx(100.0)


@pytest.mark.parametrize("n", [1, 2, 10, 49, 200])
def test_ema_bias_correction_equals_the_closed_form(n: int) -> None:
    """sum (1 - m) m^(n-i) x_i / (1 - m^n); of a constant it is that constant from the first value on."""
    values = noise(n)
    weights = [(1 - MOMENTUM) * MOMENTUM ** (n - 1 - i) for i in range(n)]
    expected = sum(w * x for w, x in zip(weights, values, strict=True)) / (1 - MOMENTUM**n)
    assert fed(values).average == pytest.approx(expected, rel=1e-12)
    assert fed([0.25] * n).average == pytest.approx(0.25, rel=1e-12)


def test_ema_gives_no_drift_before_its_warm_up_and_one_after() -> None:
    """Fifty values of its own, however many updates passed."""
    ema = Ema()
    drifts = [ema.step(update * 7, 1.0) for update in range(WARM_UP + 1)]
    assert all(math.isnan(drift) for drift in drifts[:WARM_UP])
    assert drifts[WARM_UP] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("value", "drift"), [(1.5, 0.5), (0.5, -0.5), (3.0, 2.0), (0.0, -1.0)])
def test_ema_drift_is_signed_and_relative_to_the_average_before(value: float, drift: float) -> None:
    """Divergence is positive, collapse negative."""
    assert fed([1.0] * WARM_UP).step(WARM_UP, value) == pytest.approx(drift)


def test_ema_of_zeros_is_at_home_at_zero() -> None:
    """An average of 0 divides nothing: 0 has no drift, anything else a huge one."""
    ema = fed([0.0] * 60)
    assert ema.step(60, 0.0) == 0.0
    assert ema.step(61, 1.0) > 1e6


def test_ema_round_trip_goes_on_bit_for_bit() -> None:
    """State out, state in: every later drift is the same number."""
    values = noise(900)
    ema = fed(values[:400])
    other = Ema.restored(ema.state())
    assert other.state() == ema.state()
    for update in range(400, 900):
        assert repr(ema.step(update, values[update])) == repr(other.step(update, values[update]))
    assert other.state() == ema.state()


def test_ema_many_steps_at_once_equal_single_ones() -> None:
    """Also across warm-up, outliers and the trimming of its history."""
    values = noise(2600)
    values[700:703] = [50.0, 1e-4, 60.0]
    values[1500:1570] = [9.0] * 70
    updates = list(range(3, 2603))
    one, many = Ema(), Ema()
    singly = [one.step(u, x) for u, x in zip(updates, values, strict=True)]
    for first, last in ((0, 20), (20, 21), (21, 1100), (1100, 2600)):
        assert repr(many.steps(np.array(updates[first:last], np.int64), np.array(values[first:last], np.float64))) == repr(
            singly[first:last]
        )
    assert one.state() == many.state()


@pytest.mark.parametrize("back_to", [60, 150, 299])
def test_ema_rewind_is_the_average_as_of_that_update(back_to: int) -> None:
    """A trainer that resumes from a checkpoint meets the average of then, bit for bit."""
    values = noise(300)
    ema, then = fed(values), fed(values[:back_to])
    ema.rewind(back_to)
    assert ema.average == then.average
    assert ema.count == then.count
    assert repr(ema.step(back_to, 0.7)) == repr(then.step(back_to, 0.7))
    assert ema.state() == then.state()


def test_ema_rewind_beyond_its_history_starts_again() -> None:
    """A wrong average would call health a drift."""
    ema = fed(noise(4 * HISTORY))
    ema.rewind(10)
    assert ema.count == 0
    assert ema.state() == Ema().state()


def test_ema_rewind_to_the_future_changes_nothing() -> None:
    """An update after the last one is no way back."""
    ema, other = fed(noise(80)), fed(noise(80))
    ema.rewind(80)
    assert ema.state() == other.state()


def test_ema_history_is_bounded() -> None:
    """However long a run is."""
    sizes = {len(fed(noise(n)).state()[5]) // 8 for n in (100, 1000, 1024, 3000)}
    assert max(sizes) < 2 * HISTORY


def test_average_is_given_after_a_few_values_and_goes_on_after_a_restart() -> None:
    """The plain one: no outliers, no warm-up beyond the first eight."""
    average = Average()
    given = [average.step(2.0) for _ in range(AVERAGE_LEAST + 1)]
    assert all(math.isnan(x) for x in given[:AVERAGE_LEAST])
    assert given[AVERAGE_LEAST] == pytest.approx(2.0)
    other = Average.restored(average.state())
    assert [average.step(x) for x in (9.0, 1e6, 0.0)] == [other.step(x) for x in (9.0, 1e6, 0.0)]
    assert average.state() == other.state()
