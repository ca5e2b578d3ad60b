"""A store whose process is killed or whose disk is full holds whole commits only, and all that returned."""

from __future__ import annotations

import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import Commit
from gradwatch_daemon.store import sqlite
from gradwatch_daemon.store.protocol import AnomalyFilter
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.signal_blocks import KEYS, STREAM, make_block, rows_of
from harness.store_writer import ROWS, batch_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gradwatch_daemon.store.protocol import StoreReader

TESTS = Path(__file__).parents[2]


def last_of(store: SqliteStore) -> int:
    """The number of the last commit of `harness.store_writer`."""
    session = store.session("s")
    assert session is not None
    return session.last_seq


def check_whole(store: SqliteStore, reader: StoreReader, last: int) -> None:
    """Commits 0 to `last` and nothing of another one, in every table."""
    assert last_of(store) == last
    assert store.row_counts() == {STREAM: ((last + 1) * ROWS, (last + 1) * ROWS - 1)}
    assert rows_of(store.blocks_after(STREAM, -1)) == rows_of([make_block(range((last + 1) * ROWS))])
    assert [event.seq for event in reader.events(STREAM.run, 10**6)] == list(range(last, -1, -1))
    assert len(reader.anomalies(AnomalyFilter(limit=10**6))) == last + 1
    assert store.lost_count(STREAM.run) == last + 1
    assert [summary.measured for summary in reader.signals(*STREAM)] == [(last + 1) * ROWS] * len(KEYS)


