"""From kill -9 of a trainer until HTTP says that the run is lost, beside the time that trainer takes for an update.

A trainer of host scalars with an update every 0.5 s on the daemon's machine; fourteen updates, so that its rhythm is known,
then SIGKILL and a GET every millisecond. The baseline is what heartbeats alone would take: 6 s.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from gradwatch_agent import watch
from gradwatch_contracts import limits
from service import Client, Service
from table import Figure, arguments, median, print_table

RHYTHM_S = 0.5
UPDATES = 14


def trainer(run: str) -> None:
    """Train until killed."""
    mon = watch(run=run)
    while True:
        time.sleep(RHYTHM_S)
        mon.step(x=1.0)


def found_s(service: Service, run: str) -> float:
    """Seconds from the kill to the answer that says lost."""
    command = [sys.executable, __file__, "--trainer", run]
    client = Client(service.connection)
    with subprocess.Popen(command, env=service.environment, cwd=service.home, stderr=subprocess.DEVNULL) as process:
        while client.status(f"/api/v1/runs/{run}") != 200 or (client.get(f"/api/v1/runs/{run}")["update_last"] or 0) < UPDATES:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        begin = time.monotonic()
        while client.get(f"/api/v1/runs/{run}")["state"] != "lost":
            time.sleep(0.001)
        return time.monotonic() - begin


def main() -> None:
    """Print the table, or be the trainer."""
    if sys.argv[1:2] == ["--trainer"]:
        trainer(sys.argv[2])
        return
    args = arguments(__doc__).parse_args()
    rounds = 1 if args.quick else 5
    with Service() as service:
        taken = [found_s(service, f"bench-{number}") for number in range(rounds)]
    heartbeats = ("heartbeats alone", limits.HEARTBEAT_S * limits.HEARTBEATS_MISSED_MAX)
    figures = [
        Figure("killed to lost, median", median(taken), "s", 3 * RHYTHM_S, baseline=heartbeats),
        Figure("  slowest", max(taken), "s", 3 * RHYTHM_S, baseline=heartbeats),
    ]
    notes = [f"{rounds} trainers with an update every {RHYTHM_S} s; the budget is 3 of these"]
    print_table("how soon a killed trainer is found", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
