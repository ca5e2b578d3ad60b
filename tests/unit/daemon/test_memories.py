"""What detectors remember: windows of episodes and steps, arrivals, presence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gradwatch_contracts.columns import Status
from gradwatch_daemon.detect.arrivals import GAPS, GAPS_LEARNED, NS, RECORDS, Arrivals
from gradwatch_daemon.detect.plain import BLOCK_MATH, ROW_MATH
from gradwatch_daemon.detect.presence import STEADY, Presence, Watched
from gradwatch_daemon.detect.returns import MEDIAN_POINTS, ROLLING_POINTS, WINDOWS_LEARNED, EpisodeWindow, Held, RollingBest
from gradwatch_daemon.detect.steps import WINDOW_UPDATES, StepWindow
from gradwatch_daemon.detect.trend import Best, Trend
from gradwatch_daemon.records import SignalKey

if TYPE_CHECKING:
    from gradwatch_daemon.detect.memory import Memory

NAN, INF = math.nan, math.inf
SIGNALS = (SignalKey("policy.kl.k3"), SignalKey("loss.total"), SignalKey("obs.input.mean"), SignalKey("episode.return.mean"))
WATCHED = Watched.of(SIGNALS)


def pattern(*status: Status) -> bytes:
    """Classes of a row with these statuses for the first signals; the others are measured."""
    return WATCHED.pattern(bytes([*status, *[0] * (len(SIGNALS) - len(status))]))


@pytest.mark.parametrize("a", [1.5, -2.0, 0.0, -0.0, INF, -INF, NAN])
@pytest.mark.parametrize("b", [3.0, 0.0, -0.0, INF, NAN])
def test_plain_math_of_a_row_gives_the_bits_of_a_block(a: float, b: float) -> None:
    """Quotients by zero, NaN that yields, and what is finite."""
    x, y = np.array([a]), np.array([b])
    with np.errstate(all="ignore"):
        assert repr(float(BLOCK_MATH.divide(x, y)[0])) == repr(float(ROW_MATH.divide(a, b)))
    assert repr(abs(float(BLOCK_MATH.larger(x, y)[0]))) == repr(abs(float(ROW_MATH.larger(a, b))))
    assert bool(BLOCK_MATH.finite(x)[0]) is ROW_MATH.finite(a)
    assert bool(BLOCK_MATH.unknown(x)[0]) is ROW_MATH.unknown(a)
    held = np.array([a > b])
    assert bool(BLOCK_MATH.negate(held)[0]) is ROW_MATH.negate(bool(a > b))
    assert float(BLOCK_MATH.where(held, 1.0, 2.0)[0]) == ROW_MATH.where(bool(a > b), 1.0, 2.0)


def test_held_starts_again_when_it_does_not_hold() -> None:
    """On end means on end."""
    held = Held()
    assert held.step(True, 3.0) == (1.0, 3.0)
    assert held.step(True, 2.0) == (2.0, 5.0)
    assert held.step(False, 4.0) == (0.0, 0.0)


def test_steps_of_minus_zero_are_remembered_as_zero_whatever_came_before() -> None:
    """The two are equal, and are not the same bits in the state."""
    for counts in ((0.0, -0.0), (-0.0, 0.0)):
        window = StepWindow()
        for count in counts:
            window.step(16.0, count)
        assert repr(window.state()) == "[[[16.0, 0.0], [16.0, 0.0]], 0]"


def test_steps_share_is_of_the_last_fifty_updates() -> None:
    """Exact counts; an update without a step but with skipped ones is idle, one with neither is not."""
    window = StepWindow()
    assert window.step(15.0, 1.0) == (1 / 16, 0)
    for _ in range(WINDOW_UPDATES - 1):
        share, _ = window.step(16.0, 0.0)
    assert (share, window.updates) == (1 / (16 * WINDOW_UPDATES), WINDOW_UPDATES)
    assert window.step(16.0, 0.0) == (0.0, 0)
    assert [window.step(0.0, 16.0)[1] for _ in range(3)] == [1, 2, 3]
    assert window.step(0.0, 0.0)[1] == 0


def test_rolling_best_is_of_full_windows() -> None:
    """Nothing before ten returns; the best is the highest mean, not the highest return."""
    rolling = RollingBest()
    given = [rolling.step(float(x)) for x in range(ROLLING_POINTS)]
    assert all(math.isnan(mean) for mean, _ in given[:-1])
    assert given[-1] == (4.5, 4.5)
    assert rolling.step(-10.0) == (3.5, 4.5)


def play(window: EpisodeWindow, means: list[float], count: float = 12.0, std: float = 1.0) -> list[float]:
    """The drop after each update of `count` episodes."""
    return [window.step(count, mean, std).drop for mean in means]


def test_episode_window_without_a_learned_gain_knows_no_drop() -> None:
    """A run that never rose above its noise has nothing to lose, however far it falls; nor has one that is too young."""
    window = EpisodeWindow()
    noise = (100 + np.random.default_rng(0).normal(size=60)).tolist()
    assert all(math.isnan(drop) for drop in play(window, noise))
    assert math.isnan(play(window, [10.0] * 8)[-1])
    young = EpisodeWindow()
    assert all(math.isnan(drop) for drop in play(young, [10.0 * i for i in range(WINDOWS_LEARNED - 1)]))


@pytest.mark.parametrize("base", [0.0, -2000.0])
def test_episode_window_drop_is_a_share_of_the_gain_also_of_negative_returns(base: float) -> None:
    """From -2000 to -1000 and back to -1500 is half of the gain; the same as from 0 to 1000 and 500."""
    window = EpisodeWindow()
    rising = [base + 1000 * min(i, 40) / 40 for i in range(60)]
    assert play(window, rising)[-1] == 0.0
    assert play(window, [base + 500.0] * MEDIAN_POINTS)[-1] == pytest.approx(0.5, abs=0.03)


def test_episode_window_drop_within_the_noise_of_its_episodes_is_none() -> None:
    """40 % of the gain, but the episodes of one window differ by more than that."""
    window = EpisodeWindow()
    play(window, [1000 * min(i, 40) / 40 for i in range(60)])
    assert play(window, [600.0] * MEDIAN_POINTS, std=520.0)[-1] == 0.0
    assert play(window, [600.0] * MEDIAN_POINTS)[-1] == pytest.approx(0.4, abs=0.03)


def test_episode_window_gathers_enough_episodes() -> None:
    """One episode an update: the mean of the last ten, and nothing while fewer ended; updates without one say nothing."""
    window = EpisodeWindow()
    assert all(math.isnan(window.step(1.0, float(i), 0.0).mean) for i in range(13))
    standing = window.step(1.0, 13.0, 0.0)
    assert standing.mean == pytest.approx(np.median([np.mean(range(i, i + 10)) for i in range(5)]))
    assert window.step(0.0, 999.0, 0.0) == standing


def test_trend_of_single_points_equals_the_trend_of_a_block() -> None:
    """The same numbers, also after a switch between the two, a restart and a trainer that goes back."""
    rng = np.random.default_rng(5)
    updates, values = np.cumsum(rng.integers(1, 4, size=80)), rng.normal(size=80)
    whole, mixed = Trend(), Trend()
    expected = whole.slopes(updates, values).tolist()
    got = [mixed.slope(int(u), float(x)) for u, x in zip(updates[:30], values[:30], strict=True)]
    got += mixed.slopes(updates[30:50], values[30:50]).tolist()
    got += [mixed.slope(int(u), float(x)) for u, x in zip(updates[50:65], values[50:65], strict=True)]
    mixed = Trend.restored(mixed.state())
    got += [mixed.slope(int(u), float(x)) for u, x in zip(updates[65:], values[65:], strict=True)]
    assert repr(got) == repr(expected)
    assert mixed.state() == whole.state()
    mixed.rewind(int(updates[-4]))
    assert all(update < updates[-4] for update in mixed.state()[0])


def test_best_of_single_returns_equals_the_best_of_a_block() -> None:
    """The same answers and the same state."""
    values = np.random.default_rng(6).normal(size=90).cumsum()
    whole, one = Best(), Best()
    expected = whole.near(values, np.ones(90, np.bool_)).tolist()
    assert [one.step(x) for x in values.tolist()] == expected
    assert one.state() == whole.state()
    assert any(expected)


def test_arrivals_lost_share_is_of_the_last_two_hundred_records() -> None:
    """Rows and losses count as records; what is older is forgotten."""
    arrivals = Arrivals()
    arrivals.took(100, [1])
    assert arrivals.lost(1) == 1 / RECORDS
    assert arrivals.lost(3) == 4 / RECORDS
    arrivals.took(RECORDS - 4, [2])
    assert arrivals.lost(1) == 4 / RECORDS
    arrivals.took(RECORDS, [3])
    assert arrivals.lost(1) == 1 / RECORDS
    assert arrivals.lost(10**9) == 1.0


def test_arrivals_usual_gap_is_the_median_and_a_clock_set_back_is_no_time() -> None:
    """Nothing before eight gaps; then the middle of the last 64."""
    arrivals = Arrivals()
    times = [i * NS for i in range(GAPS_LEARNED)]
    arrivals.took(len(times), times)
    assert arrivals.usual_gap_ns() is None
    arrivals.took(1, [100 * NS])
    assert arrivals.usual_gap_ns() == NS
    arrivals.took(1, [50 * NS])
    assert arrivals.usual_gap_ns() == NS
    for i in range(200):
        arrivals.took(1, [(1000 + 2 * i) * NS])
    assert (arrivals.gaps, arrivals.usual_gap_ns()) == (GAPS, 2 * NS)


def test_presence_absence_means_something_only_after_a_steady_past() -> None:
    """19 updates are not steady, 20 are; UNDEFINED counts as sent; what the level leaves out says nothing."""
    young = Presence()
    young.step(WATCHED, pattern(), STEADY - 1)
    young.step(WATCHED, pattern(Status.NOT_CALLED), 10)
    assert young.complete
    presence = Presence()
    presence.step(WATCHED, pattern(Status.UNDEFINED), STEADY)
    presence.step(WATCHED, pattern(Status.LEVEL, Status.THINNED), 50)
    assert presence.missing() == {}
    presence.step(WATCHED, pattern(Status.NOT_CALLED), 3)
    assert presence.missing() == {"ppo": 3}
    presence.step(WATCHED, pattern(Status.NOT_CALLED, Status.SHAPE), 1)
    presence.step(WATCHED, pattern(Status.LEVEL), 7)
    assert presence.missing() == {"ppo": 4}
    presence.step(WATCHED, pattern(), 1)
    assert presence.complete


def test_presence_does_not_watch_what_comes_now_and_then() -> None:
    """Episodes end when they end."""
    assert len(WATCHED.names) == 3
    presence = Presence()
    presence.step(WATCHED, pattern(), STEADY)
    gone = WATCHED.pattern(bytes([0, 0, 0, Status.NOT_CALLED]))
    presence.step(WATCHED, gone, 30)
    assert presence.complete


def test_presence_another_schema_is_not_a_call_that_was_dropped() -> None:
    """Columns that a new schema does not list are forgotten, not missed."""
    presence = Presence()
    presence.step(WATCHED, pattern(), STEADY)
    presence.step(WATCHED, pattern(Status.NOT_CALLED), 6)
    fewer = Watched.of(SIGNALS[1:3])
    presence.step(fewer, bytes(fewer.pick(bytes(2))).replace(b"\0", b"\1"), 1)
    assert presence.missing() == {}


MEMORIES: list[tuple[Memory, list[object]]] = [
    (Held(), [(True, 3.0), (True, 1.0)]),
    (StepWindow(), [(16.0, 1.0), (0.0, 4.0)]),
    (RollingBest(), [(float(i),) for i in range(12)]),
    (EpisodeWindow(), [(6.0, float(i), 1.0) for i in range(30)]),
    (Best(), [(float(i),) for i in range(25)]),
]


@pytest.mark.parametrize(("memory", "steps"), MEMORIES, ids=lambda x: type(x).__name__)
def test_memory_restored_is_the_same_and_goes_on_the_same(memory: Memory, steps: list[tuple[object, ...]]) -> None:
    """State out, state in, then equal answers and equal state."""
    for step in steps:
        memory.step(*step)  # type: ignore[attr-defined]
    other = type(memory).restored(memory.state())
    assert repr(other.state()) == repr(memory.state())
    assert repr([memory.step(*s) for s in steps]) == repr([other.step(*s) for s in steps])  # type: ignore[attr-defined]
    memory.rewind(0)
    other.rewind(0)
    assert repr(other.state()) == repr(memory.state())
