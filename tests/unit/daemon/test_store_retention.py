"""Suite of every store, 4: rows that retention may take become roll-ups, nothing else changes, and each answer says so."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import ALL_RANKS, Checkpoint, Commit, SignalKey, Stream, TableRecord
from gradwatch_daemon.store import thinning
from gradwatch_daemon.store.protocol import Keep
from gradwatch_daemon.store.retention import AROUND_UPDATES, CHUNKS_PER_CALL, outside
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.signal_blocks import KEYS, STREAM, make_block, rows_of
from harness.stores import ANOMALY, RUN, fill, settle

if TYPE_CHECKING:
    from pathlib import Path

    from gradwatch_daemon.store.protocol import Store, StoreReader
    from harness.stores import Opened

SECOND = 1_000_000_007
"""What `make_block` lets pass between two updates."""

SEEN_LONG_AGO = replace(RUN, run=STREAM.run, attempt=1, world=1, first_seen_ns=0)
BOTH = Keep(age_ns=100 * SECOND, bytes_max=1)


def thin_all(store: Store, keep: Keep, now_ns: int) -> dict[Stream, int]:
    """Thin as far as it goes."""
    found: dict[Stream, int] = {}
    while counts := store.thin(keep, now_ns):
        for stream, rows in counts.items():
            found[stream] = found.get(stream, 0) + rows
    return found


@pytest.fixture
def filled(store: Store) -> Store:
    """Updates 0 to 4,499 of a run seen first at time 0: four chunks and a tail."""
    store.commit(Commit(runs=(SEEN_LONG_AGO,)))
    fill(store, 4500)
    return store


def test_thin_without_a_bound_or_within_it_takes_nothing(filled: Store) -> None:
    """Rows stay for ever where nobody said otherwise, and up to the very age and size."""
    assert filled.thin(Keep(), 10**18) == {}
    assert filled.thin(Keep(age_ns=4500 * SECOND), 4500 * SECOND) == {}
    assert filled.thin(Keep(bytes_max=filled.size_bytes()), 10**18) == {}
    assert filled.thinned() == {}
    assert filled.raw_begin(STREAM) == 0


def test_thin_by_age_takes_the_old_chunks_and_changes_no_count(opened: Opened, filled: Store) -> None:
    """Counts, last values and the newest update stay; rows are those from there on; a restart knows it too."""
    before = filled.reader().signals(*STREAM), filled.reader().stretches(STREAM)
    # The newest mark of chunk 1 is that of update 1,984.
    assert thin_all(filled, Keep(age_ns=1000 * SECOND), 2985 * SECOND) == {STREAM: 2048}
    for reopened in (False, True):
        store = opened.again() if reopened else filled
        assert store.thinned() == {STREAM: 2048}
        assert store.raw_begin(STREAM) == 2048
        assert store.row_counts() == {STREAM: (4500, 4499)}
        reader = store.reader()
        assert (reader.signals(*STREAM), reader.stretches(STREAM)) == before
        assert rows_of(reader.blocks_between(STREAM, 0, 2050, 9999)) == rows_of([make_block(range(2048, 2051))])
        assert rows_of(store.blocks_after(STREAM, -1)) == rows_of([make_block(range(2048, 4500))])
        assert rows_of(store.blocks_after(STREAM, 3000)) == rows_of([make_block(range(3001, 4500))])
    assert opened.store.thin(Keep(age_ns=1000 * SECOND), 2985 * SECOND) == {}


def test_thin_of_a_run_that_came_today_with_old_times_takes_nothing(store: Store) -> None:
    """A log of last year that was imported now is not a year old here."""
    store.commit(Commit(runs=(replace(SEEN_LONG_AGO, first_seen_ns=10**15),)))
    fill(store, 4500)
    assert store.thin(Keep(age_ns=5000 * SECOND), 10**15) == {}
    assert thin_all(store, Keep(age_ns=5000 * SECOND), 10**15 + 5000 * SECOND + 1) == {STREAM: 4096}


def test_thin_by_age_keeps_rows_around_anomalies(filled: Store, reader: StoreReader) -> None:
    """Of that stream, or of all ranks together; another attempt's do not count."""
    anomaly = replace(ANOMALY, update_onset=2048 + AROUND_UPDATES, update_fired=2600, update_last=2700, state="resolved")
    other = replace(anomaly, id="other", attempt=2, update_onset=100, update_fired=100, update_last=100)
    filled.commit(Commit(anomalies=(anomaly, other)))
    assert thin_all(filled, Keep(age_ns=1), 10**15) == {STREAM: 2048 + 1024}
    assert filled.raw_begin(STREAM) == 4096
    near = reader.series(STREAM, KEYS[0], 2048, 3071, 2000)
    assert (near.bucket, near.rows, near.thinned) == (1, 1024, 0)
    filled.commit(Commit(anomalies=(replace(other, id="ranks", attempt=1, rank=ALL_RANKS, update_last=10**6),)))
    fill_again = [make_block(range(first, first + 500)) for first in range(4500, 8500, 500)]
    filled.commit(Commit(tuple(fill_again)))
    settle(filled)
    assert thin_all(filled, Keep(age_ns=1), 10**15) == {STREAM: 4096}


