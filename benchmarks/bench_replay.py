"""How fast a stored run is replayed: updates a second, reading, detection and comparison with what live found included.

The baseline is live itself at its fastest: the same rows one by one through gate, derivation, detection and commit of the
pipeline, without a socket. A trainer is slower than that: the other ratio is to one that makes an update every 100 ms.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from feed import SCHEMA, frames, values_of
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_daemon.detect.catalogue import PROFILES, load_profile
from gradwatch_daemon.detect.engine import Engine
from gradwatch_daemon.pipeline.pipeline import Pipeline
from gradwatch_daemon.records import Counters
from gradwatch_daemon.replay.run import compare_with_live, replay_run
from gradwatch_daemon.store.recording import RecordingReader
from gradwatch_daemon.store.sqlite import SqliteStore
from table import Figure, arguments, median, print_table

RUN = "bench"
TRAINER_S = 0.1
"""Time of an update of a small trainer (the demo's PPO on CartPole takes about this)."""

SPEED_LEAST = 100.0
"""Times as fast as that trainer: the promise is hundreds."""


class NoSocket:
    """What the pipeline asks of a socket; nobody listens."""

    def send(self, _peer: bytes, _frame: bytes) -> bool:
        """It went out."""
        return True

    def wake(self) -> None:
        """Nobody sleeps."""


def record(path: Path, profile: str, values: np.ndarray, batch: int) -> float:
    """A run through the pipeline into a store, `batch` rows a message; seconds it took."""
    store = SqliteStore.open(path)
    pipeline = Pipeline(NoSocket(), store, Engine(load_profile(profile)), Counters(), lambda _: None)  # type: ignore[arg-type]
    hello = m.Hello(RUN, RUN, f"{RUN}-{batch}", 0, 1, "localhost", 1, time.time_ns())
    pipeline.tick([(b"p", encode(hello))])
    pipeline.tick([(b"p", encode(m.SchemaMessage(SCHEMA.columns)))])
    rows = [frame for _, frame in frames(values, batch)]
    start = time.perf_counter()
    for frame in rows:
        pipeline.tick([(b"p", frame)])
    taken = time.perf_counter() - start
    store.close()
    return taken


def replay(path: Path, profile: str) -> tuple[float, int, int]:
    """Seconds of a replay with its comparison, rows replayed, anomalies that differ from live."""
    rules = load_profile(profile)
    start = time.perf_counter()
    reader = RecordingReader(path)
    recording = reader.recording(RUN)
    found = compare_with_live(replay_run(recording, reader.blocks, rules, clock=time.perf_counter), recording)
    reader.close()
    taken = time.perf_counter() - start
    difference = found.difference
    assert difference is not None
    return taken, found.rows, len(difference.new + difference.lost) + len(difference.moved + difference.changed)


def measure(profile: str, updates: int, singly: int, rounds: int) -> tuple[list[Figure], int]:
    """Figures of one profile, and how many anomalies differed in all rounds."""
    values = values_of(np.random.default_rng(3), updates)
    live, fast, differing = [], [], 0
    with tempfile.TemporaryDirectory() as home:
        record(_in(home, "stored"), profile, values, 256)
        for number in range(rounds):
            live.append(record(_in(home, f"live{number}"), profile, values[:singly], 1) / singly)
            taken, rows, differ = replay(Path(home) / "stored", profile)
            fast.append(taken / rows)
            differing += differ
    pace = 1.0 / median(fast)
    return [
        Figure(f"{profile}, replayed", pace, "updates/s", baseline=("live, one by one", 1.0 / median(live))),
        Figure(f"  times a trainer of {1 / TRAINER_S:g} updates/s", pace * TRAINER_S, "x", SPEED_LEAST, at_least=True),
    ], differing


def _in(home: str, name: str) -> Path:
    path = Path(home) / name
    path.mkdir()
    return path


def main() -> None:
    """Print the table."""
    args = arguments(__doc__).parse_args()
    updates, singly, rounds = (4_000, 300, 2) if args.quick else (50_000, 2_000, 5)
    figures: list[Figure] = []
    differing = 0
    for profile in PROFILES:
        added, differ = measure(profile, updates, singly, rounds)
        figures += added
        differing += differ
    notes = [f"{updates} updates of {len(SCHEMA.columns)} columns, {rounds} rounds; {differing} anomalies differed from live"]
    print_table("replay", figures, notes=notes, quick=args.quick)


if __name__ == "__main__":
    main()
