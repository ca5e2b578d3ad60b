"""From values ready in the trainer to visible by GET and by SSE: p50 and p99, through the agent's own outbox and link.

A trainer without torch hands over a row every 30 to 80 ms (at random, so that it does not fall into step with the link's
20 ms) and writes down when. A reader asks `GET runs/{run}` again and again, or listens to the stream, and notes when each
update was there first. The baseline is one GET of nothing on the same connection.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from feed import SCHEMA, status_of_row, values_of
from gradwatch_agent.desired import DesiredState
from gradwatch_agent.inbox import Draft, size_of
from gradwatch_agent.link import Link
from gradwatch_agent.outbox import Outbox
from gradwatch_agent.process import identify, resolve_endpoint
from gradwatch_agent.row import Row
from gradwatch_contracts.control import Level
from gradwatch_contracts.messages import Hello
from service import Client, Service
from table import Figure, arguments, median, percentile, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

PACE_MS = (30.0, 80.0)


def trainer(run: str, updates: int) -> None:
    """Hand rows over; one line `update monotonic_ns` each on stdout. Waits for a line on stdin before the first."""
    outbox, desired = Outbox(), DesiredState(Level.NORMAL)
    endpoint, secret = resolve_endpoint("auto", os.environ)
    who = identify(os.environ, host="localhost", pid=os.getpid(), parent_pid=os.getppid())
    started = time.time_ns()
    hello = Hello(run, who.launch_id, who.session, 0, 1, who.host, who.pid, started)
    link = Link(endpoint, secret, lambda: hello, outbox, desired)
    link.start()
    values, status, pace = values_of(np.random.default_rng(5), updates), status_of_row(), random.Random(5)
    sys.stdin.readline()
    for update in range(updates):
        time.sleep(pace.uniform(*PACE_MS) / 1000)
        desired.boundary(update)
        packed = values[update].astype("<f8").tobytes()
        print(update, time.monotonic_ns(), flush=True)
        row = Row(update, time.time_ns(), update * 2048, int(Level.NORMAL), 0, SCHEMA, packed, status)
        outbox.put_draft(Draft(size_of(row), lambda row=row: (row,)))  # type: ignore[misc]
    link.close(5.0)


def seen_by_get(client: Client, run: str, updates: int) -> Iterator[tuple[int, int]]:
    """(update, monotonic ns) whenever a new newest update is answered. Sleeps 1 ms between requests."""
    newest = -1
    while newest < updates - 1:
        document = client.get(f"/api/v1/runs/{run}")
        last = document["update_last"]
        if last is not None and last > newest:
            now = time.monotonic_ns()
            for update in range(newest + 1, last + 1):
                yield update, now
            newest = last
        time.sleep(0.001)


def seen_by_stream(client: Client, run: str, updates: int) -> Iterator[tuple[int, int]]:
    """The same from the `rows` events of the stream."""
    with client.stream(f"/api/v1/stream?topics=rows&runs={run}") as response:
        yield -1, 0  # open: the trainer may begin
        event = ""
        for raw in response:
            line = raw.decode()
            if line.startswith("event: "):
                event = line[7:].strip()
            elif line.startswith("data: ") and event == "rows":
                now, document = time.monotonic_ns(), json.loads(line[6:])
                for update in range(document["update_first"], document["update_last"] + 1):
                    yield update, now
                if document["update_last"] >= updates - 1:
                    return


def delays_ms(service: Service, way: str, run: str, updates: int) -> list[float]:
    """One trainer and one reader; the delay of every update."""
    command = [sys.executable, __file__, "--trainer", run, str(updates)]
    process = subprocess.Popen(
        command, env=service.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=service.home
    )
    client = Client(service.connection)
    while client.status(f"/api/v1/runs/{run}") != 200:  # the link is live once the run is known
        time.sleep(0.02)
    found = seen_by_get(client, run, updates) if way == "GET" else seen_by_stream(client, run, updates)
    if way == "SSE":
        next(found)
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the trainer has no pipes")
    process.stdin.write("go\n")
    process.stdin.flush()
    seen = dict(found)
    ready = dict(map(int, line.split()) for line in process.stdout)
    process.wait(30)
    return [(seen[update] - at) / 1e6 for update, at in ready.items()]


def main() -> None:
    """Print the table, or be the trainer."""
    if sys.argv[1:2] == ["--trainer"]:
        trainer(sys.argv[2], int(sys.argv[3]))
        return
    args = arguments(__doc__).parse_args()
    rounds, updates = (1, 40) if args.quick else (4, 200)
    taken: dict[str, list[list[float]]] = {"GET": [], "SSE": []}
    floor = []
    with Service() as service:
        for number in range(rounds):
            floor += Client(service.connection).time_us("/livez", 100)
            for way, found in taken.items():
                found.append(delays_ms(service, way, f"bench-{way.lower()}-{number}", updates))
    baseline = ("GET /livez p50", median(floor) / 1e3)
    figures = []
    for way, found in taken.items():
        every = [delay for delays in found for delay in delays]
        figures.append(Figure(f"visible by {way}, p50", median(every), "ms", 20.0, baseline=baseline))
        figures.append(Figure(f"visible by {way}, p99", percentile(every, 0.99), "ms", 100.0, baseline=baseline))
        figures.append(Figure(f"  slowest, {way}", max(every), "ms"))
    notes = [f"{rounds} rounds of {updates} updates each; the link sends every 20 ms, so 10 ms of p50 is its own wait"]
    print_table("values ready to visible", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
