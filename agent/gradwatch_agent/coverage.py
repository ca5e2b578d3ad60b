"""The start-up line: what the first whole update measured, and which detectors are blind for lack of which call."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.needs import LINES, NEEDS
from gradwatch_contracts.signals import COLUMNS, SIGNALS

if TYPE_CHECKING:
    from gradwatch_agent.row import Row

LOGGER = logging.getLogger("gradwatch.start")
"""Of its own below "gradwatch", so that this one line can be silenced."""

WATCHED = {
    "rollout": "rollouts",
    "ppo": "minibatches",
    "recurrent": "recurrent state",
    "clip": "gradients",
    "episode.return": "episode returns",
    "user": "scalars",
}
"""Agent call, or column → what one calls it."""

INCOMPLETE_ROWS = RowFlag.PARTIAL | RowFlag.SKIPPED


class StartUp:
    """Says its line once, of the first row from which one can tell. `say` is called with every row until it answers True."""

    def __init__(self, run: str) -> None:
        self._run = run

    def say(self, row: Row) -> bool:
        """Log the line, as a warning where a call is lacking; False where this row does not show what a whole one has."""
        status = best_status(row)
        if row.flags & INCOMPLETE_ROWS or Status.THINNED in status.values():
            return False
        blind = blind_for(status)
        about = f"run {self._run!r}: watching {what_is_measured(status)}"
        if row.level < Level.NORMAL:
            LOGGER.warning("gradwatch: %s; at level %s most detectors are blind.", about, Level(row.level).name.lower())
        else:
            LOGGER.log(logging.WARNING if blind else logging.INFO, "gradwatch: %s; %s.", about, what_is_seen(blind))
        return True


def best_status(row: Row) -> dict[str, Status]:
    """Column → the best status over its subjects. NOT_CALLED for one that has appeared under no subject yet."""
    found = dict.fromkeys(COLUMNS, Status.NOT_CALLED)
    for column, code in zip(row.schema.columns, row.status, strict=True):
        if code == Status.MEASURED or found[column.name] is Status.NOT_CALLED:
            found[column.name] = Status(code)
    return found


def blind_for(status: dict[str, Status]) -> dict[str, list[str]]:
    """Line to add → the detectors that it would open the eyes of. What was called and is not defined is not lacking."""
    found: dict[str, list[str]] = {}
    for kind, needs in NEEDS.items():
        lacking = [name for name in needs.every if _lacks(name, status)]
        if needs.some and all(_lacks(name, status) for name in needs.some):
            lacking.append(needs.some[0])
        for line in dict.fromkeys(LINES[name] for name in lacking):
            found.setdefault(line, []).append(kind)
    return found


def what_is_measured(status: dict[str, Status]) -> str:
    """In the words of a trainer's author."""
    measured = {name for name, code in status.items() if code is Status.MEASURED}
    calls = {COLUMNS[name].call for name in measured} | measured
    return ", ".join(words for key, words in WATCHED.items() if key in calls) or "its updates only"


def what_is_seen(blind: dict[str, list[str]]) -> str:
    """How many detectors have what they need, and what the others lack."""
    unseeing = {kind for kinds in blind.values() for kind in kinds}
    lines = "; ".join(f"{', '.join(kinds)} ({line})" for line, kinds in blind.items())
    return f"{len(NEEDS) - len(unseeing)} of {len(NEEDS)} detectors see{f', blind are {lines}' if lines else ''}"


def _lacks(signal: str, status: dict[str, Status]) -> bool:
    return any(status[column] is Status.NOT_CALLED for column in SIGNALS[signal].columns)