def test_tables_of_thinned_rows_go_and_those_near_an_anomaly_stay(opened: Opened, filled: Store) -> None:
    """Of every kind and of that stream alone; also where size takes the rows near the anomaly. A restart knows it too."""
    other = Stream(STREAM.run, 1, 1)
    updates, near = (0, 900, 1023, 1024, 2500, 4095, 4096), 2048 + AROUND_UPDATES
    tables = [TableRecord(STREAM, "s1", update, kind, update, ("l",), ("norm",), b"\0" * 8)
              for kind in ("layers", "episodes") for update in updates]  # fmt: skip
    tables = [replace(table, seq=seq) for seq, table in enumerate(tables)]
    tables.append(TableRecord(other, "s2", 0, "layers", 5, ("l",), ("norm",), b"\0" * 8))
    anomaly = replace(ANOMALY, update_onset=near, update_fired=near, update_last=near, state="resolved")
    filled.commit(Commit(tables=tuple(tables), anomalies=(anomaly,)))
    assert thin_all(filled, Keep(age_ns=1), 10**15) == {STREAM: 2048 + 1024}
    assert filled.reader().table_updates(STREAM, "layers") == [2500, 4096]
    assert thin_all(filled, Keep(bytes_max=1), 10**15) == {STREAM: 1024}
    for store in (filled, opened.again()):
        assert [store.reader().table_updates(STREAM, kind) for kind in ("layers", "episodes")] == [[2500, 4096]] * 2
        assert store.reader().table_updates(other, "layers") == [5]


def test_table_of_an_update_whose_row_came_again_stays_with_that_row(filled: Store) -> None:
    """The trainer went back: update 1,000 lies in the first chunk, which goes, and among the newest rows, which stay."""
    filled.commit(Commit((make_block(range(1000, 1010)),), tables=tuple(
        TableRecord(STREAM, "s1", update, "layers", update, ("l",), ("norm",), b"\0" * 8) for update in (999, 1000, 1009, 1010)
    )))  # fmt: skip
    assert thin_all(filled, Keep(age_ns=1), 10**15) == {STREAM: 4096}
    assert filled.reader().table_updates(STREAM, "layers") == [1000, 1009]


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        ([], [(10, 20)]),
        ([(0, 9), (21, 30)], [(10, 20)]),
        ([(0, 10), (20, 30)], [(11, 19)]),
        ([(15, 16), (12, 13)], [(10, 11), (14, 14), (17, 20)]),
        ([(12, 18), (13, 14)], [(10, 11), (19, 20)]),
        ([(10, 20)], []),
        ([(25, 30), (0, 40)], []),
    ],
)
def test_updates_outside_what_is_kept(kept: list[tuple[int, int]], left: list[tuple[int, int]]) -> None:
    """Both ends of every range belong to it."""
    assert outside(10, 20, kept) == left


def test_thin_by_size_takes_the_oldest_of_all_streams_and_those_near_an_anomaly_last(store: Store) -> None:
    """Until the size is met, and no further."""
    late = Stream("bee", 1, 0)
    anomaly = replace(ANOMALY, update_onset=10, update_fired=10, update_last=10)
    store.commit(Commit(runs=(SEEN_LONG_AGO, replace(SEEN_LONG_AGO, run="bee")), anomalies=(anomaly,)))
    store.commit(Commit((make_block(range(3000)), make_block(range(1500, 4500), stream=late))))
    settle(store)
    assert thin_all(store, Keep(bytes_max=store.size_bytes() - 1), 0) == {STREAM: 1024}
    assert store.reader().series(STREAM, KEYS[0], 0, 1023, 2000).bucket == 1
    assert thin_all(store, Keep(bytes_max=1), 0)
    assert store.thinned() == {STREAM: 2048, late: 2048}
    assert store.size_bytes() > 1
    assert store.thin(Keep(bytes_max=1), 0) == {}


