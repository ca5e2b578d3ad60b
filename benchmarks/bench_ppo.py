"""Whole runs of the demo's PPO trainer, paired: off, NORMAL, DEBUG. Wall and CPU ratio with interval; equal parameters.

One process per mode stays alive and trains again and again, taking turns with the others in an order that changes. The seed
is the same and so is every update of every run, hence update k of one mode is compared with update k of `off` in the same
round. The first update is left out; imports, `watch` and `close` are not in it, and what `close` takes is said apart. CPU is of
the whole trainer process, with our sender thread. The parameters at the end are compared bit by bit (SHA-256).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from paired import added_percent, quietest, rounds
from service import Service
from table import Figure, arguments, median, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

MODES = {
    "off": {"GRADWATCH_MODE": "off"},
    "NORMAL": {"GRADWATCH_LEVEL": "normal"},
    "DEBUG": {"GRADWATCH_LEVEL": "debug"},
}
SHAPE = ["--num-envs", "4", "--num-steps", "128", "--seed", "1"]
BUDGET_PERCENT = {"NORMAL": 1.0, "DEBUG": 5.0}
ROUNDS_S, UPDATES = 230.0, 41
"""So long do they take turns, and so many updates are a run."""


class Marks:
    """Takes the trainer's own line per update as a mark on the clocks."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def write(self, line: str) -> None:
        """One finished update."""
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def flush(self) -> None:
        """Nothing is held back."""


def trainer() -> None:
    """Train once for every line `run updates` on stdin; answer with a line of JSON."""
    from gradwatch_agent.demo import ppo_cartpole  # noqa: PLC0415 - the parent must not load torch

    models: list[Any] = []

    class Kept(ppo_cartpole.Agent):
        """The trainer's own network, kept to look at its parameters afterwards."""

        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            models.append(self)

    ppo_cartpole.Agent = Kept  # type: ignore[misc]  # the trainer makes its network by this name
    for line in sys.stdin:
        run, updates = line.split()
        marks = Marks()
        ppo_cartpole.train(ppo_cartpole.parse_args([*SHAPE, "--run", run, "--updates", updates]), marks)  # type: ignore[arg-type]
        ended = time.perf_counter()
        digest = hashlib.sha256()
        for parameter in models.pop().parameters():
            digest.update(parameter.detach().numpy().tobytes())
        answer = {
            "wall": steps(marks.wall),
            "cpu": steps(marks.cpu),
            "close": ended - marks.wall[-1],
            "hash": digest.hexdigest(),
        }
        print(json.dumps(answer), flush=True)


def steps(marks: Sequence[float]) -> list[float]:
    """Seconds of each update but the first."""
    return [after - before for before, after in itertools.pairwise(marks)]


def collect(seconds: float, updates: int) -> dict[str, list[dict[str, Any]]]:
    """All modes in turns for so long; the first round warms up and is dropped."""
    found: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    with Service() as service:
        command = [sys.executable, __file__, "--trainer"]
        processes = {
            mode: subprocess.Popen(
                command, env={**service.environment, **extra}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for mode, extra in MODES.items()
        }
        order = list(MODES)
        for number in rounds(seconds, 3):
            random.Random(number).shuffle(order)
            for mode in order:
                stdin, stdout = processes[mode].stdin, processes[mode].stdout
                if stdin is None or stdout is None:
                    raise RuntimeError("a trainer has no pipes")
                stdin.write(f"{mode.lower()}-{number} {updates}\n")
                stdin.flush()
                answer = json.loads(stdout.readline())
                if number:
                    found[mode].append(answer)
        for process in processes.values():
            process.communicate(timeout=30)
    return found


def main() -> None:
    """Print the table, or be a trainer."""
    if sys.argv[1:2] == ["--trainer"]:
        trainer()
        return
    args = arguments(__doc__).parse_args()
    seconds, updates = (0.0, 4) if args.quick else (ROUNDS_S, UPDATES)
    found = collect(seconds, updates)
    figures = []
    for mode, limit in BUDGET_PERCENT.items():
        for clock, budget in (("wall", limit), ("cpu", None)):
            mine, off = [run[clock] for run in found[mode]], [run[clock] for run in found["off"]]
            figures.append(added_percent(mine, off).figure(f"{mode}: {clock} time added", "%", budget))
            figures.append(Figure(f"  fastest of all rounds, {mode} {clock}", quietest(mine, off), "%"))
        figures.append(Figure(f"  close(), {mode}", median([run["close"] for run in found[mode]]) * 1e3, "ms"))
    hashes = {run["hash"] for runs in found.values() for run in runs}
    figures.append(Figure("different final parameters over all runs", len(hashes), "", 1))
    update_s = median([seconds for run in found["off"] for seconds in run["wall"]])
    said = f"{len(found['off'])} rounds of {updates - 1} updates of {update_s * 1e3:.0f} ms each (off), 16 minibatches of 128"
    notes = [f"{said}; intervals are of 95 %, whole rounds resampled"]
    print_table("whole PPO runs, paired with the agent off", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
