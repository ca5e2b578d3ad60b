"""What watching adds to an update, beside other loggers: per cent of an unwatched update, with 95 % interval.

Each contestant is a process of its own that stays alive; all of them, and one that nobody watches, train the same thing from
the same seed, a few updates at a time, in an order that changes, so that a turn is compared with the unwatched turn beside it.
gradwatch sees gradients, weights and, where it is PPO, every minibatch; the others are handed 40 ready numbers an update, and
`wandb.watch` the gradients of every step. Stable-Baselines3 trains by its own `learn`, watched by our callback. CPU is that of
the trainer's process with all its threads; what its children take, or our daemon, is a line of its own, over the whole time:
also what they take for nothing while others have their turn. Memory is resident.

Each table takes the same time on any machine. Needs the extra `bench`; what is not installed is said and left out. Where not
all trainers fit into memory at once, they race in pairs with the unwatched one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contestants import BUSY_S, CALLS, CNN, LARGE, LEVELS, LOGGERS, MLP, PPO, SB3, SCALARS, UNWATCHED, WATCH_EACH
from paired import added_percent, interval, rounds
from service import Service
from table import Figure, arguments, median, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Race:
    """How one training is measured: updates in a turn, seconds that it goes on, GiB that one process of it takes."""

    turn: int
    seconds: float
    gib: float = 0.7


RACES = {
    CALLS: Race(60, 40),
    PPO: Race(4, 150),
    SB3: Race(2, 110),
    MLP: Race(25, 50),
    CNN: Race(3, 70),
    LARGE: Race(1, 110, gib=2.2),
}
"""Whole PPO runs have a budget of 1 %, so they get most of the time."""

WARM_UP = 3
"""Turns that are not counted."""

LEAST = 6
"""Turns that are counted however slow the machine."""

ADDED_MAX = {"gradwatch NORMAL": 1.0, "gradwatch DEBUG": 5.0}
CALLS_MS_MAX = {"gradwatch NORMAL": 1.0}


@dataclass(slots=True)
class Found:
    """What one contestant has shown. `turns`: its answers; `cpu_s` of other processes over these turns; MiB."""

    turns: list[dict[str, Any]] = field(default_factory=list)
    reads: int = 0
    digest: str = ""
    rss_mib: float = 0.0
    others: int = 0
    others_mib: float = 0.0
    others_cpu_s: float = 0.0

    def column(self, name: str) -> list[list[float]]:
        """One value of each turn, as rounds."""
        return [[turn[name]] for turn in self.turns]


class Contestant:
    """One trainer process, ours with a daemon of its own."""

    def __init__(self, name: str, shape: str) -> None:
        self.name, self.found = name, Found()
        self._service = Service() if name in LEVELS else None
        environment = self._service.__enter__().environment if self._service else os.environ
        command = [sys.executable, str(Path(__file__).with_name("contestants.py")), name, shape]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it goes with the contestant
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._said}
        self._process = subprocess.Popen(command, env=environment, text=True, **pipes)

    def ask(self, order: str) -> Any:
        """Give an order and wait for its answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("a contestant has no pipes")
        stdin.write(f"{order}\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            self._said.seek(0)
            raise RuntimeError(f"{self.name} ended early:\n{self._said.read().decode(errors='replace')[-2000:]}")
        return json.loads(answer)

    def others(self) -> list[int]:
        """Processes beside the trainer that its logger needs: children, or our daemon."""
        return [self._service.pid] if self._service else descendants(self._process.pid)

    def look(self) -> None:
        """Memory now, of the trainer and of the others."""
        self.found.rss_mib, others = rss_mib(self._process.pid), self.others()
        self.found.others, self.found.others_mib = len(others), sum(map(rss_mib, others))

    def finish(self, trained: bool) -> None:
        """Count what it reads, ask what its parameters are, and let it go."""
        if trained:
            self.found.reads, self.found.digest = self.ask("count 1")["reads"], self.ask("end")["digest"]
        self._process.communicate()

    def kill(self) -> None:
        """End it at once; the children of others end with it."""
        self._process.kill()
        self._process.wait()
        if self._service:
            self._service.__exit__(None, None, None)


def descendants(pid: int) -> list[int]:
    """Children of a process, and theirs (Linux)."""
    found: list[int] = []
    for parent in [pid, *found]:
        for file in Path(f"/proc/{parent}/task").glob("*/children"):
            for child in map(int, file.read_text().split()):
                found += [child, *descendants(child)]
    return found


def rss_mib(pid: int) -> float:
    """Resident memory (Linux); 0 of one that is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far (Linux); 0 of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(shape: str, names: Sequence[str], seconds: float, quick: bool) -> dict[str, Found]:
    """Let them take turns for so long."""
    turn = f"time {1 if quick and shape == LARGE else RACES[shape].turn}"
    contestants: list[Contestant] = []
    try:
        contestants += [Contestant(name, shape) for name in names]
        for contestant in contestants:
            for _ in range(1 if quick else WARM_UP):
                contestant.ask(turn)
        before = {one.name: sum(map(cpu_s, one.others())) for one in contestants}
        for number in rounds(0.0 if quick else seconds, 2 if quick else LEAST):
            for contestant in random.Random(number).sample(contestants, len(contestants)):
                contestant.found.turns.append(contestant.ask(turn))
        time.sleep(1.0)  # what is still on its way to another process
        for contestant in contestants:
            contestant.found.others_cpu_s = sum(map(cpu_s, contestant.others())) - before[contestant.name]
            contestant.look()
        for contestant in contestants:
            contestant.finish(shape != CALLS)
    finally:
        for contestant in contestants:
            contestant.kill()
    return {contestant.name: contestant.found for contestant in contestants}


def groups(shape: str, names: Sequence[str]) -> list[list[str]]:
    """All at once if they fit into what memory is free, else each beside the unwatched one."""
    free = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAv"))
    if RACES[shape].gib * (len(names) + 1) < free / 2**20:
        return [[UNWATCHED, *names]]
    return [[UNWATCHED, name] for name in names]


def of_training(shape: str, name: str, found: Found, off: Found) -> list[Figure]:
    """What one logger adds to one training."""
    ours, updates = name in LEVELS, len(found.turns) * RACES[shape].turn
    figures = []
    for clock in ("wall", "cpu"):
        added = added_percent(found.column(clock), off.column(clock))
        limit = ADDED_MAX.get(name) if clock == "wall" else None
        figures.append(added.figure(f"{shape}: {name}, {'CPU' if clock == 'cpu' else clock} added", "%", limit))
    if shape == PPO:
        calls = interval([[turn["calls"] / RACES[shape].turn * 1e3] for turn in found.turns])
        share = interval([[turn["calls"] / alone["wall"] * 100] for turn, alone in zip(found.turns, off.turns, strict=True)])
        figures.append(calls.figure(f"  in its calls, an update, {name}", "ms", CALLS_MS_MAX.get(name)))
        figures.append(share.figure(f"  of an unwatched update, {name}", "%", ADDED_MAX.get(name)))
    if ours or found.reads != off.reads:
        reads = found.reads - off.reads
        figures.append(Figure(f"  values read one by one, an update, {name}", reads, "", 0.0 if ours else None))
    if shape == MLP:
        figures.append(Figure(f"  memory added, {name}", found.rss_mib - off.rss_mib, "MiB", 8.0 if ours else None))
    kind = "the daemon" if ours else f"{found.others} processes beside it"
    if found.others:
        figures.append(Figure(f"  CPU of {kind}, an update, {name}", found.others_cpu_s / updates * 1e3, "ms"))
        if shape == MLP:
            figures.append(Figure(f"  memory of {kind}, {name}", found.others_mib, "MiB"))
    return figures


def race(shape: str, names: Sequence[str], quick: bool) -> tuple[list[Figure], list[str]]:
    """Figures and notes of one training."""
    figures: list[Figure] = []
    parts, walls, differing, turns = groups(shape, names), [], 0, 0
    for part in parts:
        found = run(shape, part, RACES[shape].seconds / len(parts), quick)
        off = found.pop(UNWATCHED)
        walls += [turn["wall"] / RACES[shape].turn for turn in off.turns]
        turns += len(off.turns)
        differing += sum(one.digest != off.digest for one in found.values())
        for name, one in found.items():
            figures += of_training(shape, name, one, off)
    figures.append(Figure("contestants whose parameters differ at the end", differing, "", 0.0))
    said = f"{turns} turns of {RACES[shape].turn} updates of each, one torch thread; an unwatched update takes"
    pairs = ["; memory is short: each contestant beside an unwatched one of its own"] if len(parts) > 1 else []
    notes = [f"{said} {median(walls) * 1e3:.1f} ms{''.join(pairs)}"]
    notes.append(
        "values read one by one (0 where not said): on a GPU each is a copy and a wait; there we copy once an update (gpu.py)"
    )
    notes.append("CPU of other processes is that of the whole race, also while others had their turn")
    return figures, notes


def calls(names: Sequence[str], quick: bool) -> tuple[list[Figure], list[str]]:
    """What handing over 40 scalars takes."""
    alone = [name for name in names if name not in (WATCH_EACH, "gradwatch DEBUG")]
    found = run(CALLS, alone, RACES[CALLS].seconds, quick)
    figures = []
    for name in alone:
        taken = [turn["calls_us"] for turn in found[name].turns]
        for share, limit in ((50, 20.0), (99, 250.0)):
            at = interval(taken, partial(np.percentile, q=share))
            figures.append(at.figure(f"{SCALARS} scalars: {name}, p{share}", "us", limit if name in LEVELS else None))
    turns = len(found[alone[0]].turns)
    return figures, [f"{turns} turns of {RACES[CALLS].turn} calls, {BUSY_S * 1e3:.0f} ms of Python before each"]


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=RACES, help="one of the tables")
    args = parser.parse_args()
    names = [name for name, module in LOGGERS.items() if _there(module)]
    absent = [name for name in LOGGERS if name not in names] + ([] if _there("stable_baselines3") else [SB3])
    trained = [shape for shape in RACES if shape != SB3 or _there("stable_baselines3")]
    for shape in [args.only] if args.only else trained:
        figures, notes = calls(names, args.quick) if shape == CALLS else race(shape, names, args.quick)
        if absent:
            notes.append(f"not installed: {', '.join(absent)}")
        print_table(f"beside other loggers: {shape}", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
