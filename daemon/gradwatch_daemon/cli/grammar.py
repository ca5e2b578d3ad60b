"""The command line as plain records, read off the parser: what completion scripts and docs/cli.md are made of."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Word:
    """One argument: a flag by its `names`, or one known by its place. `value` is what it takes, '' for a switch; `optional`
    is one that may be left out, or whose value may be."""

    names: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    help: str
    optional: bool


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: a line on it, how it is called, its flags, and what is known by its place."""

    name: str
    summary: str
    usage: str
    flags: tuple[Word, ...]
    places: tuple[Word, ...]

    @property
    def takes_run(self) -> bool:
        """Whether the name of a run stands somewhere."""
        return any("RUN" in word.value.split("|") for word in self.places)


def read_grammar(parser: argparse.ArgumentParser) -> tuple[Verb, ...]:
    """Every verb in the order of `--help`."""
    subs = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {choice.dest: choice.help or "" for choice in subs._choices_actions}
    return tuple(_verb(name, summaries.get(name, ""), sub) for name, sub in subs.choices.items())


def _verb(name: str, summary: str, parser: argparse.ArgumentParser) -> Verb:
    words = [word for action in parser._actions for word in _words(action)]
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    flags = tuple(word for word in words if word.names)
    return Verb(name, summary, usage, flags, tuple(word for word in words if not word.names))


def _words(action: argparse.Action) -> Iterator[Word]:
    choices = tuple(str(choice) for choice in action.choices or ())
    switch = action.nargs == 0
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    value = "" if switch else metavar or ("|".join(choices) if choices else action.dest.upper().replace("_", "-"))
    optional = action.nargs in ("?", "*") or (bool(action.option_strings) and not action.required)
    yield Word(tuple(action.option_strings), value, choices, action.help or "", optional)
