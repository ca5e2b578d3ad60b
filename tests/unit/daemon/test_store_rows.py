"""Suite of every store, 1: batches whole or not at all, and rows that come back as they went in."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import Checkpoint, Commit, EventRecord, SignalKey, Stream
from harness.signal_blocks import KEYS, STREAM, make_block, rows_of
from harness.stores import everything, fill, settle

if TYPE_CHECKING:
    from gradwatch_daemon.store.protocol import Store, StoreReader
    from harness.stores import Opened


def test_commit_that_fails_at_its_end_leaves_nothing(opened: Opened, reader: StoreReader) -> None:
    """The last record cannot be written: no row, run, session, anomaly, event, loss or table of the batch is there."""
    bad = replace(everything(), checkpoints=(Checkpoint(STREAM, 2, "rules-1", object()),))  # type: ignore[arg-type]
    with pytest.raises((sqlite3.Error, TypeError)):
        opened.store.commit(bad)
    store = opened.store
    assert not any([store.runs(), store.session("s1"), store.open_anomalies(), store.open_escalations(), store.row_counts()])
    assert store.lost_count("ant-ppo") == 0
    assert not any([reader.events("ant-ppo", 9), reader.tables("ant-ppo", 9), reader.signals(*STREAM)])
    assert not list(store.blocks_after(STREAM, -1))


def test_commit_after_a_failed_one_writes_the_same_batch(opened: Opened) -> None:
    """Streams and signal sets numbered in the failed transaction are numbered anew."""
    bad = replace(everything(), checkpoints=(Checkpoint(STREAM, 2, "rules-1", object()),))  # type: ignore[arg-type]
    opened.store.commit(Commit((make_block(range(3), stream=Stream("other", 1, 0)),)))
    for _ in range(2):
        with pytest.raises((sqlite3.Error, TypeError)):
            opened.store.commit(bad)
    opened.store.commit(everything())
    store = opened.again()
    assert store.row_counts() == {Stream("other", 1, 0): (3, 2), STREAM: (3, 2)}
    assert rows_of(store.blocks_after(STREAM, -1)) == rows_of([make_block(range(3))])


def test_commit_of_a_block_that_does_not_fit_itself_is_refused(store: Store) -> None:
    """Fewer values than rows would shift every later row."""
    block = make_block(range(4))
    with pytest.raises(ValueError, match=r"3 signals x 4 rows: values \(3, 3\)"):
        store.commit(Commit((replace(block, values=block.values[:, :3]),)))
    assert store.row_counts() == {}


def test_blocks_after_gives_back_rows_bit_by_bit_before_and_after_compaction(opened: Opened) -> None:
    """NaN payloads, infinities, negative zero, statuses and a changed signal set survive in order of arrival."""
    odd = np.array([0x7FC00001, 0xFF800000, 0x7F800000, 0x80000000, 0x7F800001, 1], np.uint32).view(np.float32)
    values, status = np.tile(odd, (3, 1)), np.arange(18, dtype=np.uint8).reshape(3, 6) % 12
    wider = (*KEYS, SignalKey("user", "lr"))
    blocks = [
        make_block(range(6), values=values, status=status),
        make_block(range(6, 1500)),
        make_block(range(1490, 1600), signals=wider),
        make_block(range(1600, 2100), signals=wider[::-1]),
    ]
    for block in blocks:
        opened.store.commit(Commit((block,)))
    before = rows_of(opened.store.blocks_after(STREAM, -1))
    settle(opened.store)
    assert before == rows_of(blocks)
    assert rows_of(opened.store.blocks_after(STREAM, -1)) == before
    assert rows_of(opened.again().blocks_after(STREAM, -1)) == before


def test_blocks_after_an_update_gives_only_later_updates(store: Store) -> None:
    """Whole chunks are skipped, and one is cut."""
    fill(store, 3000)
    for update in (-1, 0, 1021, 1022, 1023, 1024, 1500, 2998, 2999, 10_000):
        assert rows_of(store.blocks_after(STREAM, update)) == rows_of([make_block(range(update + 1, 3000))])


def test_blocks_after_while_rows_are_compacted_loses_and_repeats_none(store: Store) -> None:
    """The tails read first are gone when the walk goes on."""
    for first in range(0, 2500, 100):
        store.commit(Commit((make_block(range(first, first + 100)),)))
    walk = store.blocks_after(STREAM, -1)
    got = [next(walk)]
    settle(store)
    store.commit(Commit((make_block(range(2500, 2600)),)))
    assert rows_of([*got, *walk]) == rows_of([make_block(range(2600))])


def test_blocks_of_other_streams_do_not_mix(store: Store) -> None:
    """The same updates in another attempt, rank and run."""
    streams = [STREAM, Stream("ant-ppo", 2, 0), Stream("ant-ppo", 1, 1), Stream("bee", 1, 0)]
    for k in range(1100 // 50):
        store.commit(Commit(tuple(make_block(range(k * 50 + j, k * 50 + j + 50), stream=s) for j, s in enumerate(streams))))
    settle(store)
    for j, stream in enumerate(streams):
        got = [row[1] for row in rows_of(store.blocks_after(stream, -1))]
        assert got == [u + j for u in range(1100)]
    assert store.row_counts() == {stream: (1100, 1099 + j) for j, stream in enumerate(streams)}


def test_empty_block_is_no_row(store: Store) -> None:
    """Nothing is made of it."""
    store.commit(Commit((make_block([]),)))
    assert not list(store.blocks_after(STREAM, -1))


def test_marks_are_the_events_that_detection_made_of_one_stream_oldest_first(store: Store) -> None:
    """Neither an agent's event of the same kind, nor another stream's, nor another kind of our own."""
    gap = EventRecord(STREAM, "s1", -1, 7, 70, "gap", "outbox full", {"records": 3, "rows": 8, "mark": 0})
    tick = EventRecord(STREAM, "", -1, 9, 90, "tick", "", {"rows": 10, "mark": 1})
    others = (
        replace(gap, seq=4),
        replace(tick, stream=Stream("ant-ppo", 2, 0)),
        EventRecord(STREAM, "", -1, 9, 90, "level", "to debug", {}),
    )
    store.commit(Commit(events=(gap, *others)))
    store.commit(Commit(events=(tick,)))
    assert store.marks(STREAM) == [gap, tick]
    assert store.marks(Stream("nobody", 1, 0)) == []


def test_checkpoint_is_the_newest_of_its_stream(opened: Opened) -> None:
    """An older one is replaced."""
    other = Checkpoint(Stream("bee", 1, 0), 5, "rules-1", b"")
    opened.store.commit(Commit(checkpoints=(Checkpoint(STREAM, 255, "rules-1", b"old"), other)))
    newest = Checkpoint(STREAM, 511, "rules-2", b"\0new")
    opened.store.commit(Commit(checkpoints=(newest,)))
    assert opened.again().checkpoint(STREAM) == newest
    assert opened.store.checkpoint(other.stream) == other
    assert opened.store.checkpoint(Stream("nobody", 1, 0)) is None


def test_blocks_since_checkpoint_are_those_that_arrived_later_whatever_their_updates(opened: Opened) -> None:
    """A trainer that went back repeats updates below the checkpoint's; they were not in its state."""
    store = opened.store
    assert not list(store.blocks_since_checkpoint(STREAM))
    store.commit(Commit((make_block(range(200, 1000)),)))
    assert rows_of(store.blocks_since_checkpoint(STREAM)) == rows_of([make_block(range(200, 1000))])
    store.commit(Commit((make_block(range(1000, 1230)),), checkpoints=(Checkpoint(STREAM, 1229, "rules-1", b"s"),)))
    assert not list(store.blocks_since_checkpoint(STREAM))
    later = make_block([*range(900, 1000), 1229, 1230])
    store.commit(Commit((later,)))
    assert rows_of(store.blocks_since_checkpoint(STREAM)) == rows_of([later])
    settle(store)
    assert rows_of(opened.again().blocks_since_checkpoint(STREAM)) == rows_of([later])


def test_store_closed_refuses_commits(opened: Opened) -> None:
    """Closing again is harmless."""
    opened.store.close()
    opened.store.close()
    with pytest.raises(GradwatchError) as refused:
        opened.store.commit(everything())
    assert refused.value.code.slug == "not-ready"
