"""What only the store on SQLite does: tails become chunks, bit by bit; decoded anomalies are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gradwatch_daemon.records import Commit
from gradwatch_daemon.store.reader import Decoded
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.signal_blocks import STREAM, make_block
from harness.stores import ANOMALY, Opened, fill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gradwatch_daemon.store.protocol import Store


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Only this implementation."""
    subject = Opened(lambda: SqliteStore.open(tmp_path))
    yield subject
    subject.store.close()


def test_compact_with_nothing_full_does_nothing(store: Store) -> None:
    """1,023 rows stay tails; one more makes a chunk."""
    fill(store, 1023)
    assert store.compact() == 0
    store.commit(Commit((make_block([1023]),)))
    assert store.compact() == 1
    assert store.compact() == 0


def test_compact_of_more_than_its_bound_goes_on_when_called_again(store: Store) -> None:
    """One call keeps commits waiting for a bounded time."""
    store.commit(Commit((make_block(range(40 * 1024)),)))
    made = []
    while count := store.compact():
        made.append(count)
    assert sum(made) == 40
    assert len(made) > 1
    assert store.row_counts() == {STREAM: (40 * 1024, 40 * 1024 - 1)}


def test_full_tails_found_at_start_are_compacted(opened: Opened) -> None:
    """A daemon killed before compaction leaves the work to the next one."""
    opened.store.commit(Commit((make_block(range(2100)),)))
    assert opened.again().compact() == 2


def test_decoded_anomalies_beyond_the_size_are_forgotten_oldest_first() -> None:
    """Least recently asked for, not least recently kept; a batch larger than the size does not stay."""
    kept = Decoded(2)
    kept.keep({"a": ANOMALY, "b": ANOMALY})
    kept.find(["a"])
    kept.keep({"c": ANOMALY})
    assert set(kept.find(["a", "b", "c"])) == {"a", "c"}
    kept.keep(dict.fromkeys("defg", ANOMALY))
    assert set(kept.find(list("abcdefg"))) == {"f", "g"}
