"""Labels by outcome: when a fault showed, when it was too late, and what was no fault at all."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.corpus.cases import Case
from benchmarks.corpus.disturbance import Disturbance
from benchmarks.corpus.labels import Envelope, exceedance, label
from benchmarks.corpus.recording import Recording
from benchmarks.corpus.setup import Setup
from benchmarks.corpus.truth import NAMES

RETURN, KL, FINITE = NAMES.index("return"), NAMES.index("kl"), NAMES.index("finite")
FAULT = Case("X", "test", Setup("TwoState"), Disturbance, 50, "abrupt", frozenset({"kl_spike"}))
HEALTHY = Case("H", "test", Setup("TwoState"))


def _truth(seed: int, updates: int = 120) -> np.ndarray:
    """A run that gains 100 in its first 30 updates and stays there."""
    random = np.random.default_rng(seed)
    truth = np.exp(0.1 * random.standard_normal((updates, len(NAMES)))).astype(np.float32)
    truth[:, RETURN] = 100.0 * np.minimum(np.arange(updates) / 30, 1.0) + random.standard_normal(updates)
    truth[:, FINITE] = 1.0
    return truth


def _recording(truth: np.ndarray) -> Recording:
    return Recording("X", 1, "", 120, (), truth)


ENVELOPE = Envelope.of([_truth(seed) for seed in range(20)])


def test_label_fault_that_never_shows_has_no_manifest() -> None:
    """Then the run is excluded, not missed."""
    assert label(FAULT, _recording(_truth(99)), ENVELOPE).manifest is None


def test_label_one_odd_update_is_no_manifest_two_of_three_are() -> None:
    """A single excursion happens to healthy runs, too."""
    truth = _truth(99)
    truth[60, KL] = 50.0
    assert label(FAULT, _recording(truth), ENVELOPE).manifest is None
    truth[62, KL] = 50.0
    assert label(FAULT, _recording(truth), ENVELOPE).manifest == 60


def test_label_before_the_injection_nothing_counts() -> None:
    """What went wrong by itself is not the fault's doing."""
    truth = _truth(99)
    truth[40:45, KL] = 50.0
    assert label(FAULT, _recording(truth), ENVELOPE).manifest is None


def test_label_not_finite_is_manifest_and_fatal_at_once() -> None:
    """One update of it is enough."""
    truth = _truth(99)
    truth[70:, FINITE] = 0.0
    found = label(FAULT, _recording(truth), ENVELOPE)
    assert (found.manifest, found.fatal) == (70, 70)


@pytest.mark.parametrize(("left", "fails"), [(80.0, False), (30.0, True)])
def test_label_lost_return_is_fatal_when_half_of_what_was_gained_is_gone(left: float, fails: bool) -> None:
    """For as long as ten updates; the same makes a natural failure of a run that was declared healthy."""
    truth = _truth(99)
    truth[80:, RETURN] = left
    fatal = label(HEALTHY, _recording(truth), ENVELOPE).fatal
    assert (fatal is not None) == fails
    if fatal is not None:
        assert 80 <= fatal <= 95


def test_exceedance_of_healthy_seeds_is_small() -> None:
    """The envelope is left by few values of a healthy seed it has not seen."""
    assert exceedance([_truth(seed) for seed in range(20)]) < 2e-3
