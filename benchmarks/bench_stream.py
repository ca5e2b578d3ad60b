"""100 clients on `GET stream` while 50 updates a second come in: how long until an anomaly is at each, and what they miss.

Ten trainers send a row every 200 ms each, so that up to 50 `rows` and 50 `run` events a second go to every client; every third
update of the first holds a NaN, which makes an anomaly. The clients are in a process of their own and read without parsing. The
baseline is the same with one client, in the same run.
"""

from __future__ import annotations

import re
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from feed import Feed, frames, slots_of, values_of
from gradwatch_contracts.connection import Connection
from service import Service
from table import Figure, arguments, percentile, print_table

TRAINERS = 10
PACE_S = 0.02
FAULT_EVERY = 3
SETTLE_S = 3.0
"""Between the last commit and the end of listening."""

ANOMALY = re.compile(rb'event: anomaly\ndata: [^\n]*?"run":"clients-\d+-0"[^\n]*?"update_last":(\d+)')


def listen(connection: Connection, clients: int) -> None:
    """Open the streams, say so, read until a line comes on stdin; then print `client update ns` and `events N`."""
    address = urlsplit(connection.url)
    token = Path(connection.token_file).read_text().strip()
    ask = f"GET /api/v1/stream HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    readers, waiting = selectors.DefaultSelector(), {}
    for client in range(clients):
        stream = socket.create_connection((address.hostname or "", address.port or 0))
        stream.sendall(ask)
        readers.register(stream, selectors.EVENT_READ, client)
        waiting[client] = b""
    print("ready", flush=True)
    readers.register(sys.stdin, selectors.EVENT_READ)
    found, events, over = [], 0, False
    while not over:
        for key, _ in readers.select():
            if key.fileobj is sys.stdin:
                over = True
                continue
            part = key.fileobj.recv(65536) if isinstance(key.fileobj, socket.socket) else b""
            now = time.monotonic_ns()
            whole, _, waiting[key.data] = (waiting[key.data] + part).rpartition(b"\n\n")
            events += whole.count(b"\nevent: rows\n") + whole.count(b"\nevent: run\n")
            found += [(key.data, int(update), now) for update in ANOMALY.findall(whole)]
            if not part:
                raise RuntimeError(f"stream {key.data} was ended")
    print("\n".join(f"{client} {update} {at}" for client, update, at in found))
    print(f"events {events}", flush=True)


def measure(service: Service, clients: int, updates: int) -> tuple[list[float], float, int]:
    """Latencies of anomalies in us over all clients, row events a client and second, and anomalies that somebody missed."""
    command = [sys.executable, __file__, "--listen", service.connection.to_json(), str(clients)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        if reader.stdin is None or reader.stdout is None:
            raise RuntimeError("the clients have no pipes")
        reader.stdout.readline()
        values = values_of(np.random.default_rng(clients), updates // TRAINERS)
        healthy = frames(values, 1)
        faulty = list(range(FAULT_EVERY, len(values), FAULT_EVERY))
        values[faulty, slots_of("reward.step.nonfinite")] = 3.0
        ready = [frames(values, 1), *[healthy] * (TRAINERS - 1)]
        feeds = [Feed(service.connection, f"clients-{clients}-{number}") for number in range(TRAINERS)]
        sent, start = {}, time.perf_counter()
        for number in range(updates):
            feed, at = feeds[number % TRAINERS], number // TRAINERS
            while (left := start + number * PACE_S - time.perf_counter()) > 0:
                feed.listen(max(1, int(left * 1000)))
            if feed is feeds[0]:
                sent[at] = time.monotonic_ns()
            feed.send(*ready[number % TRAINERS][at])
        for feed in feeds:
            feed.wait(len(values) - 1)
        took = time.perf_counter() - start
        time.sleep(SETTLE_S)
        reader.stdin.write("over\n")
        reader.stdin.flush()
        lines = reader.stdout.read().splitlines()
        for feed in feeds:
            feed.close()
    first: dict[tuple[int, int], int] = {}
    for client, update, at in (map(int, line.split()) for line in lines[:-1] if line):
        first.setdefault((client, update), at)
    missed = sum((client, update) not in first for client in range(clients) for update in faulty)
    taken = [(at - sent[update]) / 1e3 for (_, update), at in first.items() if update in faulty]
    return taken, int(lines[-1].split()[1]) / clients / took, missed


def main() -> None:
    """Print the table, or be the clients."""
    if sys.argv[1:2] == ["--listen"]:
        listen(Connection.from_json(sys.argv[2]), int(sys.argv[3]))
        return
    args = arguments(__doc__).parse_args()
    updates = 250 if args.quick else 1500
    with Service() as service:
        alone, _, _ = measure(service, 1, updates)
        cpu, began = service.cpu_s(), time.perf_counter()
        taken, rate, missed = measure(service, 100, updates)
        share = (service.cpu_s() - cpu) / (time.perf_counter() - began)
    baseline = ("one client, p99", percentile(alone, 0.99) / 1e3)
    figures = [
        Figure("anomaly sent to at each of 100 clients, p50", percentile(taken, 0.5) / 1e3, "ms", baseline=baseline),
        Figure("the same, p99", percentile(taken, 0.99) / 1e3, "ms", 100.0, baseline=baseline),
        Figure("other events at each client", rate, "1/s", 50.0, at_least=True),
        Figure("anomalies that a client missed", missed, "", 0.0),
        Figure("CPU of the daemon", 100 * share, "% of a core"),
    ]
    print_table("100 clients on the stream", figures, notes=[f"{len(taken):,} anomalies received"], args=args)


if __name__ == "__main__":
    main()
