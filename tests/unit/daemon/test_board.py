"""What is usual of every series at once: what enters, what does not, when it starts again, what gathers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from gradwatch_daemon.detect.board import (
    FIRST,
    GUARD,
    LEARNED,
    LEARNED_AGAIN,
    MAD_TO_SIGMA,
    REFRESH,
    REFUSALS,
    SMALL,
    SUM_LIMIT,
    SUM_MOST,
    WINDOW,
    Board,
    Scored,
)
from gradwatch_daemon.detect.series import HEALTH, KL, NORM_ANCHOR

SATURATION, EV = "rnn.h.saturation", "value.explained_variance"
KEYS = [(KL, ""), (HEALTH, ""), (SATURATION, "rollout"), (NORM_ANCHOR, ""), (EV, "")]


def rows(values: list[float], name: str = KL) -> tuple[np.ndarray, np.ndarray]:
    """One value per row in the column of `name`; the others are not usable."""
    place = [series for series, _ in KEYS].index(name)
    block, usable = np.full((len(values), len(KEYS)), np.nan), np.zeros((len(values), len(KEYS)), np.bool_)
    block[:, place], usable[:, place] = values, True
    return block, usable


def taught(values: list[float], name: str = KL) -> Board:
    """A board after one value a row."""
    board = Board()
    board.place(KEYS)
    board.step(*rows(values, name))
    return board


def scored(board: Board, values: list[float], name: str = KL) -> dict[str, list[float]]:
    """What further values of a column score."""
    place = [series for series, _ in KEYS].index(name)
    found = board.step(*rows(values, name))
    return {field: getattr(found, field)[:, place].tolist() for field in Scored.__slots__}


def noise(n: int, seed: int = 1, level: float = 0.01) -> list[float]:
    """Log-normal, log-sigma 0.35."""
    return (level * np.exp(0.35 * np.random.default_rng(seed).normal(size=n))).tolist()


def test_board_with_too_little_history_gives_no_score() -> None:
    """Two refreshes: as many values as are needed then lie behind the guard band."""
    board = taught(noise(2 * REFRESH - 1))
    assert LEARNED + GUARD == 2 * REFRESH
    assert not board.known(0)
    assert board.learned(0) == (LEARNED - 1, LEARNED)
    assert math.isnan(scored(board, [0.01])["z"][0])
    assert board.known(0)
    assert not math.isnan(scored(board, [0.01])["z"][0])


def test_board_score_is_of_the_window_at_the_last_measurement_without_its_newest() -> None:
    """By numpy: median, MAD with its factor for few values, on the logarithm."""
    values = noise(100)
    found = scored(taught(values[:98]), [0.02])
    window = np.log(values[: 98 // REFRESH * REFRESH])[:-GUARD][-WINDOW:]
    centre = np.median(window)
    deviations = np.sort(np.abs(window - centre))
    spread = MAD_TO_SIGMA * deviations[(len(window) - 1) // 2] * (1 + SMALL / len(window))
    assert found["z"][0] == pytest.approx((math.log(0.02) - centre) / spread, rel=1e-9)
    assert found["usual"][0] == pytest.approx(math.exp(centre))
    assert found["limit"][0] == pytest.approx(math.exp(centre + 4 * spread))


def test_board_compares_each_series_on_its_own_scale() -> None:
    """By ratio, by difference, by odds: the score of a value far off in each."""
    few = 1 + SMALL / (3 * REFRESH - GUARD)
    health = scored(taught([0.8] * 48, HEALTH), [0.7], HEALTH)
    assert health["z"][0] == pytest.approx(-0.1 / (MAD_TO_SIGMA * 0.02 * few))
    share = scored(taught([0.2] * 48, SATURATION), [0.5], SATURATION)
    assert share["z"][0] == pytest.approx(math.log(4.0) / (MAD_TO_SIGMA * 0.1 * few))
    assert share["usual"][0] == pytest.approx(0.2)
    signed = scored(taught([-3.0] * 48, EV), [-3.0], EV)
    assert (signed["z"][0], signed["usual"][0]) == (0.0, -3.0)


def test_board_outlier_and_unusable_value_never_enter() -> None:
    """What lies 4 spreads away is scored and refused; a NaN is neither."""
    board = taught(noise(64))
    assert scored(board, [1.0])["z"][0] > 4
    hole, unusable = np.full((1, len(KEYS)), 7.0), np.zeros((1, len(KEYS)), np.bool_)
    assert math.isnan(board.step(hole, unusable).z[0, 0])
    scored(board, noise(14, seed=2))
    other = taught([*noise(64), *noise(14, seed=2)])
    scored(other, noise(2, seed=3))
    assert scored(board, [0.01])["usual"] != [math.nan]
    assert scored(board, [0.01])["limit"][0] < 0.2


def test_board_refusals_in_a_row_become_the_new_usual() -> None:
    """A new regime is learned; one good value between begins the count again."""
    board = taught(noise(64))
    far = [5.0] * (REFUSALS + REFRESH)
    assert min(scored(board, far[:REFUSALS])["z"]) > 4
    scored(board, far[REFUSALS:])
    assert scored(board, [5.0])["usual"][0] == pytest.approx(5.0)
    interrupted = taught(noise(64))
    sums = scored(interrupted, [5.0] * 4 + [0.01] * 28)
    assert sums["up"][-1] == 0.0
    again = scored(interrupted, [5.0] * 32)
    assert again["usual"][-1] == pytest.approx(0.01, rel=0.3)


def test_board_learns_nothing_while_a_sum_says_that_a_shift_goes_on() -> None:
    """Values at 3 spreads are no outliers, but a lasting shift; they do not become usual within its own window."""
    values = noise(64)
    board = taught(values)
    limit = scored(board, [0.01])["limit"][0]
    usual = scored(board, [0.01])["usual"][0]
    shifted = usual * (limit / usual) ** 0.75
    found = scored(board, [shifted] * 30)
    assert max(found["z"]) < 4.5
    assert found["up"][-1] > SUM_LIMIT
    frozen = scored(board, [shifted] * 2)["usual"][-1]
    assert frozen < shifted * 0.7


def test_board_sum_one_wild_score_cannot_carry_it_and_five_moderate_ones_can() -> None:
    """Capped at 4, less 1.5: 2.5 a row; beyond 12 after the fifth; a row without a value changes nothing; both sides."""
    board = taught([0.01] * 64)
    assert scored(board, [1e9])["up"] == [2.5]
    hole, unusable = np.full((1, len(KEYS)), np.nan), np.zeros((1, len(KEYS)), np.bool_)
    assert board.step(hole, unusable).up[0, 0] == 2.5
    assert scored(board, [9.0] * 4)["up"] == [5.0, 7.5, 10.0, 12.5]
    assert scored(board, [9.0] * 10)["up"][-1] == SUM_MOST
    assert scored(taught([0.01] * 64), [1e-7] * 5)["down"][-1] == 12.5


def test_board_anchor_is_followed_only_by_every_fourth_row() -> None:
    """Four times as long to learn, and four times the memory."""
    board = taught([0.5] * 127, NORM_ANCHOR)
    place = [series for series, _ in KEYS].index(NORM_ANCHOR)
    assert not board.known(place)
    scored(board, [0.5], NORM_ANCHOR)
    assert board.known(place)


def test_board_first_is_the_median_of_where_the_run_began() -> None:
    """And stays that, whatever comes; also through a change of regime."""
    board = taught([2.0] * FIRST + [9.0] * 100)
    assert scored(board, [9.0])["first"][0] == pytest.approx(2.0)
    values, usable = rows([9.0] * 3)
    assert board.step(values, usable, [1]).first[2, 0] == pytest.approx(2.0)


def test_board_after_a_change_of_regime_is_mute_for_a_refresh_and_then_learns_from_little() -> None:
    """Nothing is scored for 16 rows, then against the 12 that lie behind the guard band."""
    board = taught(noise(64))
    values, usable = rows(noise(40, level=1.0))
    found = board.step(values, usable, [4])
    assert LEARNED_AGAIN + GUARD == REFRESH
    known = (~np.isnan(found.z[:, 0])).tolist()
    assert known == [True] * 4 + [False] * REFRESH + [True] * (36 - REFRESH)
    assert found.usual[39, 0] == pytest.approx(1.0, rel=0.4)


def test_board_any_split_and_restart_between_gives_equal_bits() -> None:
    """Rows in blocks of any size, saved and loaded between, with a regime change within."""
    rng = np.random.default_rng(4)
    values = np.exp(rng.normal(size=(200, len(KEYS))))
    values[:, 2] = rng.uniform(size=200)
    usable = rng.random(values.shape) < 0.9
    whole = Board()
    whole.place(KEYS)
    expected = whole.step(values, usable, [77])
    board = Board()
    board.place(KEYS)
    parts: list[Scored] = []
    edges = [0, 1, 2, 18, 60, 77, 90, 91, 150, 200]
    for first, last in itertools.pairwise(edges):
        board = Board.restored(board.state())
        parts.append(board.step(values[first:last], usable[first:last], [0] if first == 77 else []))
    for field in ("z", "usual", "limit", "first", "up", "down"):
        joined = np.concatenate([getattr(part, field) for part in parts])
        assert joined.tobytes() == getattr(expected, field).tobytes(), field
    assert board.state() == whole.state()


def test_board_zero_and_negative_values_count_as_the_least() -> None:
    """A KL of exactly 0, or -1e-9 by rounding, has a logarithm all the same."""
    zero, negative = (scored(taught(noise(64)), [x])["z"][0] for x in (0.0, -1e-9))
    assert zero == negative < -4
