"""Points of a log as updates: which numbers belong to one, what number it has, and as what each is read."""

from __future__ import annotations

import math
import re
import statistics
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from gradwatch_contracts import limits
from gradwatch_contracts.dialects import Dialect, Meaning
from gradwatch_contracts.names import USER_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gradwatch_daemon.importing.points import Point

ITERATIONS = "time/iterations"
"""The number of the update, counted from 1, where Stable-Baselines3 writes it."""

STEP_MAX = 1 << 62


@dataclass(slots=True)
class LoggedRow:
    """One update as it was logged: the last number of each key, and all of the key written for each episode."""

    step: int
    update: int = 0
    wall_s: float = 0.0
    values: dict[str, float] = field(default_factory=dict)
    episodes: list[float] = field(default_factory=list)


@dataclass(slots=True)
class LoggedAttempt:
    """The updates of one attempt. `oddities` counts what was not as it should be, `notes` says what was done about it."""

    rows: list[LoggedRow]
    oddities: Counter[str]
    notes: list[str]


def assemble(points: Sequence[Point], dialect: Dialect) -> LoggedAttempt:
    """Put the numbers of one attempt into the updates they are of."""
    oddities: Counter[str] = Counter()
    notes: list[str] = []
    good = [point for point in points if 0 <= point.step < STEP_MAX]
    if len(good) < len(points):
        oddities["numbers at an impossible step"] += len(points) - len(good)
    steps = sorted({point.step for point in good if point.key.startswith(dialect.clock)})
    rows = [LoggedRow(step) for step in steps]
    seen: dict[str, int] = {}
    for point in good:
        if point.step < seen.get(point.key, -1):
            oddities["numbers out of order"] += 1
        elif point.key != dialect.episode and point.step == seen.get(point.key, -1):
            oddities["numbers written twice for a step; the last one is kept"] += 1
        seen[point.key] = max(point.step, seen.get(point.key, -1))
        at = bisect_left(steps, point.step)
        if at == len(steps):
            oddities["numbers after the last whole update"] += 1
            continue
        row = rows[at]
        row.wall_s = max(row.wall_s, point.wall_s)
        if point.key == dialect.episode:
            row.episodes.append(point.value)
        else:
            row.values[point.key] = point.value
    if dialect.late:
        rows = _put_back(rows, dialect.late, notes)
    _number(rows, dialect, oddities)
    return LoggedAttempt(rows, oddities, notes)


def _put_back(rows: list[LoggedRow], late: str, notes: list[str]) -> list[LoggedRow]:
    """Keys that are written with the next update's go to their own; the last update's were never written."""
    if not rows:
        return rows
    if any(key.startswith(late) for key in rows[0].values):
        notes.append(
            f"{late}* is there from the first line on, so not every update was logged: it is of the update before the line"
        )
        return rows
    for row, following in pairwise(rows):
        row.values.update({key: value for key, value in following.values.items() if key.startswith(late)})
        following.values = {key: value for key, value in following.values.items() if not key.startswith(late)}
    notes.append(
        f"{late}* is written one line late and was put back; the last line is left out, for its {late}* was never written"
    )
    return rows[:-1]


def _number(rows: list[LoggedRow], dialect: Dialect, oddities: Counter[str]) -> None:
    """Give each row its update: counted by the program, by its step, or by how far the step moved."""
    strides = [after.step - before.step for before, after in pairwise(rows)]
    usual = int(statistics.median_low(strides)) if strides else 1
    if all(ITERATIONS in row.values and row.values[ITERATIONS] >= 1 for row in rows):
        for row in rows:
            row.update = int(row.values[ITERATIONS]) - 1
    elif dialect.steps_are_updates or usual == 1:
        for row in rows:
            row.update = row.step
    else:
        for before, after in pairwise(rows):
            stride = after.step - before.step
            after.update = before.update + (stride // usual if stride % usual == 0 else 1)
            oddities["irregular distances between updates"] += stride % usual != 0
    gaps = sum(max(after.update - before.update - 1, 0) for before, after in pairwise(rows))
    if gaps:
        oddities["updates missing between two lines"] += gaps
    for name in [name for name, count in oddities.items() if not count]:
        del oddities[name]


def read_keys(
    keys: Sequence[str], dialect: Dialect, given: Mapping[str, str], oddities: Counter[str]
) -> dict[str, tuple[Meaning, str]]:
    """Key → its meaning and the name it has as a scalar of the user's ('' where it is a signal).

    `given` maps keys to signals on the word of the user. Names are made to fit; of two that then are equal, and of more than
    `limits.USER_KEYS_MAX`, the later are left out.
    """
    found: dict[str, tuple[Meaning, str]] = {}
    taken: set[str] = set()
    for key in keys:
        meaning = dialect.keys.get(key, Meaning())
        if key in given:
            meaning = Meaning(given[key], nonfinite=meaning.nonfinite, infinite=meaning.infinite, why="as you said")
        name = "" if meaning.signal else _user_name(key)
        if name and (name in taken or len(taken) >= limits.USER_KEYS_MAX):
            oddities["keys left out: there are too many, or another has the same name"] += 1
            continue
        taken |= {name} - {""}
        found[key] = (meaning, name)
    return found


def _user_name(key: str) -> str:
    """The key as `log` would take it."""
    name = re.sub(r"[^A-Za-z0-9_./ -]", "_", key)[:64]
    return name if USER_KEY.fullmatch(name) else f"_{name}"[:64]


def moments(values: Sequence[float]) -> tuple[float, float, float]:
    """(n, mean, M2) of these numbers; NaN where one of them is."""
    mean = math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan
    return float(len(values)), mean, math.fsum((value - mean) ** 2 for value in values) if mean == mean else math.nan  # noqa: PLR0124
