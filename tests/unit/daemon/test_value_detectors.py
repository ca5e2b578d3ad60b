"""Value function and returns: each limit, each border, each missing input."""

from __future__ import annotations

import pytest

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Severity
from gradwatch_daemon.detect.catalogue import PROFILES
from gradwatch_daemon.records import Verdict
from harness.blocks import Watch, above, below, signal_block
from harness.watched import learned, severities, wobble

BREACH, CLEAR, HOLD, BLIND, LEARNING = Verdict.BREACH, Verdict.CLEAR, Verdict.HOLD, Verdict.BLIND, Verdict.LEARNING

INFO, WARNING, CRITICAL = Severity.INFO.rank, Severity.WARNING.rank, Severity.CRITICAL.rank


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
