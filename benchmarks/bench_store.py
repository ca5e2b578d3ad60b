"""The store: what a commit, a read and an update take, 1,000,000 updates of 40 signals, beside SQLite with nothing around it.

`noise` has every value random and measured, the most bytes there can be; `run` is nearer to a PPO run: a third of the signals
constant (non-finite counts, learning rate), some not measured in every update. The bare limit writes rows of as many bytes
into one table, with the same journal, and reads as many bytes of one signal as lie in one series.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_daemon.records import Commit, Session, SignalBlock, SignalKey, Stream
from gradwatch_daemon.store.sqlite import SqliteStore
from table import Figure, arguments, median, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS = 40
TAIL = 1000
"""Rows committed singly at the end: the slowest tail there is to read, for 1,024 of them make a chunk."""
STREAM = Stream("bench", 1, 0)
KEYS = tuple(SignalKey(f"bench.signal{i:02d}") for i in range(SIGNALS))


def make_block(rng: np.random.Generator, first: int, n: int, *, noise: bool) -> SignalBlock:
    """`n` consecutive updates, about one a second."""
    update = np.arange(first, first + n, dtype=np.int64)
    t_ns = 1_700_000_000 * 10**9 + update * 10**9 + rng.integers(0, 10**6, n)
    values = rng.standard_normal((SIGNALS, n)).astype(np.float32)
    status = np.zeros((SIGNALS, n), np.uint8)
    if not noise:
        values[: SIGNALS // 3] = 0.0
        status[-4:] = np.where(rng.random((4, n)) < 0.1, np.uint8(4), np.uint8(0))
        values[status != 0] = 0.0
    level, flags = np.full(n, 2, np.uint8), np.zeros(n, np.uint8)
    return SignalBlock(STREAM, update, t_ns, update * 2048, level, flags, KEYS, values, status)


def median_us(call: Callable[[], object], times: int) -> float:
    """Median of one call, in us."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e6)
    return median(taken)


class Bare:
    """SQLite with one table and the pragmas of the store: what no store on it can be faster than."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / "bare.db", isolation_level=None)
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; CREATE TABLE rows (row BLOB)")

    def commit(self, blocks: int, rows: int) -> None:
        """One row for each block, of as many bytes as one float32 and one status a signal and update are."""
        block = bytes(SIGNALS * 5 * rows)
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO rows VALUES (?)", ((block,) for _ in range(blocks)))
        self._db.execute("COMMIT")

    def hold(self, chunks: int) -> None:
        """One signal in chunks of 1,024 float32, as a series finds it."""
        self._db.execute("CREATE TABLE chunks (chunk BLOB)")
        self._db.executemany("INSERT INTO chunks VALUES (?)", ((bytes(4096),) for _ in range(chunks)))

    def read(self) -> float:
        """Read what `hold` wrote; its sum."""
        found = self._db.execute("SELECT chunk FROM chunks").fetchall()
        return float(np.frombuffer(b"".join(row[0] for row in found), np.float32).sum())

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def single_rows(store: SqliteStore, bare: Bare, rng: np.random.Generator, count: int) -> list[Figure]:
    """One row and its session's seq in each transaction; compaction apart, as the pipeline does it after the ack."""
    batches = iter(
        [Commit((make_block(rng, i, 1, noise=True),), sessions=(Session("s", STREAM, "l", i, "h", 1),)) for i in range(count)]
    )
    limit = median_us(lambda: bare.commit(1, 1), count)
    return [
        Figure(
            "commit of one row, p50",
            median_us(lambda: store.commit(next(batches)), count),
            "us",
            100,
            baseline=("bare SQLite", limit),
        )
    ]


def many_rows(store: SqliteStore, bare: Bare, rng: np.random.Generator, first: int, count: int, *, noise: bool) -> list[Figure]:
    """Blocks of 32 rows, 64 to a transaction, and compaction of all of it."""
    commit_s = compact_s = 0.0
    chunks = 0
    for start in range(first, first + count, 2048):
        batch = Commit(tuple(make_block(rng, start + k, 32, noise=noise) for k in range(0, 2048, 32)))
        before = time.perf_counter()
        store.commit(batch)
        committed = time.perf_counter()
        chunks += store.compact()
        commit_s, compact_s = commit_s + committed - before, compact_s + time.perf_counter() - committed
    while made := store.compact():
        chunks += made
    rows = chunks * 1024
    limit = ("bare SQLite", 2048e6 / median_us(lambda: bare.commit(64, 32), 100))
    return [
        Figure("rows committed a second, blocks of 32", count / commit_s, "rows/s", 100_000, at_least=True, baseline=limit),
        Figure("the same with compaction", rows / (commit_s + compact_s), "rows/s", 50_000, at_least=True, baseline=limit),
        Figure("compaction of one chunk (1,024 rows)", compact_s / chunks * 1e3, "ms", 10),
    ]


def reading(store: SqliteStore, bare: Bare, rows: int) -> list[Figure]:
    """Over all rows, and over the newest."""
    reader = store.reader()
    bare.hold(rows // 1024)
    whole = median_us(lambda: reader.series(STREAM, KEYS[3], None, None, 2000), 40)
    newest = median_us(lambda: reader.series(STREAM, KEYS[3], rows - 1000, None, 2000), 40)
    summary = median_us(lambda: reader.signals(*STREAM), 40)
    buckets = len(reader.series(STREAM, KEYS[3], None, None, 2000).update)
    reader.close()
    limit = ("all its values read from bare SQLite", median_us(bare.read, 40) / 1e3)
    return [
        Figure(f"{rows:,} updates to {buckets:,} buckets, p50", whole / 1e3, "ms", 15, baseline=limit),
        Figure("newest 1,000 updates, raw", newest / 1e3, "ms", 15),
        Figure("summaries of all signals", summary / 1e3, "ms", 15),
    ]


def measure(rows: int, *, noise: bool) -> list[Figure]:
    """Fill a store of its own, read it, weigh it."""
    rng = np.random.default_rng(7)
    folder = Path(tempfile.mkdtemp(prefix="gradwatch-bench-"))
    try:
        store, bare = SqliteStore.open(folder), Bare(folder)
        singles = 8192
        figures = single_rows(store, bare, rng, singles)
        figures += many_rows(store, bare, rng, singles, rows - singles, noise=noise)
        for first in range(rows, rows + TAIL):
            store.commit(Commit((make_block(rng, first, 1, noise=noise),)))
        figures += reading(store, bare, rows + TAIL)
        store.close()
        bare.close()
        db = sqlite3.connect(folder / "gradwatch.db")
        pages, free = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        db.close()
        raw = ("its float32 and statuses", SIGNALS * 5)
        for said, held in (("free pages not counted", pages - free), ("the file as it lies", pages)):
            figures.append(Figure(f"bytes an update, {said}", held * 4096 / (rows + TAIL), "B", 200, baseline=raw))
    finally:
        shutil.rmtree(folder)
    return figures


def main() -> None:
    """Print one table for each kind of data."""
    args = arguments(__doc__).parse_args()
    rows = 65_536 if args.quick else 999_424
    notes = [f"{SIGNALS} signals, {rows:,} updates, SQLite {sqlite3.sqlite_version}"]
    print_table("the store, values of a run", measure(rows, noise=False), args=args, notes=notes)
    print_table("the store, random values", measure(rows, noise=True), args=args, notes=notes)


if __name__ == "__main__":
    main()
