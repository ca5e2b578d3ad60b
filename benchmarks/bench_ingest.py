"""Rows a second that one daemon takes in durably, over real ZeroMQ, from another process with ready frames.

Durable: the clock stops at the ack of the last row, so every row is derived, checked by the detectors and committed (SQLite
WAL, synchronous=NORMAL). Daemon and producer share this machine's cores. The baseline is a bare ROUTER that takes the same
frames and acks them without looking.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import zmq

from feed import SCHEMA, Feed, frames, values_of
from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_contracts.connection import Connection
from gradwatch_contracts.control import Desired
from service import Service
from table import Figure, arguments, median, print_table

BATCH = 32
ROWS = {BATCH: 131_072, 1: 32_768}
PROFILES = ("classic", "default")
BUDGETS = {("classic", BATCH): 50_000.0, ("default", BATCH): 15_000.0, ("classic", 1): 10_000.0, ("default", 1): 10_000.0}


def produce(connection: Connection, run: str, batch: int, rows: int) -> float:
    """Send everything and wait for the last ack; rows a second."""
    ready = frames(values_of(np.random.default_rng(1), rows), batch)
    feed = Feed(connection, run)
    start = time.perf_counter()
    for last_seq, frame in ready:
        if feed.window - (last_seq - feed.acked) < feed.window // 2:
            feed.listen(0)
        feed.send(last_seq, frame)
    feed.wait(rows - 1)
    seconds = time.perf_counter() - start
    feed.close()
    return rows / seconds


def sink(endpoint: str) -> None:
    """The bare ROUTER: greets, then acks by the number of rows that a frame's length says, every time the queue is empty."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(endpoint)
    seq: dict[bytes, int] = {}
    sizes = {len(frames(np.zeros((batch, SCHEMA.slots)), batch)[0][1]): batch for batch in ROWS}
    while True:
        socket.poll()
        touched: set[bytes] = set()
        for _ in range(512):
            try:
                peer, frame = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            if peer not in seq:
                seq[peer] = -1
                socket.send_multipart([peer, encode(m.Welcome(1, limits.WINDOW_RECORDS, -1, Desired(0)))])
                continue
            # The length of packed numbers varies by a few bytes; the schema frame and BYE are far from both sizes.
            rows = next((batch for size, batch in sizes.items() if abs(len(frame) - size) < 24), 0)
            seq[peer] += rows
            touched.add(peer)
        for peer in touched:
            socket.send_multipart([peer, encode(m.Ack(seq[peer]))])


def rate(connection: Connection, run: str, batch: int, rows: int) -> float:
    """Rows a second of a producer in a fresh process."""
    command = [sys.executable, __file__, "--produce", connection.to_json(), run, str(batch), str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout)


def main() -> None:
    """Print the table, or be the producer."""
    if sys.argv[1:2] == ["--produce"]:
        text, run, batch, rows = sys.argv[2:6]
        print(produce(Connection.from_json(text), run, int(batch), int(rows)))
        return
    args = arguments(__doc__).parse_args()
    rounds, share = (1, 8) if args.quick else (5, 1)
    taken: dict[tuple[str, int], list[float]] = {}
    spent: dict[tuple[str, int], list[float]] = {}
    with Service("classic") as classic, Service("default") as default:
        endpoint = f"ipc://{Path(classic.home) / 'sink.ipc'}"
        threading.Thread(target=sink, args=(endpoint,), daemon=True).start()
        targets = {"bare": Connection(endpoint, "", "", "", 0), "classic": classic.connection, "default": default.connection}
        daemons = {"classic": classic, "default": default}
        for number in range(rounds):
            for batch, rows in ROWS.items():
                for name, connection in targets.items():
                    before = daemons[name].cpu_s() if name in daemons else 0.0
                    found = rate(connection, f"bench-{batch}-{number}", batch, rows // share)
                    taken.setdefault((name, batch), []).append(found)
                    if name in daemons:
                        spent.setdefault((name, batch), []).append((daemons[name].cpu_s() - before) / (rows // share) * 1e6)
    figures = []
    for batch in ROWS:
        said = f"{batch} rows a message" if batch > 1 else "one row a message"
        baseline = ("a bare ROUTER", median(taken["bare", batch]))
        for profile in PROFILES:
            got, budget = median(taken[profile, batch]), BUDGETS[profile, batch]
            figures.append(Figure(f"{profile}, {said}", got, "rows/s", budget, at_least=True, baseline=baseline))
            figures.append(Figure(f"  lowest of {rounds} rounds, {profile}, {said}", min(taken[profile, batch]), "rows/s"))
            figures.append(Figure(f"  CPU of the daemon a row, {profile}, {said}", median(spent[profile, batch]), "us"))
    notes = [f"{len(SCHEMA.columns)} columns of {SCHEMA.slots} slots a row; the producer's own CPU is on the same cores"]
    print_table("durable ingest of one daemon", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