def test_thin_by_size_reaches_a_chunk_near_an_anomaly_after_every_other(opened: Opened) -> None:
    """The first chunk of the run is near one: it goes with the last call."""
    anomaly = replace(ANOMALY, update_onset=10, update_fired=10, update_last=10)
    opened.store.commit(Commit(runs=(SEEN_LONG_AGO,), anomalies=(anomaly,)))
    fill(opened.store, 1024 * (CHUNKS_PER_CALL + 1))
    assert opened.store.thin(BOTH, 0) == {STREAM: 1024 * CHUNKS_PER_CALL}
    assert rows_of(opened.store.blocks_after(STREAM, -1)) == []
    assert opened.store.raw_begin(STREAM) == 1024 * (CHUNKS_PER_CALL + 1)
    assert opened.store.reader().series(STREAM, KEYS[0], 0, 1023, 2000).bucket == 1
    assert opened.store.thin(BOTH, 0) == {STREAM: 1024}
    assert opened.store.reader().series(STREAM, KEYS[0], 0, 1023, 2000).bucket == 64


def test_thin_leaves_rows_that_no_checkpoint_covers(filled: Store) -> None:
    """A restart replays them: a detector that lost them would not be what it was."""
    filled.commit(Commit(checkpoints=(Checkpoint(STREAM, 4499, "rules", b"s"),)))
    filled.commit(Commit((make_block(range(4500, 6500)),)))
    settle(filled)
    assert thin_all(filled, BOTH, 10**15) == {STREAM: 4096}
    assert rows_of(filled.blocks_since_checkpoint(STREAM)) == rows_of([make_block(range(4500, 6500))])


def test_series_over_thinned_rows_keeps_extremes_counts_and_last_values(filled: Store, reader: StoreReader) -> None:
    """A NaN and a spike in rows that are gone are still in their buckets; raw rows beside them share the bucket size."""
    values = np.zeros((1, 1024), np.float32)
    values[0, 100], values[0, 900] = 1e6, np.nan
    status = np.zeros((1, 1024), np.uint8)
    status[0, 500] = 4
    key = SignalKey("user", "odd")
    stream = Stream(STREAM.run, 1, 1)
    filled.commit(Commit((make_block(range(1024), stream=stream, signals=(key,), values=values, status=status),)))
    filled.commit(Commit((make_block(range(1024, 1100), stream=stream, signals=(key,), values=values[:, :76]),)))
    settle(filled)
    thin_all(filled, BOTH, 10**15)
    got = reader.series(stream, key, None, None, 20_000)
    assert (got.bucket, got.rows, got.thinned, dict(got.unmeasured)) == (64, 1100, 1024, {4: 1})
    assert got.update.tolist() == list(range(0, 1100, 64))
    assert got.high.max() == 1e6
    assert int(got.nonfinite.sum()) == 1
    assert int(got.measured.sum()) == 1099
    whole = reader.series(stream, key, None, None, 1)
    assert (whole.bucket, whole.rows, whole.high.tolist(), whole.nonfinite.tolist()) == (2048, 1100, [1e6], [1])


def test_series_that_begins_and_ends_in_thinned_rows_holds_whole_buckets(filled: Store, reader: StoreReader) -> None:
    """Up to 63 rows more at either end, and not one bucket more; a range without thinned rows stays raw."""
    thin_all(filled, Keep(age_ns=1000 * SECOND), 2985 * SECOND)
    got = reader.series(STREAM, KEYS[1], 100, 1030, 20_000)
    assert got.update.tolist() == list(range(64, 1025, 64))
    assert (got.bucket, got.rows, got.thinned) == (64, 16 * 64, 16 * 64)
    assert reader.series(STREAM, KEYS[1], 128, 191, 20_000).update.tolist() == [128]
    assert reader.series(STREAM, KEYS[1], 127, 192, 20_000).update.tolist() == [64, 128, 192]
    edge = reader.series(STREAM, KEYS[1], 2000, 2100, 20_000)
    assert (edge.update.tolist(), edge.rows, edge.thinned) == ([1984, 2048], 64 + 53, 64)
    raw = reader.series(STREAM, KEYS[1], 2048, 2100, 20_000)
    assert (raw.bucket, raw.rows, raw.thinned) == (1, 53, 0)


def test_series_of_a_signal_that_a_thinned_chunk_has_elsewhere_is_empty(store: Store, reader: StoreReader) -> None:
    """It appears in the second half of the chunk; the range is in the first. Empty, not zero."""
    store.commit(Commit(runs=(SEEN_LONG_AGO,)))
    store.commit(Commit((make_block(range(640), signals=KEYS[:1]), make_block(range(640, 1300)))))
    settle(store)
    assert thin_all(store, BOTH, 10**15) == {STREAM: 1024}
    got = reader.series(STREAM, KEYS[1], 0, 10, 100)
    assert (len(got.update), got.rows, got.thinned) == (0, 0, 0)


