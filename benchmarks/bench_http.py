"""`GET anomalies?limit=100` on one kept-alive connection: p50 and p99, idle and while 10,000 updates a second come in.

The load is one session at a steady pace, 32 rows every 3.2 ms, from a process of its own; what the daemon committed is
checked against it. The baseline is `GET /livez` on the same connection, idle, in the same round.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from feed import Feed, frames, slots_of, values_of
from gradwatch_contracts.connection import Connection
from service import Client, Service
from table import Figure, arguments, median, percentile, print_table

LISTED = 100
RATE = 10_000
BATCH = 32
PATH = f"/api/v1/anomalies?limit={LISTED}"


def plant(connection: Connection, runs: int) -> None:
    """One run after the other, each with rewards that are NaN in one update and a KL far beyond any limit in others."""
    values = values_of(np.random.default_rng(2), 64)
    values[40, slots_of("reward.step.nonfinite")] = 3.0
    values[20:30, slots_of("policy.kl.k3").start + 1] = 2.0
    ready = frames(values, BATCH)
    for number in range(runs):
        feed = Feed(connection, f"planted-{number}")
        for last_seq, frame in ready:
            feed.send(last_seq, frame)
        feed.wait(len(values) - 1)
        feed.close()


def load(connection: Connection, run: str, seconds: float) -> None:
    """Send at `RATE` for so long; prints the rate at which rows were committed."""
    ready = frames(values_of(np.random.default_rng(4), int(RATE * seconds)), BATCH)
    feed = Feed(connection, run)
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    for number, (last_seq, frame) in enumerate(ready):
        due = start + number * BATCH / RATE
        while (left := due - time.perf_counter()) > 0:
            feed.listen(max(1, int(left * 1000)))
        feed.send(last_seq, frame)
    feed.wait(ready[-1][0])
    print((ready[-1][0] + 1) / (time.perf_counter() - start))
    feed.close()


def under_load(service: Service, client: Client, run: str, seconds: float) -> tuple[list[float], float]:
    """Latencies in us while the load runs, and the rate it had."""
    command = [sys.executable, __file__, "--load", service.connection.to_json(), run, str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the load has no pipes")
    process.stdout.readline()
    process.stdin.write("go\n")
    process.stdin.flush()
    end = time.perf_counter() + seconds
    taken = []
    while time.perf_counter() < end:
        taken += client.time_us(PATH, 1)
        time.sleep(0.002)  # a person's or a script's request now and then, not a second load
    rate = float(process.stdout.readline())
    process.wait(30)
    return taken, rate


def main() -> None:
    """Print the table, or be the load."""
    if sys.argv[1:2] == ["--load"]:
        load(Connection.from_json(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
        return
    args = arguments(__doc__).parse_args()
    rounds, times, seconds = (1, 50, 2.0) if args.quick else (4, 300, 6.0)
    floor: list[float] = []
    idle: list[float] = []
    busy: list[float] = []
    rates = []
    with Service() as service:
        plant(service.connection, 12 if args.quick else LISTED)
        client = Client(service.connection)
        listed = len(client.get(PATH)["items"])
        size = len(client.read(PATH))
        for number in range(rounds):
            floor += client.time_us("/livez", times)
            idle += client.time_us(PATH, times)
            taken, rate = under_load(service, client, f"load-{number}", seconds)
            busy += taken
            rates.append(rate)
    baseline = ("GET /livez, idle, p50", median(floor) / 1e3)
    figures = []
    for name, found in (("idle", idle), (f"at {median(rates):,.0f} updates/s", busy)):
        p99 = percentile(found, 0.99) / 1e3
        figures.append(Figure(f"list of {listed} anomalies, {name}, p50", median(found) / 1e3, "ms", baseline=baseline))
        figures.append(Figure(f"list of {listed} anomalies, {name}, p99", p99, "ms", 10.0, baseline=baseline))
    figures.append(Figure("updates committed a second under load", median(rates), "rows/s", RATE * 0.97, at_least=True))
    notes = [f"{size:,} bytes of JSON; {len(idle)} requests idle, {len(busy)} under load"]
    print_table("a list of anomalies over HTTP", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
