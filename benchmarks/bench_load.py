"""One daemon under load: many sessions, all coming back at once, a flooding neighbour, streams nobody reads, days of updates.

Trainers are made up (`crowd.py`) and share the cores with the daemon. The bare limit beside the latencies is a ROUTER that
writes each frame as a blob into SQLite, one transaction for what waits, and acks: raw ZeroMQ and raw SQLite, in turns with the
daemon in the same run.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from bench_ingest import rate
from crowd import Crowd, bare, flood
from gradwatch_contracts.connection import Connection
from service import Client, Service
from table import Figure, arguments, median, percentile, print_table

PACED = 10
"""Trainers of the latency rows: 100 updates a second each, 1,000 together."""

SLOW_READERS = 50

SETTLE_S = 12.0
"""Until what a burst of frames took is given back."""

PARTS = ("delays", "sessions", "days")


def rss_mb(service: Service) -> float:
    """Resident memory of the daemon."""
    status = Path(f"/proc/{service.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def latencies(service: Service, seconds: float, rounds: int) -> list[Figure]:
    """From the end of an update to its commit, alone and beside a flood, and at the bare limit."""
    endpoint = f"ipc://{service.home / 'bare.ipc'}"
    threading.Thread(target=bare, args=(endpoint, str(service.home / "bare.db")), daemon=True).start()
    targets = {"bare": Connection(endpoint, "", "", "", 0), "daemon": service.connection}
    taken: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, connection in targets.items():
            crowd = Crowd(connection, f"paced-{name}-{number}", PACED)
            crowd.greet()
            taken.setdefault(name, []).extend(crowd.pace(seconds))
            crowd.close()
        command = [sys.executable, __file__, "--flood", service.connection.to_json(), f"flood-{number}"]
        hostile = subprocess.Popen(command)
        try:
            time.sleep(1.0)
            crowd = Crowd(service.connection, f"beside-{number}", PACED)
            crowd.greet()
            taken.setdefault("flood", []).extend(crowd.pace(seconds))
            crowd.close()
        finally:
            hostile.kill()
            hostile.wait()
        time.sleep(2.0)  # what the flood left in queues
    p50, p99 = ("the bare limit", median(taken["bare"])), ("the bare limit", percentile(taken["bare"], 0.99))
    return [
        Figure("update's end to committed, 1,000 updates/s, p50", median(taken["daemon"]), "ms", baseline=p50),
        Figure("the same, p99", percentile(taken["daemon"], 0.99), "ms", 80.0, baseline=p99),
        Figure("  beside a session that floods, p50", median(taken["flood"]), "ms", baseline=p50),
        Figure("  beside a session that floods, p99", percentile(taken["flood"], 0.99), "ms", baseline=p99),
    ]


def slow_readers(service: Service, seconds: float) -> list[Figure]:
    """Streams that nobody reads: what they cost in memory, and what they cost the trainers."""
    before = rss_mb(service)
    clients = [Client(service.connection) for _ in range(SLOW_READERS)]
    streams = [client.stream("/api/v1/stream") for client in clients]
    crowd = Crowd(service.connection, "unread", PACED)
    crowd.greet()
    delays = crowd.pace(seconds)
    crowd.close()
    after = rss_mb(service)
    for stream in streams:
        stream.close()
    return [
        Figure(
            f"update's end to committed beside {SLOW_READERS} streams nobody reads, p99", percentile(delays, 0.99), "ms", 80.0
        ),
        Figure("  memory that they cost", after - before, "MB"),
    ]


def many(sessions: int, at_once: int) -> list[Figure]:
    """Sessions of one daemon, each a run of its own with all its detectors; and all coming back after it was killed."""
    with Service() as service:
        empty = rss_mb(service)
        crowd = Crowd(service.connection, "many", sessions)
        greeted = crowd.greet()
        start, cpu = time.perf_counter(), service.cpu_s()
        crowd.push(2)
        pushed, cpu = time.perf_counter() - start, service.cpu_s() - cpu
        lost = sum(member.greeted_again for member in crowd.members)
        settled = time.perf_counter() + SETTLE_S
        crowd.until(lambda: time.perf_counter() > settled)
        full = rss_mb(service)
        crowd.close()
    with Service() as service:
        crowd = Crowd(service.connection, "back", at_once)
        crowd.greet()
        crowd.push(2)
        service.kill_and_start()
        returned = crowd.greet()
        start = time.perf_counter()
        for member in crowd.members:
            last_seq, frame = crowd.ready[32][2]
            member.send(last_seq, frame, [start])
        crowd.until(lambda: not any(member.made for member in crowd.members))
        acked = time.perf_counter() - start
        behind = sum(member.acked != last_seq for member in crowd.members)
        crowd.close()
    return [
        Figure(f"memory with {sessions} sessions, 64 updates each", full, "MB", 200.0, baseline=("an idle daemon", empty)),
        Figure(f"  {sessions} greet at once, until the last is welcome", greeted, "s"),
        Figure("  until 64 updates of each are committed", pushed, "s"),
        Figure("  CPU of the daemon for it", cpu, "s"),
        Figure("  sessions that were called lost meanwhile", lost, "", 0.0),
        Figure(f"{at_once} come back at once after kill -9, until the last is welcome", returned, "s"),
        Figure("  until 32 updates of each are committed", acked, "s"),
        Figure("  trainers of whom any update is missing", behind, "", 0.0),
    ]


def days(updates: int) -> list[Figure]:
    """A long run at full speed: memory after each quarter."""
    found = []
    with Service() as service:
        for quarter in range(4):
            rate(service.connection, f"long-{quarter}", 32, updates // 4)
            found.append(rss_mb(service))
    said = f"{updates:,} updates at full speed, {updates / 86_400:.1f} days at one a second: memory after all"
    return [Figure(said, found[-1], "MB", baseline=("after the first quarter", found[0]))]


def main() -> None:
    """Print the table, or be the flood."""
    if sys.argv[1:2] == ["--flood"]:
        flood(Connection.from_json(sys.argv[2]), sys.argv[3])
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=PARTS, help="one of the three tables")
    args = parser.parse_args()
    quick, wanted = args.quick, [args.only] if args.only else PARTS
    if "delays" in wanted:
        with Service() as service:
            figures = latencies(service, 2.0 if quick else 8.0, 1 if quick else 3)
            figures += slow_readers(service, 2.0 if quick else 8.0)
        print_table("one daemon under load: delays", figures, args=args)
    if "sessions" in wanted:
        print_table("one daemon under load: sessions", many(100 if quick else 1000, 50 if quick else 500), args=args)
    if "days" in wanted:
        print_table("one daemon under load: days", days(20_000 if quick else 400_000), args=args)


if __name__ == "__main__":
    main()
