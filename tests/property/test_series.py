"""A series against an oracle that sees every row: no extreme, non-finite value or reason is lost in a bucket."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch_daemon.records import Commit, SignalBlock, SignalKey
from gradwatch_daemon.store.protocol import Keep
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.memory_store import MemoryStore
from harness.signal_blocks import STREAM, make_block
from harness.stores import RUN

if TYPE_CHECKING:
    from gradwatch_daemon.store.protocol import Series, SignalSummary

KEY, OTHER = SignalKey("policy.kl.k3", "arm"), SignalKey("grad.norm.mean")
ODD = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3e38], np.float32)


@dataclass(frozen=True)
class OracleRows:
    """Every row that has the signal, in order of arrival; arrays over rows."""

    ordinal: np.ndarray
    update: np.ndarray
    t_ns: np.ndarray
    env_steps: np.ndarray
    value: np.ndarray
    status: np.ndarray

    def __len__(self) -> int:
        return len(self.ordinal)

    def pick(self, rows: np.ndarray | slice) -> OracleRows:
        """Some of them."""
        return OracleRows(*(getattr(self, field.name)[rows] for field in fields(self)))


@st.composite
def runs(draw: st.DrawFn) -> list[SignalBlock]:
    """Blocks of one stream: sometimes without the signal, sometimes going back, values sometimes not finite."""
    made, at = [], 0
    for _ in range(draw(st.integers(1, 7))):
        count = draw(st.sampled_from([1, 3, 64, 100, 640, 1024, 1500, 4096]))
        signals = draw(st.sampled_from([(KEY,), (OTHER, KEY), (KEY, OTHER), (OTHER,)]))
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        values = rng.standard_normal((len(signals), count)).astype(np.float32)
        spoiled = rng.random(values.shape) < draw(st.sampled_from([0.0, 0.01, 1.0]))
        values = np.where(spoiled, rng.choice(ODD, values.shape), values).astype(np.float32)
        missing = rng.random(values.shape) < draw(st.sampled_from([0.0, 0.02, 0.97, 1.0]))
        status = np.where(missing, rng.choice(np.array([1, 2, 4, 11]), values.shape), 0).astype(np.uint8)
        at = max(at - draw(st.sampled_from([0, 0, 0, 10, 2000])), 0)
        made.append(make_block(range(at, at + count), signals=signals, values=values, status=status))
        at += count
    return made


def oracle_rows(blocks: list[SignalBlock]) -> OracleRows:
    """The rows of KEY."""
    parts, start = [], 0
    for block in blocks:
        if KEY in block.signals:
            j, ordinal = block.signals.index(KEY), np.arange(start, start + len(block))
            parts.append((ordinal, block.update, block.t_ns, block.env_steps, block.values[j].astype(float), block.status[j]))
        start += len(block)
    if not parts:
        return OracleRows(*[np.zeros(0, np.int64)] * 6)
    return OracleRows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def oracle_point(rows: OracleRows) -> tuple[float, ...]:
    """update, t_ns, env_steps, low, high, last, measured, nonfinite, status."""
    measured = rows.value[rows.status == 0]
    finite = measured[np.isfinite(measured)]
    return (
        rows.update[0],
        rows.t_ns[0],
        rows.env_steps[0],
        finite.min() if len(finite) else np.nan,
        finite.max() if len(finite) else np.nan,
        measured[-1] if len(measured) else np.nan,
        len(measured),
        len(measured) - len(finite),
        0 if len(measured) else rows.status.max(),
    )


def check_series(got: Series, rows: OracleRows, points: int) -> None:
    """Every field of every point."""
    assert got.rows == len(rows)
    if len(rows):
        last = rows.pick(slice(-1, None))
        value = last.value[0] if last.status[0] == 0 else np.nan
        expected_end = (last.update[0], last.t_ns[0], last.env_steps[0], value, last.status[0])
        assert got.end is not None
        np.testing.assert_array_equal(astuple(got.end), expected_end)
    else:
        assert got.end is None
    codes, counts = np.unique(rows.status[rows.status != 0], return_counts=True)
    assert dict(got.unmeasured) == dict(zip(codes.tolist(), counts.tolist(), strict=True))
    assert len(got.update) <= points
    assert got.bucket & (got.bucket - 1) == 0
    place = rows.ordinal // got.bucket
    cuts = np.flatnonzero(np.diff(place)) + 1
    bounds = [0, *cuts.tolist(), len(rows)] if len(rows) else [0]
    expected = [oracle_point(rows.pick(slice(a, b))) for a, b in itertools.pairwise(bounds)]
    if len(rows) <= points:
        assert got.bucket == 1
        expected = [(*point[:3], *[point[5]] * 3, *point[6:]) for point in expected]
    else:
        assert len(np.unique(rows.ordinal // (got.bucket // 2))) > points
    for i, name in enumerate(("update", "t_ns", "env_steps", "low", "high", "last", "measured", "nonfinite", "status")):
        np.testing.assert_array_equal(getattr(got, name), [point[i] for point in expected], err_msg=name)


def check_summary(got: list[SignalSummary], rows: OracleRows) -> None:
    """The last value, its update, and the counts."""
    summary = next((summary for summary in got if summary.key == KEY), None)
    if not len(rows):
        assert summary is None
        return
    assert summary is not None
    measured = rows.pick(rows.status == 0)
    assert summary.measured == len(measured)
    assert summary.nonfinite == np.count_nonzero(~np.isfinite(measured.value))
    assert summary.status_last == rows.status[-1]
    assert summary.update_last == (measured if len(measured) else rows).update[-1]
    np.testing.assert_array_equal(summary.value_last, measured.value[-1] if len(measured) else None)


BOUND = st.one_of(st.none(), st.integers(-1, 9000))


@settings(max_examples=60, deadline=None)
@given(
    blocks=runs(),
    compacted=st.booleans(),
    late=st.booleans(),
    queries=st.lists(st.tuples(BOUND, BOUND, st.sampled_from([1, 2, 7, 50, 100, 20_000])), min_size=1, max_size=4),
)
def test_series_and_summary_equal_an_oracle_over_all_rows(
    blocks: list[SignalBlock], compacted: bool, late: bool, queries: list[tuple[int | None, int | None, int]]
) -> None:
    """Raw and in buckets, from tails, chunks and roll-ups, over any range."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore.open(Path(folder))
        reader = store.reader()
        try:
            for i, block in enumerate(blocks):
                store.commit(Commit((block,)))
                while compacted and not (late and i == len(blocks) - 1) and store.compact():
                    pass
            rows = oracle_rows(blocks)
            for first, last, points in queries:
                least, most = -1 if first is None else first, 2**62 if last is None else last
                wanted = rows.pick((least <= rows.update) & (rows.update <= most))
                check_series(reader.series(STREAM, KEY, first, last, points), wanted, points)
            check_summary(reader.signals(*STREAM), rows)
        finally:
            reader.close()
            store.close()


