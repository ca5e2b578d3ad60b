"""Rows that come one by one and wait: only such in which nothing holds, and most of a healthy run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from gradwatch_daemon.detect import judge as judging
from gradwatch_daemon.detect import lanes
from gradwatch_daemon.detect.board import REFRESH, Board
from gradwatch_daemon.detect.guards import Compared, Guards
from gradwatch_daemon.detect.waiting import Waiting
from gradwatch_daemon.records import Verdict
from gradwatch_daemon.records.rules import Measure
from harness.blocks import QUIET, Watch, joined, signal_block

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import SignalBlock

NORM = "policy.entropy.norm"
LEARNED = 100
"""Rows by which everything is usual."""


def rows(n: int, share: float, seed: int = 5) -> list[SignalBlock]:
    """A healthy run, row by row, in which each signal is far off in a share of the updates: by a factor, at 0 or at 1."""
    rng = np.random.default_rng(seed)
    block = signal_block(n)
    steady = [list(QUIET).index(name) for name in ("opt.lr", "opt.steps", "episode.count", "sys.host_bytes")]
    noise = np.exp(0.1 * rng.normal(size=block.values.shape))
    noise[steady] = 1.0
    block.values[:] *= noise
    odd = rng.random(block.values.shape) < share
    odd[:, :LEARNED] = False
    factors = rng.choice([1e-3, 0.05, 0.3, 0.6, 1.5, 3.0, 20.0, 1e4], size=block.values.shape)
    ends = rng.choice([0.0, 1.0], size=block.values.shape)
    block.values[:] = np.where(odd, np.where(rng.random(odd.shape) < 0.2, ends, block.values * factors), block.values)
    return [block.select(slice(row, row + 1)) for row in range(n)]


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_row_that_may_wait_is_one_in_which_no_part_holds(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Each row is judged by its scores, whatever was said of it before they were there."""
    said: list[bool] = []
    held: list[int] = []
    take, with_held = Waiting.take, judging._with_held

    def look(self: Waiting, view: View) -> bool:
        said.append(take(self, view) and self.calm)
        return False

    def note(*given: object) -> object:
        held.append(len(said) - 1)
        return with_held(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Waiting, "take", look)
    monkeypatch.setattr(judging, "_with_held", note)
    watch = Watch("default")
    for block in rows(400, 0.03, seed):
        watch.check(block)
    assert len(held) > 50, "the run is meant to have faults"
    assert sum(said) > 100, "and rows without"
    assert not [row for row in held if said[row]]


@pytest.mark.parametrize("entropy", [0.8, 0.02])
def test_rows_whose_scores_do_not_count_teach_together_at_the_next_measurement(
    monkeypatch: pytest.MonkeyPatch, entropy: float
) -> None:
    """The board is asked once for many rows, also where a part that needs no score holds in each, and has learned from all
    when the state is read."""
    asked: list[int] = []
    step = Board.step

    def count(self: Board, values: np.ndarray, *given: object) -> object:
        asked.append(len(values))
        return step(self, values, *given)  # type: ignore[arg-type]

    watch, alone = Watch("default"), rows(LEARNED + 5 * REFRESH, 0.0)
    for block in alone[:LEARNED]:
        watch.check(block)
    monkeypatch.setattr(Board, "step", count)
    for block in alone[LEARNED:]:
        block.values[list(QUIET).index(NORM)] *= entropy / QUIET[NORM]
        found = watch.check(block)
        assert (found["entropy_low"].code[-1] == Verdict.BREACH) == (entropy < 0.5)
    watch.state.dump()
    assert sum(asked) >= 5 * REFRESH
    assert len(asked) <= 16, asked


@pytest.mark.parametrize(
    ("centre", "sign", "at", "share", "may"),
    [
        (6.0, 1.0, 3.0, 1.0, False),
        (0.0, 1.0, -9.0, 0.0, True),
        (0.0, -1.0, -9.0, 1.0, True),
        (-6.0, -1.0, 3.0, 0.0, False),
    ],
)
def test_guard_of_a_fraction_at_its_end_is_that_of_the_end_of_its_scale(
    centre: float, sign: float, at: float, share: float, may: bool
) -> None:
    """0 and 1 score as 0.001 away from it, by odds 6.9: a limit beyond is passed by all of them or by none."""
    board = Board()
    board.place([("obs.constant_share", "")])
    board.centre[:], board.spread[:] = centre, 1.0
    test = lanes.Test(0, sign, at, at, inverted=False)
    guards = Guards([[Compared(test, Measure.Z, 0, 0)]], board.keys, 3, ())
    guards.numbers[0] = share
    assert guards.may_hold(guards.limits(board)).tolist() == [may]


def test_rows_of_a_healthy_run_leave_detectors_and_anomalies_as_their_block_does() -> None:
    """A row that says the very same as the one before is passed over, but not forgotten."""
    alone, dumps = rows(LEARNED, 0.0), []
    for blocks in (alone, [joined(alone)]):
        watch = Watch("default")
        for block in blocks:
            watch.lifecycle.step(block, watch.engine.check(watch.state, block, watch.updates_total))
        dumps.append(watch.dump())
    assert dumps[0] == dumps[1]
