"""Detectors of the policy's spread and of the critic's error: falls that last, falls that are learning, errors that matter."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch_contracts.control import Severity
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.detect.trend import RETURN_POINTS, Rise
from gradwatch_daemon.records import Verdict
from harness.blocks import Watch, signal_block

WARNING, CRITICAL = Severity.WARNING.rank, Severity.CRITICAL.rank
LEARN = 80
RETURN, ENTROPY = "episode__return__mean", "policy__entropy__norm"


def _wobble(n: int, level: float) -> list[float]:
    """Numbers around a level, one in a hundred up and down, the same each time."""
    return (level * (1.0 + 0.01 * np.sin(np.arange(n) * 2.399))).tolist()


def _said(watch: Watch, kind: str, n: int, **given: object) -> list[int]:
    """Rank of each of n rows in breach, -1 of the others."""
    found = watch.check(signal_block(n, start=LEARN, **given))[kind]
    return [int(rank) if code == Verdict.BREACH else -1 for code, rank in zip(found.code, found.severity, strict=True)]


def _solved(entropy: float) -> Watch:
    """A run whose return rose for ten updates and then stood, with a usual entropy."""
    watch = Watch("default")
    returns = [20.0 * (update + 1) for update in range(10)] + [200.0] * (LEARN - 10)
    watch.check(signal_block(LEARN, **{RETURN: returns, ENTROPY: _wobble(LEARN, entropy)}))
    return watch


def test_entropy_that_falls_long_after_the_return_stood_still_is_a_warning() -> None:
    """From 0.7 to 0.2 at the run's best return: nothing was gained by it."""
    said = _said(_solved(0.7), "entropy_collapse", 4, **{RETURN: 200.0, ENTROPY: 0.2})
    assert said == [WARNING] * 4


def test_entropy_that_falls_while_the_return_rises_is_learning() -> None:
    """The same fall, with a new best return at every update."""
    rising = [210.0 + 10.0 * row for row in range(12)]
    said = _said(_solved(0.7), "entropy_collapse", 12, **{RETURN: rising, ENTROPY: 0.2})
    assert said[RETURN_POINTS:] == [-1] * (12 - RETURN_POINTS)


@pytest.mark.parametrize(("usual", "now"), [(0.34, 0.1), (0.7, 0.29), (0.7, 0.31)])
def test_entropy_that_was_low_before_or_fell_by_little_is_no_warning(usual: float, now: float) -> None:
    """A usual entropy below 0.35, a fall to more than 0.4 of it, an entropy above 0.3."""
    assert WARNING not in _said(_solved(usual), "entropy_collapse", 4, **{RETURN: 200.0, ENTROPY: now})


def test_spread_that_falls_fast_is_a_warning_and_one_on_a_schedule_is_not() -> None:
    """5 % of itself an update against 1.5 %: the first is at nothing in 20 updates, the second in 66."""

    def falling(rate: float) -> list[int]:
        watch = Watch("default")
        watch.check(signal_block(LEARN, policy__std__min=_wobble(LEARN, 1.0)))
        return _said(watch, "std_collapse", 16, policy__std__min=[(1.0 - rate) ** row for row in range(16)])

    assert falling(0.05)[-3:] == [WARNING] * 3
    assert set(falling(0.015)) == {-1}


def test_spread_of_three_times_the_first_is_a_warning_although_the_return_stands_at_its_best() -> None:
    """Where nothing bounds it, a bonus that outweighs what actions earn is found however well the run still does."""
    watch = Watch("default")
    watch.check(signal_block(LEARN, policy__std__mean=_wobble(LEARN, 1.0), **{RETURN: list(range(LEARN))}))
    assert _said(watch, "std_explosion", 2, policy__std__mean=3.1, **{RETURN: 200.0}) == [WARNING] * 2


@pytest.mark.parametrize(("nmse", "said"), [(0.002, -1), (0.1, -1), (0.11, CRITICAL)])
def test_critic_error_that_grew_a_thousandfold_counts_once_it_matters(nmse: float, said: int) -> None:
    """A critic that was exact to eight digits may err by a hundredth of the returns' spread."""
    watch = Watch("default")
    watch.check(signal_block(LEARN, value__error__rms=_wobble(LEARN, 1e-6)))
    assert _said(watch, "critic_divergence", 3, value__error__rms=1e-3, value__nmse=nmse) == [said] * 3


def test_rise_counts_updates_since_the_last_new_best_and_ignores_creeping() -> None:
    """A best that exceeds the old one by less than 2 % of the range is none; a gap in the returns counts as updates."""
    rise = Rise()
    assert [np.isnan(rise.step(update, 0.0)) for update in range(RETURN_POINTS - 1)] == [True] * (RETURN_POINTS - 1)
    for update in range(4, 14):
        rise.step(update, 100.0)
    reached = rise.step(14, 100.0)
    assert reached == 8.0  # the median is 100 from update 6 on
    assert [rise.step(update, 101.9) for update in range(15, 20)] == [9.0, 10.0, 11.0, 12.0, 13.0]
    assert rise.since(30) == 24.0
    assert [rise.step(update, 110.0) for update in range(31, 36)][-1] == 2.0


def test_rise_that_is_rewound_or_restored_goes_on_from_there() -> None:
    """A trainer that went back behind its best reached it at that update."""
    rise = Rise()
    for update in range(20):
        rise.step(update, float(update))
    again = Rise.restored(rise.state())
    assert again.step(20, 0.0) == rise.step(20, 0.0)
    rise.rewind(10)
    assert rise.since(12) == 2.0


@pytest.mark.parametrize(("signal", "key"), [("episode__return__mean", "return"), ("episode__eval_return__mean", "evaluation")])
def test_run_below_the_floor_of_its_user_is_a_warning_from_the_start(signal: str, key: str) -> None:
    """Worse than doing nothing: no past of the run is needed, and a return on the floor is not below it."""
    profile = load_profile("default", {"no_learning": {key: 10.0}})
    below = Watch(profile).check(signal_block(3, **{RETURN: 50.0, signal: 9.9}))["no_learning"]
    assert [int(rank) for rank in below.severity] == [WARNING] * 3
    assert below.code.tolist() == [Verdict.BREACH] * 3
    on_it = Watch(profile).check(signal_block(3, **{RETURN: 50.0, signal: 10.0}))["no_learning"]
    assert on_it.code.tolist() == [Verdict.CLEAR] * 3


def test_run_without_a_floor_is_never_below_it() -> None:
    """Nobody said what doing nothing earns."""
    found = Watch("default").check(signal_block(3, **{RETURN: -1e9}))["no_learning"]
    assert found.code.tolist() == [Verdict.CLEAR] * 3