def test_store_killed_while_it_commits_and_compacts_holds_whole_commits(tmp_path: Path) -> None:
    """kill -9 at a random commit, four times on the same data: what was said to be committed is there, nothing is half."""
    chance = random.Random(20)
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-m", "harness.store_writer", str(tmp_path)], cwd=TESTS, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        with writer, writer.stdout as lines:
            said = -1
            for _ in range(chance.randrange(5, 60)):
                said = int(lines.readline())
            writer.kill()
        with closing(sqlite3.connect(tmp_path / "gradwatch.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        store = SqliteStore.open(tmp_path)
        reader = store.reader()
        last = last_of(store)
        assert last >= said
        check_whole(store, reader, last)
        reader.close()
        store.close()


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 1 MiB: as a full disk, but for the error number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def commit_until_refused(store: SqliteStore) -> tuple[int, GradwatchError]:
    """The number of the first commit that did not go in, and what it said."""
    for k in range(10_000):
        try:
            store.commit(batch_of(k))
        except GradwatchError as refused:
            return k, refused
    raise AssertionError("10,000 commits fitted into 1 MiB")


@pytest.mark.usefixtures("small_files")
def test_commit_that_the_disk_has_no_room_for_leaves_nothing_and_may_be_tried_again(tmp_path: Path) -> None:
    """The refusal says so; what was there stays readable; with room again the same batch goes in."""
    store = SqliteStore.open(tmp_path)
    reader = store.reader()
    k, refused = commit_until_refused(store)
    assert refused.code.slug == "data-dir-unusable"
    assert "gradwatch.db: expected a commit, got" in str(refused)
    assert k > 1024 // ROWS
    check_whole(store, reader, k - 1)
    with pytest.raises(GradwatchError):
        store.commit(batch_of(k))
    with pytest.raises(GradwatchError):
        store.compact()
    check_whole(store, reader, k - 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert soft != hard
    store.commit(batch_of(k))
    while store.compact():
        pass
    check_whole(store, reader, k)
    reader.close()
    store.close()


def test_compaction_that_fails_half_way_leaves_the_tails(tmp_path: Path) -> None:
    """A chunk is written and its tails are gone, or neither."""
    store = SqliteStore.open(tmp_path)
    store.commit(Commit((make_block(range(3000)),)))
    with closing(sqlite3.connect(tmp_path / "gradwatch.db")) as db:
        db.execute("CREATE TRIGGER planted BEFORE INSERT ON summary BEGIN SELECT RAISE(ABORT, 'planted'); END")
        db.commit()
        with pytest.raises(sqlite3.IntegrityError, match="planted"):
            store.compact()
        counts = [db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("chunk", "piece", "tail")]
        assert counts == [0, 0, 3]
        db.execute("DROP TRIGGER planted")
        db.commit()
    assert store.compact() == 2
    assert rows_of(store.blocks_after(STREAM, -1)) == rows_of([make_block(range(3000))])
    store.close()


def test_readers_during_commits_and_compaction_see_whole_states_only(tmp_path: Path) -> None:
    """Three threads read one run while it grows: each answer is a prefix of it, and never shorter than the one before."""
    store = SqliteStore.open(tmp_path)
    reader = store.reader()
    store.commit(batch_of(0))
    faults: list[BaseException] = []
    answers = [0, 0, 0]
    done = threading.Event()

    def read(me: int) -> None:
        try:
            while not done.is_set():
                series = reader.series(STREAM, KEYS[0], None, None, 10**6)
                assert series.update.tolist() == list(range(series.rows))
                assert series.rows % ROWS == 0
                assert series.rows >= answers[me]
                (summary, *_) = reader.signals(*STREAM)
                assert summary.measured == summary.update_last + 1 >= series.rows
                answers[me] = series.rows
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=read, args=(me,)) for me in range(3)]
    for thread in threads:
        thread.start()
    k = 1
    while (k < 60 or min(answers) < 30 * ROWS) and not faults and k < 20_000:
        store.commit(batch_of(k))
        store.compact()
        k += 1
    done.set()
    for thread in threads:
        thread.join(60)
    reader.close()
    store.close()
    assert faults == []
    assert min(answers) >= 30 * ROWS


def test_log_grows_while_a_reader_holds_an_old_state_and_is_used_again_when_it_has_left(tmp_path: Path) -> None:
    """Checkpoints are the store's own: without them the log would grow with every commit."""
    store = SqliteStore.open(tmp_path)
    reader = store.reader()
    log = tmp_path / "gradwatch.db-wal"

    def grow(first: int, batches: int) -> int:
        for k in range(first, first + batches):
            store.commit(Commit((make_block(range(k * 8192, (k + 1) * 8192)),)))
            while store.compact():
                pass
        return log.stat().st_size

    free = grow(0, 8)
    with reader._snapshot() as db:
        assert db.execute("SELECT count(*) FROM chunk").fetchone() == (64,)
        held = grow(8, 24)
        assert db.execute("SELECT count(*) FROM chunk").fetchone() == (64,)
    later = grow(32, 32)
    reader.close()
    store.close()
    assert free < held
    assert later <= held + 8 * 2**20
    assert not log.exists()


def test_log_stays_bounded_under_readers_that_always_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is never a moment without a reader, so a checkpoint that waits for nobody could never begin the log anew."""
    monkeypatch.setattr(sqlite, "WAL_BYTES", 2**18)
    monkeypatch.setattr(sqlite, "WAL_BYTES_MAX", 2**20)
    store = SqliteStore.open(tmp_path)
    reader = store.reader()
    store.commit(batch_of(0))
    done, overlaps = threading.Event(), [0]

    def overlap() -> None:
        with ExitStack() as last:
            while not done.is_set():
                with ExitStack() as before:
                    before.push(last.pop_all())
                    last.enter_context(reader._snapshot()).execute("SELECT count(*) FROM tail").fetchone()
                overlaps[0] += 1

    thread = threading.Thread(target=overlap)
    thread.start()
    largest = written = k = 0
    while written < 24 * 2**20 or overlaps[0] < 50:
        k += 1
        store.commit(Commit((make_block(range(k * 1024, (k + 1) * 1024)),)))
        store.compact()
        written += 2 * 1024 * 40
        largest = max(largest, (tmp_path / "gradwatch.db-wal").stat().st_size)
    done.set()
    thread.join(60)
    reader.close()
    store.close()
    assert largest < 6 * 2**20


def test_writer_waits_for_a_reader_that_stays_once_in_a_while_and_not_at_every_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log grows to 8 times its bound behind that reader, and waiting for it is tried as often; then it is bounded again."""
    monkeypatch.setattr(sqlite, "WAL_BYTES", 2**16)
    monkeypatch.setattr(sqlite, "WAL_BYTES_MAX", 2**20)
    monkeypatch.setattr(sqlite, "WAL_WAIT_MS", 1)
    store = SqliteStore.open(tmp_path)
    store.commit(batch_of(0))
    reader, waits, log = store.reader(), [0], tmp_path / "gradwatch.db-wal"

    def count(statement: str) -> None:
        waits[0] += "RESTART" in statement

    store._db.set_trace_callback(count)
    with reader._snapshot() as db:
        db.execute("SELECT count(*) FROM tail").fetchone()
        k = 0
        while log.stat().st_size < 8 * 2**20:
            k += 1
            store.commit(Commit((make_block(range(k * 1024, (k + 1) * 1024)),)))
            store.compact()
    assert 4 <= waits[0] <= 9
    held = log.stat().st_size
    for later in range(k + 1, 2 * k):
        store.commit(Commit((make_block(range(later * 1024, (later + 1) * 1024)),)))
        store.compact()
    assert log.stat().st_size <= held + 2**20
    reader.close()
    store.close()
