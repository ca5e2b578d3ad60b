"""How fast a stored run is replayed: updates a second, reading, detection and comparison with what live found included; and
what a replay on request costs the ingest of the same daemon.

The baseline is live itself at its fastest: the same rows one by one through gate, derivation, detection and commit of the
pipeline, without a socket. A trainer is slower than that: the other ratio is to one that makes an update every 100 ms.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
import urllib.request
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from feed import SCHEMA, Feed, frames, values_of
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_daemon.detect.catalogue import PROFILES, load_profile
from gradwatch_daemon.detect.engine import Engine
from gradwatch_daemon.pipeline.pipeline import Pipeline
from gradwatch_daemon.records import Counters
from gradwatch_daemon.replay.run import compare_with_live, replay_run
from gradwatch_daemon.store.recording import RecordingReader
from gradwatch_daemon.store.sqlite import SqliteStore
from paired import interval
from service import Service
from table import Figure, arguments, median, percentile, print_table

if TYPE_CHECKING:
    from gradwatch_contracts.connection import Connection

RUN = "bench"
TRAINER_S = 0.1
"""Time of an update of a small trainer (the demo's PPO on CartPole takes about this)."""

PAUSE_S = 0.01
"""Between two live rows."""

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
    pace = interval([[1.0 / taken] for taken in fast])
    times = pace.map(lambda updates: updates * TRAINER_S)
    return [
        replace(pace.figure(f"{profile}, replayed", "updates/s"), baseline=("live, one by one", 1.0 / median(live))),
        times.figure(f"  {profile}, times a trainer of {1 / TRAINER_S:g} updates/s", "x", SPEED_LEAST, at_least=True),
    ], differing


def ack_ms(feed: Feed, first: int, rows: int) -> list[float]:
    """Milliseconds from sending one row to its ack, one row after another with a pause between."""
    taken = []
    for seq, frame in frames(values_of(np.random.default_rng(first), rows), 1, first):
        start = time.perf_counter()
        feed.send(seq, frame)
        feed.wait(seq)
        taken.append((time.perf_counter() - start) * 1e3)
        time.sleep(PAUSE_S)
    return taken


def beside_ingest(updates: int, rows: int, rounds: int) -> list[Figure]:
    """How long a live row waits for its ack, alone and while POST /replay works on another run of the same daemon."""
    alone: list[float] = []
    beside: list[float] = []
    with Service() as service:
        old = Feed(service.connection, "old")
        for seq, frame in frames(values_of(np.random.default_rng(1), updates), 256):
            old.send(seq, frame)
        old.wait(updates - 1, 120.0)
        old.close()
        live, done = Feed(service.connection, "live"), 0
        for _ in range(rounds):
            alone += ack_ms(live, done, rows)
            done += rows
            asked = threading.Thread(target=post_replay, args=(service.connection,))
            asked.start()
            while asked.is_alive():
                beside += ack_ms(live, done, 20)
                done += 20
            asked.join()
        live.close()
    figures = []
    for share in (50, 99):
        waited = interval([[taken] for taken in beside], partial(np.percentile, q=share))
        row = waited.figure(f"one live row to its ack while a replay runs, p{share}", "ms")
        figures.append(replace(row, baseline=("alone", percentile(alone, share / 100))))
    return figures


def post_replay(connection: Connection) -> None:
    """One POST /replay of the old run, to its end."""
    token = Path(connection.token_file).read_text(encoding="ascii").strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{connection.url}/api/v1/replay", json.dumps({"run": "old"}).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        answer.read()


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
    figures += beside_ingest(2_000 if args.quick else 20_000, 50 if args.quick else 300, 1 if args.quick else 3)
    notes = [f"{updates} updates of {len(SCHEMA.columns)} columns, {rounds} rounds; {differing} anomalies differed from live"]
    print_table("replay", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
