"""The named formulas against numpy on raw samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.derive import formulas
from gradwatch_daemon.derive.formulas import FORMULAS, Slots

NONE = np.empty((0, 0))
SAMPLES = np.array([0.1, -0.4, 0.25, 1.5, -2.0])


def moments(samples: object) -> Slots:
    """(n, mean, M2) of samples as one row, one signal."""
    x = np.asarray(samples, np.float64)
    n = float(x.size)
    mean = float(x.mean()) if x.size else 0.0
    return Slots(NONE, *(np.array([[v]]) for v in (n, mean, float(((x - mean) ** 2).sum()))))


def shape(samples: object) -> Slots:
    """The same with M3 and M4."""
    x = np.asarray(samples, np.float64)
    powers = [np.array([[float(((x - x.mean()) ** k).sum())]]) if x.size else np.zeros((1, 1)) for k in (3, 4)]
    return Slots(*moments(samples)[:4], *powers)


def plain(x: float) -> Slots:
    """A one-slot column."""
    return Slots(np.array([[x]]), NONE, NONE, NONE)


def test_formulas_of_the_registry_are_all_known() -> None:
    """Every name a signal uses exists, and no formula is left over."""
    assert set(FORMULAS) == {signal.formula for signal in SIGNALS.values()}


@pytest.mark.parametrize(
    ("function", "columns", "expected"),
    [
        (formulas.mean, (moments(SAMPLES),), SAMPLES.mean()),
        (formulas.negative_mean, (moments(SAMPLES),), -SAMPLES.mean()),
        (formulas.std, (moments(SAMPLES),), SAMPLES.std()),
        (formulas.std, (moments([3.0]),), 0.0),
        (formulas.rms, (moments(SAMPLES),), np.sqrt((SAMPLES**2).mean())),
        (formulas.count, (moments(SAMPLES),), 5.0),
        (formulas.count, (moments([]),), 0.0),
        (formulas.value, (plain(7.0),), 7.0),
        (formulas.rate, (plain(2.0), moments(SAMPLES)), 0.4),
        (formulas.share, (moments(SAMPLES), plain(0.5)), SAMPLES.mean() / 0.5),
        (formulas.explained_variance, (moments(SAMPLES), moments(3 * SAMPLES)), 1 - 1 / 9),
        (formulas.nmse, (moments(SAMPLES + 1.0), moments(3 * SAMPLES)), ((SAMPLES + 1.0) ** 2).mean() / (3 * SAMPLES).var()),
        (formulas.quotient, (plain(3.0), plain(-0.5)), -6.0),
        (formulas.quotient, (plain(0.0), plain(math.inf)), 0.0),
        (formulas.mean_ratio, (moments(SAMPLES), moments([2.0, 4.0])), SAMPLES.mean() / 3.0),
        (formulas.gradient_health, (plain(0.0), plain(0.0), plain(40.0), plain(0.0)), 1.0),
        (formulas.gradient_health, (plain(10.0), plain(5.0), plain(40.0), plain(0.0)), 1 - 0.5 * 0.25 - 0.8 * 0.125),
        (formulas.gradient_health, (plain(40.0), plain(40.0), plain(40.0), plain(0.0)), 0.0),
        (formulas.gradient_health, (plain(0.0), plain(0.0), plain(40.0), plain(1.0)), 0.0),
        (formulas.half_mean_square, (moments(SAMPLES),), (SAMPLES**2).mean() / 2),
        (formulas.effective_share, (moments(SAMPLES),), SAMPLES.sum() ** 2 / (5 * (SAMPLES**2).sum())),
        (formulas.effective_share, (moments([2.0, 2.0]),), 1.0),
        (formulas.rms_rate, (plain(45.0), moments(SAMPLES)), 3.0),
        (formulas.rms_rate, (plain(-1e-18), moments(SAMPLES)), 0.0),
        (formulas.count_ratio, (moments(SAMPLES), moments([1.0, 2.0])), 2.5),
        (formulas.std_ratio, (moments(SAMPLES), moments(3 * SAMPLES)), 1 / 3),
        (formulas.std_ratio, (moments([2.0, 2.0]), moments([1.0, 3.0])), 0.0),
        (
            formulas.correlation,
            (moments(SAMPLES), moments(SAMPLES**2), moments(SAMPLES**2 - SAMPLES)),
            np.corrcoef(SAMPLES, SAMPLES**2)[0, 1],
        ),
        (formulas.correlation, (moments(SAMPLES), moments(-SAMPLES), moments(-2 * SAMPLES)), -1.0),
        (formulas.envelope, (plain(-6.0), plain(1.0), plain(-1.0), plain(2.0)), 3.0),
        (formulas.skew, (shape(SAMPLES),), ((SAMPLES - SAMPLES.mean()) ** 3).mean() / SAMPLES.std() ** 3),
        (formulas.kurtosis, (shape(SAMPLES),), ((SAMPLES - SAMPLES.mean()) ** 4).mean() / SAMPLES.std() ** 4),
        (formulas.tail_index, (plain(2.0), moments(SAMPLES)), 2.0 / (SAMPLES.std() * math.sqrt(2 * math.log(5)))),
    ],
)
def test_formula_of_moments_equals_numpy_on_samples(function: object, columns: tuple[Slots, ...], expected: float) -> None:
    """Each formula gives what the definition gives, and is defined there."""
    value, undefined = function(*columns)  # type: ignore[operator]
    assert value[0, 0] == pytest.approx(expected, rel=1e-12)
    assert not undefined[0, 0]


@pytest.mark.parametrize(
    ("function", "columns"),
    [
        (formulas.mean, (moments([]),)),
        (formulas.negative_mean, (moments([]),)),
        (formulas.std, (moments([]),)),
        (formulas.rms, (moments([]),)),
        (formulas.rate, (plain(0.0), moments([]))),
        (formulas.share, (moments([]), plain(1.0))),
        (formulas.share, (moments(SAMPLES), plain(0.0))),
        (formulas.share, (moments(SAMPLES), plain(-1.0))),
        (formulas.explained_variance, (moments(SAMPLES), moments([2.0, 2.0]))),
        (formulas.explained_variance, (moments([]), moments([]))),
        (formulas.nmse, (moments(SAMPLES), moments([2.0, 2.0]))),
        (formulas.nmse, (moments([]), moments(SAMPLES))),
        (formulas.quotient, (plain(1.0), plain(0.0))),
        (formulas.mean_ratio, (moments(SAMPLES), moments([]))),
        (formulas.mean_ratio, (moments(SAMPLES), moments([0.0, 0.0]))),
        (formulas.gradient_health, (plain(0.0), plain(0.0), plain(0.0), plain(1.0))),
        (formulas.half_mean_square, (moments([]),)),
        (formulas.effective_share, (moments([]),)),
        (formulas.effective_share, (moments([0.0, 0.0]),)),
        (formulas.rms_rate, (plain(1.0), moments([]))),
        (formulas.count_ratio, (moments(SAMPLES), moments([]))),
        (formulas.std_ratio, (moments(SAMPLES), moments([2.0, 2.0]))),
        (formulas.correlation, (moments([0.1, 0.1, 0.1]), moments(SAMPLES[:3]), moments(SAMPLES[:3] - 0.1))),
        (formulas.correlation, (moments(SAMPLES), moments([2.0] * 5), moments(2.0 - SAMPLES))),
        (formulas.correlation, (moments(SAMPLES), moments(SAMPLES[:4]), moments(SAMPLES))),
        (formulas.envelope, (plain(-1.0), plain(1.0), plain(0.0), plain(0.0))),
        (formulas.skew, (shape([0.1, 0.1, 0.1]),)),
        (formulas.kurtosis, (shape([]),)),
        (formulas.tail_index, (plain(1.0), moments([0.5]))),
        (formulas.tail_index, (plain(0.0), moments([0.0, 0.0, 0.0]))),
    ],
)
def test_formula_without_samples_or_spread_is_undefined(function: object, columns: tuple[Slots, ...]) -> None:
    """n = 0, zero variance and a limit of 0 or below give no number at all."""
    with np.errstate(all="ignore"):
        _, undefined = function(*columns)  # type: ignore[operator]
    assert undefined[0, 0]


def test_formula_of_a_nan_is_a_measured_nan() -> None:
    """A NaN or infinity is not 'undefined': somebody must hear of it."""
    broken = Slots(NONE, np.array([[8.0, 8.0]]), np.array([[np.nan, np.inf]]), np.array([[np.nan, np.nan]]))
    with np.errstate(all="ignore"):
        mean, undefined = formulas.mean(broken)
        deviation, also = formulas.std(broken)
    assert np.isnan(mean[0, 0])
    assert np.isposinf(mean[0, 1])
    assert np.isnan(deviation).all()
    assert not undefined.any()
    assert not also.any()


def test_variance_a_hair_below_zero_counts_as_zero() -> None:
    """Rounding of M2 never makes a NaN."""
    value, undefined = formulas.std(Slots(NONE, np.array([[4.0]]), np.array([[1.0]]), np.array([[-1e-18]])))
    assert value[0, 0] == 0.0
    assert not undefined[0, 0]
