"""What every benchmark prints: the machine in one line, then one row per figure with its budget and its ratio to a baseline.

A baseline is something measured in the same run, in turns with the figure: absolute times move with the machine and its other
users, ratios much less. With `--write` the table also goes into docs/budgets.json, of which `page.py` makes docs/budgets.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "budgets.json"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `budget` is the most it may be, or the least where `at_least`; None for a figure without one.

    `baseline` is (name, value in the same unit); `interval` holds the true value in 95 of 100 cases.
    """

    name: str
    got: float
    unit: str
    budget: float | None = None
    at_least: bool = False
    baseline: tuple[str, float] | None = None
    interval: tuple[float, float] | None = None

    @property
    def met(self) -> str:
        """`yes`, `NO`, `unsure` where the interval has room for both, or a dash where nothing is promised."""
        budget = self.budget
        if budget is None:
            return "-"
        met = {end >= budget if self.at_least else end <= budget for end in self.interval or (self.got,)}
        return "unsure" if len(met) > 1 else "yes" if met.pop() else "NO"


def arguments(doc: str | None, **options: str) -> argparse.ArgumentParser:
    """A parser with `--quick` and `--write`, described by the first line of `doc`; `options` are further flags with help."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: few rounds, figures not to be quoted")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/budgets.json; not with --quick")
    for name, text in options.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


def machine() -> str:
    """Machine, versions and commit in one line."""
    gpu = "no GPU" if shutil.which("nvidia-smi") is None else "with a GPU"
    parts = [f"{os.cpu_count()} cores {platform.machine()}", gpu, platform.system(), f"Python {platform.python_version()}"]
    parts += [f"{name} {_version(name)}" for name in ("torch", "pyzmq", "numpy")]
    return ", ".join([*parts, f"commit {_commit()}"])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        status = ["git", "status", "--porcelain", "--", "contracts", "agent", "daemon"]  # what is measured
        changed = subprocess.run(status, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def print_table(title: str, figures: Sequence[Figure], *, args: argparse.Namespace, notes: Sequence[str] = ()) -> None:
    """Print the table, and keep it where `args` say so. The load is said: a busy machine is the usual reason for a strange
    figure."""
    on, load = machine(), os.getloadavg()[0]
    print(title)
    print(f"{on}; load {load:.1f}{'; QUICK: not to be quoted' if args.quick else ''}\n")
    width = max(len(figure.name) for figure in figures)
    shown = [measured(figure) for figure in figures]
    wide = max(len("measured"), *map(len, shown))
    print(f"  {'figure':<{width}}  {'measured':>{wide}}  {'budget':>14}  {'met':<6} ratio to a baseline of this run")
    for figure, said in zip(figures, shown, strict=True):
        print(f"  {figure.name:<{width}}  {said:>{wide}}  {budget(figure):>14}  {figure.met:<6} {ratio(figure)}")
    for note in notes:
        print(f"  {note}")
    print(flush=True)
    if args.write and not args.quick:
        _keep(title, {"on": on, "load": load, "figures": [asdict(figure) for figure in figures], "notes": list(notes)})


def _keep(title: str, table: dict[str, object]) -> None:
    """Put one table where the others are, under its command and title; the one it replaces is gone."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *(a for a in sys.argv[1:] if a != "--write")])
    day = datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
    kept[title] = {"command": command, "day": day, **table}
    RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def measured(figure: Figure) -> str:
    """The number with its unit and, where there is one, its interval."""
    said = f"{number(figure.got)} {figure.unit}"
    return f"{said} ({' to '.join(map(number, figure.interval))})" if figure.interval else said


def budget(figure: Figure) -> str:
    """The budget with its direction, a dash where there is none."""
    if figure.budget is None:
        return "-"
    return f"{'>=' if figure.at_least else '<='} {number(figure.budget)}"


def ratio(figure: Figure) -> str:
    """The figure in units of its baseline, which is named with its own value; a dash without one."""
    if figure.baseline is None:
        return "-"
    name, value = figure.baseline
    return f"{number(figure.got / value) if value else 'inf'} x {name} ({number(value)} {figure.unit})"


def number(value: float) -> str:
    """Three significant digits, and no more than a budget is written with."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """Of any number of values, at least one."""
    return statistics.median(values)
