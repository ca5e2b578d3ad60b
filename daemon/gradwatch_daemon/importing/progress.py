"""`progress.csv` of Stable-Baselines3 and other loggers in the style of OpenAI baselines: one line a dump, a column a key."""

from __future__ import annotations

import csv
from collections import Counter
from typing import TYPE_CHECKING

from gradwatch_daemon.importing.points import Damage, Log, Point, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

STEPS = ("time/total_timesteps", "total_timesteps", "global_step", "step", "time/iterations", "iteration", "epoch", "update")
"""Columns that say where a line belongs, the first one that is there; else lines are counted."""

ELAPSED = ("time/time_elapsed", "time_elapsed")


def read_progress(path: Path) -> Log:
    """All lines. An empty cell is a key that was not written; `nan` and `inf` are numbers that were.

    Another attempt begins where the step falls. The file has no clock: times are reckoned back from when it was last written.

    Raises:
        GradwatchError: `recording-unreadable`: not text with a header of keys and numbers below it.
    """
    log = Log(path, [[]], Damage())
    written_s = path.stat().st_mtime
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            lines = list(_lines(file, log.damage))
    except csv.Error as error:
        raise unreadable(path, "a progress.csv", str(error)) from error
    if not lines:
        raise unreadable(path, "a progress.csv with a header and lines of numbers", "none")
    elapsed = [_first(cells, ELAPSED) for cells in lines]
    end_s = next((seconds for seconds in reversed(elapsed) if seconds is not None), 0.0)
    last: int | None = None
    for number, (cells, seconds) in enumerate(zip(lines, elapsed, strict=True)):
        at = _first(cells, STEPS)
        step = number if at is None else int(at)
        if last is not None and step < last:
            log.attempts.append([])
        last = step
        wall_s = written_s - (end_s - seconds if seconds is not None else 0.0)
        log.attempts[-1] += [Point(key, step, wall_s, value) for key, value in cells.items()]
    return log


def _lines(file: Iterable[str], damage: Damage) -> Iterator[dict[str, float]]:
    """The numbers of each whole line by key."""
    reader = csv.reader(file)
    header: list[str] = next(reader, [])
    for key, count in Counter(header).items():
        if count > 1:
            damage.words.append(f"the column {key!r} is there {count} times; the last one is read")
    rows = list(reader)
    for number, row in enumerate(rows):
        if not row:
            continue
        if len(row) < len(header) and number == len(rows) - 1:
            damage.cut_short = True
        elif len(row) != len(header):
            damage.counts["lines with another number of cells than the header"] += 1
        else:
            cells = {key: value for key, text in zip(header, row, strict=True) if (value := _number(text, damage)) is not None}
            if cells:
                yield cells


def _number(text: str, damage: Damage) -> float | None:
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        damage.counts["cells that are no numbers"] += 1
        return None


def _first(cells: dict[str, float], names: tuple[str, ...]) -> float | None:
    """The first of these that is there and finite."""
    for name in names:
        value = cells.get(name)
        if value is not None and value - value == 0.0:
            return value
    return None
