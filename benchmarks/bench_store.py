"""The store's figures of DESIGN.md §10: `python benchmarks/bench_store.py [updates]` (1,000,000 by default, about a minute).

40 signals. `noise` has every value random and measured, the most bytes there can be; `run` is nearer to a PPO run: a third
of the signals constant (non-finite counts, learning rate), some not measured in every update.
"""

from __future__ import annotations

import platform
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_daemon.records import Commit, Session, SignalBlock, SignalKey, Stream
from gradwatch_daemon.store.sqlite import CHUNKS_PER_CALL, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS = 40
TAIL = 1000
"""Rows committed singly at the end: the slowest tail there is to read, for 1,024 of them make a chunk."""
STREAM = Stream("bench", 1, 0)
KEYS = tuple(SignalKey(f"bench.signal{i:02d}") for i in range(SIGNALS))


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number and the most (or, where `at_least`, the least) it may be."""

    name: str
    got: float
    budget: float
    unit: str
    at_least: bool = False

    @property
    def ratio(self) -> float:
        """Below 1 is within the budget."""
        return self.budget / self.got if self.at_least else self.got / self.budget


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
    return statistics.median(taken)


def single_rows(store: SqliteStore, rng: np.random.Generator, count: int) -> list[Figure]:
    """One row and its session's seq in each transaction; compaction apart, as the pipeline does it after the ack."""
    batches = iter(
        [Commit((make_block(rng, i, 1, noise=True),), sessions=(Session("s", STREAM, "l", i, "h", 1),)) for i in range(count)]
    )
    return [Figure("commit of one row, p50", median_us(lambda: store.commit(next(batches)), count), 100, "us")]


def many_rows(store: SqliteStore, rng: np.random.Generator, first: int, count: int, *, noise: bool) -> list[Figure]:
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
    return [
        Figure("rows committed a second, blocks of 32", count / commit_s, 100_000, "rows/s", at_least=True),
        Figure("the same with compaction", rows / (commit_s + compact_s), 50_000, "rows/s", at_least=True),
        Figure("compaction of one chunk (1,024 rows)", compact_s / chunks * 1e3, 10, "ms"),
    ]


def reading(store: SqliteStore, rows: int) -> list[Figure]:
    """Over all rows, and over the newest."""
    reader = store.reader()
    whole = median_us(lambda: reader.series(STREAM, KEYS[3], None, None, 2000), 40)
    newest = median_us(lambda: reader.series(STREAM, KEYS[3], rows - 1000, None, 2000), 40)
    summary = median_us(lambda: reader.signals(*STREAM), 40)
    buckets = len(reader.series(STREAM, KEYS[3], None, None, 2000).update)
    reader.close()
    return [
        Figure(f"{rows:,} updates to {buckets:,} buckets, p50", whole / 1e3, 15, "ms"),
        Figure("newest 1,000 updates, raw", newest / 1e3, 15, "ms"),
        Figure("summaries of all signals", summary / 1e3, 15, "ms"),
    ]


def measure(rows: int, *, noise: bool) -> list[Figure]:
    """Fill a store of its own, read it, weigh it."""
    rng = np.random.default_rng(7)
    folder = Path(tempfile.mkdtemp(prefix="gradwatch-bench-"))
    try:
        store = SqliteStore.open(folder)
        singles = 8192
        figures = single_rows(store, rng, singles)
        figures += many_rows(store, rng, singles, rows - singles, noise=noise)
        for first in range(rows, rows + TAIL):
            store.commit(Commit((make_block(rng, first, 1, noise=noise),)))
        figures += reading(store, rows + TAIL)
        store.close()
        db = sqlite3.connect(folder / "gradwatch.db")
        pages, free = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        db.close()
        figures.append(Figure("bytes an update, free pages not counted", (pages - free) * 4096 / (rows + TAIL), 200, "B"))
        figures.append(Figure("bytes an update, the file as it lies", pages * 4096 / (rows + TAIL), 200, "B"))
    finally:
        shutil.rmtree(folder)
    return figures


def main() -> None:
    """Print one table for each kind of data."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rows -= rows % 2048
    print(f"{platform.machine()} {platform.system()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    print(f"numpy {np.__version__}, {SIGNALS} signals, {rows:,} updates, at most {CHUNKS_PER_CALL} chunks a call\n")
    for noise in (True, False):
        print("noise" if noise else "run")
        for figure in measure(rows, noise=noise):
            sign = ">=" if figure.at_least else "<="
            said = f"{figure.got:>12,.1f} {figure.unit:<7}{sign} {figure.budget:>9,.0f}  ratio {figure.ratio:5.2f}"
            print(f"  {figure.name:<44}{said}{'' if figure.ratio <= 1 else '  over budget'}")
        print()


if __name__ == "__main__":
    main()