# SQLite alone


def test_pages_that_thinning_freed_are_used_before_the_file_grows(tmp_path: Path) -> None:
    """Size by retention is pages in use; a store that thins as fast as it fills keeps its file."""
    store = SqliteStore.open(tmp_path)
    store.commit(Commit(runs=(SEEN_LONG_AGO,)))
    wide = tuple(SignalKey("user", f"k{i}") for i in range(40))
    sizes = []
    for first in range(0, 40 * 1024, 1024):
        values = np.random.default_rng(first).random((40, 1024)).astype(np.float32)
        store.commit(Commit((make_block(range(first, first + 1024), signals=wide, values=values),)))
        settle(store)
        if first >= 8 * 1024:
            thin_all(store, Keep(age_ns=4096 * SECOND), first * SECOND)
        sizes.append(store.size_bytes())
    assert sizes[39] - sizes[12] < 0.2 * (sizes[7] - sizes[0]) * 27 / 7
    store.close()
    assert (tmp_path / "gradwatch.db").stat().st_size < 1.5 * sizes[39]
    with closing(sqlite3.connect(tmp_path / "gradwatch.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_thin_that_fails_half_way_takes_nothing(tmp_path: Path) -> None:
    """Rows and roll-ups of a chunk are both there, or it is thinned."""
    store = SqliteStore.open(tmp_path)
    store.commit(Commit(runs=(SEEN_LONG_AGO,)))
    fill(store, 3000)
    with closing(sqlite3.connect(tmp_path / "gradwatch.db")) as db:
        db.execute("CREATE TRIGGER planted BEFORE UPDATE ON chunk BEGIN SELECT RAISE(ABORT, 'planted'); END")
        db.commit()
        with pytest.raises(sqlite3.IntegrityError, match="planted"):
            store.thin(BOTH, 10**15)
        db.execute("DROP TRIGGER planted")
        db.commit()
    assert store.thinned() == {}
    assert rows_of(store.blocks_after(STREAM, -1)) == rows_of([make_block(range(3000))])
    assert thin_all(store, BOTH, 10**15) == {STREAM: 2048}
    store.close()


@pytest.mark.parametrize("what", ["", "restart", "errors"])
def test_thin_of_more_tables_than_a_step_takes_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Tables go a few at a time, behind their rows; a chunk that is begun is ended though the store has become small enough.

    A restart in between knows it, and a step that was rolled back, which had begun a chunk or ended one, leaves it as it was.
    """
    monkeypatch.setattr(thinning, "TABLE_BYTES_PER_STEP", 3 * 4096)
    store, step = SqliteStore.open(tmp_path), thinning.Thinning.step
    tables = [TableRecord(STREAM, "s", seq, "layers", seq, ("w",), ("norm",), bytes(8)) for seq in range(8)]
    store.commit(Commit(runs=(SEEN_LONG_AGO,), tables=tuple(tables)))
    fill(store, 1100)
    begins, goes_on, reader = Keep(bytes_max=store.size_bytes() - 1), Keep(bytes_max=10**12), store.reader()

    def fail(*args: Any) -> None:
        step(*args)
        raise sqlite3.OperationalError("planted")

    def fail_once(keep: Keep) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(thinning.Thinning, "step", fail)
            with pytest.raises(GradwatchError, match="planted"):
                store.thin(keep, 10**15)

    def left() -> tuple[int, int]:
        return sum(map(len, store.blocks_after(STREAM, -1))), len(reader.table_updates(STREAM, "layers"))

    if what == "errors":
        fail_once(begins)
        assert (store.thin(goes_on, 10**15), left()) == ({}, (1100, 8))
    assert (store.thin(begins, 10**15), left()) == ({STREAM: 1024}, (76, 5))
    assert (store.thinned(), store.raw_begin(STREAM)) == ({STREAM: 1024}, 1024)
    if what == "restart":
        store.close()
        store = SqliteStore.open(tmp_path)
    assert (store.thin(goes_on, 10**15), left()) == ({STREAM: 0}, (76, 2))
    if what == "errors":
        fail_once(goes_on)
    assert (store.thin(goes_on, 10**15), left()) == ({STREAM: 0}, (76, 0))
    assert (store.thin(goes_on, 10**15), store.thinned()) == ({}, {STREAM: 1024})
    reader.close()
    store.close()
