"""Suite of every store, 3: signals, series and rows as readers see them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import Commit, SignalKey, Stream
from gradwatch_daemon.store.protocol import Stretch
from harness.signal_blocks import KEYS, STREAM, make_block, rows_of
from harness.stores import fill, settle

if TYPE_CHECKING:
    from gradwatch_daemon.store.protocol import Store, StoreReader


def test_signals_of_an_unknown_stream_is_empty(store: Store, reader: StoreReader) -> None:
    """Also for another rank of a known run."""
    fill(store, 3)
    assert reader.signals("ant-ppo", 1, 1) == []
    assert reader.signals("nobody", 1, 0) == []


def test_signals_says_last_value_status_and_counts_over_chunks_and_tail(store: Store, reader: StoreReader) -> None:
    """The last measured value outlives unmeasured rows; a signal never measured has none; non-finite is counted."""
    fill(store, 1100)
    values = np.array([[1, 2, np.nan], [5, 0, 0], [0, 0, 0]], np.float32)
    status = np.array([[0, 0, 0], [0, 2, 4], [1, 1, 2]], np.uint8)
    late = SignalKey("user", "late")
    store.commit(Commit((make_block([1100, 1101, 1102], signals=(*KEYS[:2], late), values=values, status=status),)))
    first, second, third, fourth = reader.signals(*STREAM)
    assert (first.key, first.update_last, first.status_last, first.measured, first.nonfinite) == (KEYS[0], 1102, 0, 1103, 1)
    assert first.value_last is not None
    assert math.isnan(first.value_last)
    assert (second.key, second.update_last, second.status_last, second.value_last) == (KEYS[1], 1100, 4, 5.0)
    assert (second.measured, second.nonfinite) == (1101, 0)
    assert (third.key, third.update_last, third.value_last, third.measured) == (KEYS[2], 1099, 1099.25, 1100)
    assert (fourth.key, fourth.update_last, fourth.status_last, fourth.value_last) == (late, 1102, 2, None)
    assert (fourth.measured, fourth.nonfinite) == (0, 0)


def test_signals_keeps_the_last_value_through_chunks_without_one(store: Store, reader: StoreReader) -> None:
    """Three chunks: measured, not measured, and a tail that is not."""
    missing = np.full((3, 1024), 2, np.uint8)
    store.commit(Commit((make_block(range(1024)), make_block(range(1024, 2048), status=missing))))
    settle(store)
    store.commit(Commit((make_block([2048], status=missing[:, :1]),)))
    summary = reader.signals(*STREAM)[0]
    assert (summary.update_last, summary.status_last, summary.value_last, summary.measured) == (1023, 2, 1023.0, 1024)


def test_series_with_points_below_one_is_refused(reader: StoreReader) -> None:
    """There is no series without points."""
    with pytest.raises(GradwatchError) as refused:
        reader.series(STREAM, KEYS[0], None, None, 0)
    assert refused.value.code.slug == "invalid-argument"


def test_series_of_an_unknown_stream_or_signal_is_empty(store: Store, reader: StoreReader) -> None:
    """Not zero, not an error."""
    fill(store, 2)
    for stream, key in (
        (Stream("nobody", 1, 0), KEYS[0]),
        (STREAM, SignalKey("grad.norm.max")),
        (STREAM, SignalKey("user", "x")),
    ):
        got = reader.series(stream, key, None, None, 10)
        assert (len(got.update), got.rows, got.bucket, dict(got.unmeasured)) == (0, 0, 1, {})


def test_series_in_a_range_is_raw_across_chunk_and_tail(store: Store, reader: StoreReader) -> None:
    """Both ends belong to the range; every field of a row is there."""
    fill(store, 1500)
    block = make_block(range(1000, 1101))
    got = reader.series(STREAM, KEYS[1], 1000, 1100, 101)
    assert (got.bucket, got.rows) == (1, 101)
    for name in ("update", "t_ns", "env_steps"):
        assert getattr(got, name).tolist() == getattr(block, name).tolist()
    assert got.last.tolist() == got.low.tolist() == got.high.tolist() == block.values[1].tolist()
    assert got.measured.tolist() == [1] * 101


def test_series_of_a_signal_that_appears_late_starts_where_it_appears(store: Store, reader: StoreReader) -> None:
    """In the middle of a roll-up entry, whose own first row does not have it."""
    store.commit(Commit((make_block(range(100), signals=KEYS[:1]), make_block(range(100, 5000)))))
    settle(store)
    got = reader.series(STREAM, KEYS[1], None, None, 10)
    assert (int(got.update[0]), got.rows, got.bucket, int(got.measured[0])) == (100, 4900, 512, 412)


def test_series_bounds_beyond_any_update_are_no_bounds(store: Store, reader: StoreReader) -> None:
    """A number that no int64 holds comes from a query string."""
    fill(store, 5)
    assert reader.series(STREAM, KEYS[0], -(2**70), 2**70, 10).rows == 5
    assert reader.series(STREAM, KEYS[0], 2**70, None, 10).rows == 0
    assert reader.series(STREAM, KEYS[0], None, -(2**70), 10).rows == 0


def test_reader_closed_refuses(store: Store) -> None:
    """Rather than to open a new connection."""
    reading = store.reader()
    assert reading.signals(*STREAM) == []
    reading.close()
    reading.close()
    with pytest.raises(GradwatchError) as refused:
        reading.signals(*STREAM)
    assert refused.value.code.slug == "not-ready"


@pytest.mark.parametrize("rows", [1, 1023, 1024, 2500])
def test_blocks_between_are_the_rows_of_those_updates_in_order_of_arrival(store: Store, reader: StoreReader, rows: int) -> None:
    """From chunks and tails alike, with every field; of too many the last; repeated updates are all there."""
    fill(store, rows)
    back = make_block(range(rows // 2, rows // 2 + 3))
    store.commit(Commit((back,)))
    every = rows_of([make_block(range(rows)), back])
    for first, last in (
        (0, rows),
        (rows // 2, rows // 2),
        (rows // 3, rows // 2 + 1),
        (rows - 1, 2**63 - 1),
        (rows + 9, rows + 99),
    ):
        wanted = [row for row in every if first <= row[1] <= last]  # type: ignore[operator]
        assert rows_of(reader.blocks_between(STREAM, first, last, 10_000)) == wanted
        assert rows_of(reader.blocks_between(STREAM, first, last, 2)) == wanted[-2:]
        assert reader.blocks_between(STREAM, first, last, 0) == []
    assert reader.blocks_between(Stream("nobody", 1, 0), 0, 9, 9) == []


def test_stretches_end_where_level_changes_updates_miss_or_the_trainer_went_back(store: Store, reader: StoreReader) -> None:
    """However the rows lie in blocks, tails and chunks; times are those of the first and last row of each."""
    plan = [(0, 700, 2), (700, 710, 3), (710, 2000, 2), (2050, 2060, 2), (2055, 2100, 2)]
    expected = []
    for first, end, level in plan:
        for start in range(first, end, 300):
            block = make_block(range(start, min(start + 300, end)))
            store.commit(Commit((replace(block, level=np.full(len(block), level, np.uint8)),)))
        expected.append(Stretch(first, end - 1, first * 1_000_000_007, (end - 1) * 1_000_000_007, level))
    assert reader.stretches(STREAM) == expected
    settle(store)
    assert reader.stretches(STREAM) == expected
    assert reader.stretches(Stream("nobody", 1, 0)) == []
