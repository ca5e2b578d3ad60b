"""How long a command takes: `--help`, `version`, `status` and `top --once`, in turns with a bare Python.

Each is a fresh process, as a shell starts it. `status` and `top` ask a daemon that holds a hundred runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

from feed import Feed, frames, values_of
from service import Service
from table import Figure, arguments, median, percentile, print_table

RUNS = 100
BARE = "bare Python"
COMMANDS: dict[str, tuple[tuple[str, ...], float | None]] = {
    "gradwatch --help": (("--help",), 150.0),
    "gradwatch version": (("version",), None),
    "gradwatch status": (("status", "--all"), 300.0),
    "gradwatch top --once": (("top", "--once"), None),
}


def fill(service: Service) -> None:
    """A hundred runs of five updates each."""
    [(last, frame)] = frames(values_of(np.random.default_rng(0), 5), 5)
    for number in range(RUNS):
        feed = Feed(service.connection, f"run-{number}")
        feed.send(last, frame)
        feed.wait(last)


def taken_ms(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU time of one process, start to end. Other users of the machine move the first far more than the second."""
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        wall = (time.perf_counter() - began) * 1e3
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return wall, (usage.ru_utime + usage.ru_stime) * 1e3


def main() -> None:
    """Print the table."""
    args = arguments(__doc__).parse_args()
    rounds = 3 if args.quick else 20
    code = "import sys; from gradwatch_daemon.cli.main import main; sys.exit(main())"  # as the console script does it
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in (BARE, *COMMANDS)}
    with Service() as service:
        fill(service)
        environment = {**os.environ, **service.environment}
        for _ in range(rounds):
            taken[BARE].append(taken_ms([sys.executable, "-c", "pass"], environment))
            for name, (words, _) in COMMANDS.items():
                taken[name].append(taken_ms([sys.executable, "-c", code, *words], environment))
    wall, cpu = ({name: [one[place] for one in found] for name, found in taken.items()} for place in (0, 1))
    figures = []
    for name, (_, budget) in COMMANDS.items():
        figures.append(Figure(f"{name}, p50", median(wall[name]), "ms", budget, baseline=(BARE, median(wall[BARE]))))
        figures.append(Figure(f"{name}, p90", percentile(wall[name], 0.9), "ms"))
        figures.append(Figure("  CPU, p50", median(cpu[name]), "ms", baseline=(f"{BARE}, CPU", median(cpu[BARE]))))
    print_table("commands", figures, notes=[f"{rounds} processes each; {RUNS} runs in the daemon"], args=args)


if __name__ == "__main__":
    main()
