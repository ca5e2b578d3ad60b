"""What every benchmark prints: the machine in one line, then one row per figure with its budget and its ratio to a baseline.

A baseline is something measured in the same run, in turns with the figure: absolute times move with the machine and its other
users, ratios much less.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `budget` is the most it may be, or the least where `at_least`; None for a figure without one.

    `baseline` is (name, value in the same unit).
    """

    name: str
    got: float
    unit: str
    budget: float | None = None
    at_least: bool = False
    baseline: tuple[str, float] | None = None

    @property
    def met(self) -> str:
        """`yes`, `NO`, or a dash where nothing is promised."""
        if self.budget is None:
            return "-"
        return "yes" if (self.got >= self.budget if self.at_least else self.got <= self.budget) else "NO"


def arguments(doc: str | None, **options: str) -> argparse.ArgumentParser:
    """A parser with `--quick`, described by the first line of a module's docstring; `options` are further flags with help."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run: few rounds, figures not to be quoted")
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


def print_table(title: str, figures: Sequence[Figure], *, notes: Sequence[str] = (), quick: bool = False) -> None:
    """Print the table. The load is said because a busy machine is the usual reason for a strange figure."""
    print(title)
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}{'; QUICK: not to be quoted' if quick else ''}\n")
    width = max(len(figure.name) for figure in figures)
    print(f"  {'figure':<{width}}  {'measured':>18}  {'budget':>14}  {'met':<4} ratio to a baseline of this run")
    for figure in figures:
        measured = f"{_number(figure.got):>10} {figure.unit:<7}"
        print(f"  {figure.name:<{width}}  {measured}  {_budget(figure):>14}  {figure.met:<4} {_ratio(figure)}")
    for note in notes:
        print(f"  {note}")
    print(flush=True)


def _budget(figure: Figure) -> str:
    if figure.budget is None:
        return "-"
    return f"{'>=' if figure.at_least else '<='} {_number(figure.budget)}"


def _ratio(figure: Figure) -> str:
    if figure.baseline is None:
        return "-"
    name, value = figure.baseline
    return f"{_number(figure.got / value) if value else 'inf'} x {name} ({_number(value)} {figure.unit})"


def _number(value: float) -> str:
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
