"""The start-up line: what the first whole update measured, and which detectors are blind for lack of which call."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.needs import LINES, NEEDS, STAND_INS
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

PASSED = re.compile(r"pass (?:the )?(.+) to ((?:mon\.)?\w+)\(\)(.*)")
"""A line to add that is an argument of a call, and when."""

CALLED = re.compile(r"call (mon\.\w+)\((.+?)\).*")
"""A line to add that is a call with what it is given, and for whom."""

NAMED_MAX = 2
"""Detectors of a call that are named; more are counted."""

BOUND = "policy.entropy.limit"
SPACE = "pass action_space to watch()"
"""The line to add where an entropy was passed and nothing says how large it can be."""

INCOMPLETE_ROWS = RowFlag.PARTIAL | RowFlag.SKIPPED


class StartUp:
    """Says its line once, of the first row from which one can tell. `say` is called with every row until it answers True."""

    def __init__(self, run: str, modules: Sequence[Any] = (), action_space: object = None) -> None:
        self._run = run
        self._apart = out_of_place(modules, action_space)
        self._spaceless = action_space is None

    def say(self, row: Row) -> bool:
        """Log the line, as a warning where a call is lacking; False where this row does not show what a whole one has."""
        status = best_status(row)
        if row.flags & INCOMPLETE_ROWS or Status.THINNED in status.values():
            return False
        kinds = [kind for kind, needs in NEEDS.items() if not any(name.startswith(self._apart) for name in needs.every)]
        blind = blind_for(status, kinds)
        if self._spaceless and (unbounded := unbounded_kinds(status, kinds)):
            blind[SPACE] = unbounded
        about = f"run {self._run!r}: watching {what_is_measured(status)}"
        if row.level < Level.NORMAL:
            LOGGER.warning("gradwatch: %s; at level %s most detectors are blind.", about, Level(row.level).name.lower())
        else:
            seen = what_is_seen(blind, len(kinds), self._run)
            LOGGER.log(logging.WARNING if blind else logging.INFO, "gradwatch: %s; %s.", about, seen)
        return True


def best_status(row: Row) -> dict[str, Status]:
    """Column → the best status over its subjects. NOT_CALLED for one that has appeared under no subject yet."""
    found = dict.fromkeys(COLUMNS, Status.NOT_CALLED)
    for column, code in zip(row.schema.columns, row.status, strict=True):
        if code == Status.MEASURED or found.get(column.name, Status.NOT_CALLED) is Status.NOT_CALLED:
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


def unbounded_kinds(status: dict[str, Status], kinds: Iterable[str]) -> list[str]:
    """Those of these detectors that lack the bound of an entropy and nothing else. None for continuous actions, which have
    none: their deviations are measured."""
    if status[BOUND] is not Status.UNDEFINED or status["policy.std"] is Status.MEASURED:
        return []
    return [kind for kind in kinds if any(BOUND in SIGNALS[name].columns for name in NEEDS[kind].every)]


def what_is_measured(status: dict[str, Status]) -> str:
    """In the words of a trainer's author."""
    measured = {name for name, code in status.items() if code is Status.MEASURED}
    calls = {COLUMNS[name].call for name in measured if name in COLUMNS} | measured
    return ", ".join(words for key, words in WATCHED.items() if key in calls) or "its updates only"


def what_is_seen(blind: dict[str, list[str]], detectors: int, run: str) -> str:
    """How many of so many detectors have what they need; for the others the calls to add, those that help most first."""
    unseeing = {kind for kinds in blind.values() for kind in kinds}
    seen = f"{detectors - len(unseeing)} of {detectors} detectors see"
    if not blind:
        return seen
    calls = sorted(by_call(blind).items(), key=lambda item: -len(item[1]))
    lines = "; ".join(f"{call} for {', '.join(kinds) if len(kinds) <= NAMED_MAX else len(kinds)}" for call, kinds in calls)
    count = f"{len(unseeing)} {'is' if len(unseeing) == 1 else 'are'}"
    return f"{seen}, {count} blind. To add: {lines}. Which and why: gradwatch doctor {run}"


def by_call(blind: dict[str, list[str]]) -> dict[str, list[str]]:
    """The lines to add with the arguments of one call together, and the detectors that lack any of them."""
    arguments: dict[str, list[str]] = {}
    found: dict[str, list[str]] = {}
    for line, kinds in blind.items():
        passed, called = PASSED.fullmatch(line), CALLED.fullmatch(line)
        call = passed[2] if passed else called[1] if called else line.removeprefix("call ")
        given = [f"{name.strip()}=" for name in re.split(r",| and ", passed[1])] if passed else [called[2]] if called else []
        arguments.setdefault(call, []).extend(given)
        known = found.setdefault(call, [])
        known += [kind for kind in kinds if kind not in known]
    return {_written(call, dict.fromkeys(sorted(arguments[call], key=_is_named))): kinds for call, kinds in found.items()}


def _written(call: str, arguments: Iterable[str]) -> str:
    """As one writes a call."""
    given = ", ".join(arguments)
    return f"{call}({given})" if given else call


def _is_named(argument: str) -> bool:
    return argument.endswith("=")


def _lacks(signal: str, status: dict[str, Status]) -> bool:
    """Whether nothing feeds a signal, nor the one that would be judged in its place."""
    missing = any(status[column] is Status.NOT_CALLED for column in SIGNALS[signal].columns)
    return missing and (signal not in STAND_INS or _lacks(STAND_INS[signal], status))
