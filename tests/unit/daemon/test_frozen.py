"""Telemetry that stands still: what counts as the same numbers, and what never does."""

from __future__ import annotations

import pytest

from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_daemon.detect.frozen import VARIED, Frozen
from gradwatch_daemon.records import Verdict
from harness.blocks import QUIET, Watch, signal_block

ROWS, PAST = 24, 30
KIND = "telemetry_frozen:ppo"
LOSS = [1.0 + row for row in range(PAST)]


def _said(past: dict[str, object], **given: object) -> int:
    watch = Watch("default")
    watch.check(signal_block(PAST, **past))
    return int(watch.check(signal_block(ROWS, start=PAST, **given))[KIND].code[-1])


def test_call_that_repeats_itself_to_the_bit_is_found_and_names_the_call() -> None:
    """The other calls go on, and are clear."""
    watch = Watch("default")
    moving = {"value__nmse": [0.5 + row / 100 for row in range(PAST + ROWS)]}
    watch.check(signal_block(PAST, loss__total=LOSS, value__nmse=moving["value__nmse"][:PAST]))
    found = watch.check(signal_block(ROWS, start=PAST, loss__total=3.0, value__nmse=moving["value__nmse"][PAST:]))
    assert (found[KIND].code[-1], float(found[KIND].value[-1])) == (Verdict.BREACH, ROWS - 1)
    assert found["telemetry_frozen:rollout"].code[-1] == Verdict.CLEAR


@pytest.mark.parametrize(
    ("past", "given"),
    [
        ({"loss__total": 3.0}, {"loss__total": 3.0}),
        ({"loss__total": [*[3.0] * (PAST - VARIED + 2), *range(VARIED - 2)]}, {"loss__total": 5.0}),
        ({"loss__total": LOSS}, {"loss__total": [3.0, 3.0000002] * (ROWS // 2)}),
        ({"loss__total": LOSS}, {"loss__total": float("nan")}),
    ],
    ids=["never varied", "varied too little", "differs in the last bit", "not a number"],
)
def test_call_that_may_be_made_that_way_is_clear(past: dict[str, object], given: dict[str, object]) -> None:
    """Constant from the start, after too few changes, not quite constant, or NaN, which another detector reports."""
    assert _said(past, **given) == Verdict.CLEAR


def test_call_that_moves_again_is_clear_at_once() -> None:
    """One new number in any of its signals."""
    watch = Watch("default")
    watch.check(signal_block(PAST, loss__total=LOSS))
    watch.check(signal_block(ROWS, start=PAST, loss__total=3.0))
    again = watch.check(signal_block(2, start=PAST + ROWS, loss__total=[3.0, 4.0]))[KIND]
    assert again.code.tolist() == [Verdict.BREACH, Verdict.CLEAR]


def test_updates_cut_short_and_rows_alone_count_as_in_one_block() -> None:
    """A partial update in between neither counts nor starts anew; row by row the answer is the same."""
    whole, single = Watch("default"), Watch("default")
    for watch in (whole, single):
        watch.check(signal_block(PAST, loss__total=LOSS))
    block = signal_block(ROWS, start=PAST, loss__total=3.0)
    block.flags[5] = int(RowFlag.PARTIAL)
    together = whole.check(block)[KIND]
    apart = [single.check(block.select(slice(row, row + 1)))[KIND] for row in range(ROWS)]
    assert [int(found.code[-1]) for found in apart] == together.code.tolist()
    assert float(together.value[-1]) == float(apart[-1].value[-1]) == ROWS - 2


def test_call_without_measured_signals_never_stands_still() -> None:
    """A call that is not made sends nothing, again and again."""
    frozen, missing = Frozen(), bytes([Status.NOT_CALLED] * 4)
    assert [frozen.step("ppo", (0.0,) * 4, missing) for _ in range(40)] == [0] * 40


def test_state_that_is_restored_goes_on_counting() -> None:
    """What was seen before a restart of the daemon counts."""
    frozen = Frozen()
    for change in range(VARIED + 1):
        frozen.step("ppo", (float(change),) * 3, bytes(3))
    frozen.step("ppo", (float(VARIED),) * 3, bytes(3))
    assert Frozen.restored(frozen.state()).step("ppo", (float(VARIED),) * 3, bytes(3)) == 2


@pytest.mark.parametrize("kind", ["telemetry_frozen", "telemetry_gap"])
@pytest.mark.parametrize(
    ("status", "words"), [(Status.LEVEL, "raise the level to normal"), (Status.NOT_CALLED, "call mon.rollout() and mon.ppo()")]
)
def test_detector_of_calls_before_any_has_sent_anything_is_blind_and_says_why(kind: str, status: Status, words: str) -> None:
    """In a block and row by row; from the first update with something in it there is something to watch."""
    nothing = signal_block(3, **{name.replace(".", "__"): status for name in QUIET})
    whole, singly = Watch("default"), Watch("default")
    found = whole.check(nothing)[kind]
    assert found.code.tolist() == [Verdict.BLIND] * 3
    assert words in found.reason
    for row in range(3):
        alone = singly.check(nothing.select(slice(row, row + 1)))[kind]
        assert (alone.code.tolist(), alone.reason) == ([Verdict.BLIND], found.reason)
    begun = signal_block(2, start=3, **{name.replace(".", "__"): [status, QUIET[name]] for name in QUIET})
    after = whole.check(begun)[kind]
    assert (after.code.tolist(), after.reason) == ([Verdict.BLIND, Verdict.CLEAR], "")
    assert [singly.check(begun.select(slice(row, row + 1)))[kind].code[0] for row in range(2)] == after.code.tolist()
