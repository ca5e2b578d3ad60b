"""The start-up line: what the first whole update measured, and which detectors are blind for lack of which call."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.needs import LINES, NEEDS
from gradwatch_contracts.signals import COLUMNS, SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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

RECURRENT = ("LSTM", "GRU", "RNN")
"""How the names of torch's recurrent layers and cells begin."""

INCOMPLETE_ROWS = RowFlag.PARTIAL | RowFlag.SKIPPED


class StartUp:
    """Says its line once, of the first row from which one can tell. `say` is called with every row until it answers True."""

    def __init__(self, run: str, modules: Sequence[Any] = (), action_space: object = None) -> None:
        self._run = run
        self._apart = out_of_place(modules, action_space)

    def say(self, row: Row) -> bool:
        """Log the line, as a warning where a call is lacking; False where this row does not show what a whole one has."""
        status = best_status(row)
        if row.flags & INCOMPLETE_ROWS or Status.THINNED in status.values():
            return False
        kinds = [kind for kind, needs in NEEDS.items() if not any(name.startswith(self._apart) for name in needs.every)]
        blind = blind_for(status, kinds)
        about = f"run {self._run!r}: watching {what_is_measured(status)}"
        if row.level < Level.NORMAL:
            LOGGER.warning("gradwatch: %s; at level %s most detectors are blind.", about, Level(row.level).name.lower())
        else:
            LOGGER.log(logging.WARNING if blind else logging.INFO, "gradwatch: %s; %s.", about, what_is_seen(blind, len(kinds)))
        return True


def best_status(row: Row) -> dict[str, Status]:
    """Column → the best status over its subjects. NOT_CALLED for one that has appeared under no subject yet."""
    found = dict.fromkeys(COLUMNS, Status.NOT_CALLED)
    for column, code in zip(row.schema.columns, row.status, strict=True):
        if code == Status.MEASURED or found[column.name] is Status.NOT_CALLED:
            found[column.name] = Status(code)
    return found


def out_of_place(modules: Sequence[Any], action_space: object) -> tuple[str, ...]:
    """Beginnings of the signals that this policy cannot have: a recurrent state without a recurrent layer, deviations of
    discrete actions. Where one cannot tell, none."""
    layers = [layer for module in modules if hasattr(module, "modules") for layer in module.modules()]
    recurrent = not layers or any(type(layer).__name__.startswith(RECURRENT) for layer in layers)
    discrete = hasattr(action_space, "n") or hasattr(action_space, "nvec")
    return ("rnn.",) * (not recurrent) + ("policy.std.",) * discrete


def blind_for(status: dict[str, Status], kinds: Iterable[str]) -> dict[str, list[str]]:
    """Line to add → those of these detectors that it would open the eyes of. What was called and is not defined is not
    lacking."""
    found: dict[str, list[str]] = {}
    for kind in kinds:
        needs = NEEDS[kind]
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


def what_is_seen(blind: dict[str, list[str]], detectors: int) -> str:
    """How many of so many detectors have what they need, and what the others lack."""
    unseeing = {kind for kinds in blind.values() for kind in kinds}
    lines = "; ".join(f"{', '.join(kinds)} ({line})" for line, kinds in blind.items())
    return f"{detectors - len(unseeing)} of {detectors} detectors see{f', blind are {lines}' if lines else ''}"


def _lacks(signal: str, status: dict[str, Status]) -> bool:
    return any(status[column] is Status.NOT_CALLED for column in SIGNALS[signal].columns)