@settings(max_examples=25, deadline=None)
@given(
    blocks=runs(),
    bounds=st.lists(st.tuples(st.integers(0, 9000), st.booleans()), min_size=1, max_size=2),
    queries=st.lists(st.tuples(BOUND, BOUND, st.sampled_from([1, 7, 100, 20_000])), min_size=1, max_size=4),
)
def test_series_of_thinned_rows_are_equal_in_both_stores_and_hide_no_extreme(
    blocks: list[SignalBlock], bounds: list[tuple[int, bool]], queries: list[tuple[int | None, int | None, int]]
) -> None:
    """Whichever chunks went: both answer alike, and over the whole run every count and extreme is what it was before."""
    with tempfile.TemporaryDirectory() as folder:
        stores = SqliteStore.open(Path(folder)), MemoryStore()
        try:
            rows = oracle_rows(blocks)
            for store in stores:
                store.commit(Commit(tuple(blocks), runs=(replace(RUN, run=STREAM.run, first_seen_ns=0),)))
                while store.compact():
                    pass
            for update, by_size in bounds:
                keep = Keep(bytes_max=1) if by_size else Keep(age_ns=0)
                gone = [store.thin(keep, update * 1_000_000_007) for store in stores]
                assert gone[0] == gone[1]
            readers = [store.reader() for store in stores]
            for first, last, points in queries:
                one, other = (reader.series(STREAM, KEY, first, last, points) for reader in readers)
                for field in fields(one):
                    mine, theirs = (getattr(series, field.name) for series in (one, other))
                    if field.name == "end":
                        assert repr(mine) == repr(theirs)
                    else:
                        np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
                assert one.bucket >= 64 or not one.thinned
            whole = readers[0].series(STREAM, KEY, None, None, 1)
            if len(rows):
                expected = oracle_point(rows)
                got = [getattr(whole, name)[0] for name in ("low", "high", "last", "measured", "nonfinite", "status")]
                np.testing.assert_array_equal(got, expected[3:])
                assert whole.rows == len(rows)
            check_summary(readers[0].signals(*STREAM), rows)
            readers[0].close()
        finally:
            stores[0].close()
