"""What `step()` with 40 host scalars costs in a busy trainer: p50 and p99 in us, with a daemon and without one.

Each contestant runs in a fresh process with torch imported, taking turns with the others: 2 ms of pure Python that keeps the
interpreter busy (harsher on our thread than torch, which lets go of it), then the call. The baselines are one flushed JSON
line per step and a call that does nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from service import Service
from table import Figure, arguments, median, percentile, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

SCALARS = 40
GAP_S = 0.002
CONTESTANTS = ("with a daemon", "without a daemon", "JSON line", "no-op")


def contestant(name: str, folder: str) -> Callable[[int, dict[str, float]], None]:
    """What is called once a step with its number and its scalars."""
    if name == "no-op":
        return lambda step, scalars: None
    if name == "JSON line":
        lines = open(f"{folder}/steps.jsonl", "w", buffering=1, encoding="ascii")  # noqa: SIM115 - closed with the process

        def write(step: int, scalars: dict[str, float]) -> None:
            lines.write(json.dumps({"step": step, **scalars}) + "\n")

        return write
    from gradwatch_agent import watch  # noqa: PLC0415 - the other contestants must not pay for it

    mon = watch(run=f"bench-{os.getpid()}")

    def step(number: int, scalars: dict[str, float]) -> None:
        mon.step(env_steps=number, **scalars)

    return step


def measure(name: str, steps: int) -> list[float]:
    """Times of the call in us. The first second is not counted: the link connects, and tells once that nobody is there."""
    import torch  # noqa: F401, PLC0415 - a trainer has it, and our calls look whether it is there

    with tempfile.TemporaryDirectory(prefix="gradwatch-bench-") as folder:
        call = contestant(name, folder)
        warm_up, taken = int(1 / GAP_S), []
        for step in range(warm_up + steps):
            end = time.perf_counter() + GAP_S
            while time.perf_counter() < end:
                pass
            scalars = {f"loss/{i}": step * 0.1 + i for i in range(SCALARS)}
            start = time.perf_counter()
            call(step, scalars)
            taken.append((time.perf_counter() - start) * 1e6)
        return taken[warm_up:]


def main() -> None:
    """Print the table, or be one contestant."""
    if sys.argv[1:2] == ["--contestant"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
        return
    args = arguments(__doc__).parse_args()
    rounds, steps = (1, 200) if args.quick else (4, 1000)
    p50: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    p99: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    with Service() as service, tempfile.TemporaryDirectory(prefix="gradwatch-bench-") as nobody:
        for _ in range(rounds):
            for name in CONTESTANTS:
                environment = dict(service.environment)
                if name == "without a daemon":
                    environment |= {"GRADWATCH_RUNTIME_DIR": nobody, "GRADWATCH_ENDPOINT": f"ipc://{nobody}/nobody.ipc"}
                command = [sys.executable, __file__, "--contestant", name, str(steps)]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise RuntimeError(done.stderr)
                taken = json.loads(done.stdout)
                p50[name].append(median(taken))
                p99[name].append(percentile(taken, 0.99))
    line50, line99 = ("JSON line", median(p50["JSON line"])), ("JSON line", median(p99["JSON line"]))
    figures = []
    for name in CONTESTANTS[:2]:
        figures.append(Figure(f"step() {name}, p50", median(p50[name]), "us", 20.0, baseline=line50))
        figures.append(Figure(f"step() {name}, p99", median(p99[name]), "us", 250.0, baseline=line99))
    figures += [Figure(f"{name}, p50", median(p50[name]), "us") for name in CONTESTANTS[2:]]
    figures += [Figure(f"{name}, p99", median(p99[name]), "us") for name in CONTESTANTS[2:]]
    notes = [f"{rounds} rounds of {steps} steps each, {SCALARS} scalars, {GAP_S * 1000:.0f} ms between them"]
    print_table("step() with host scalars", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
