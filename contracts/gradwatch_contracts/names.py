"""What a run, an id and a key may be called, and the nearest known word to a mistyped one."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError

if TYPE_CHECKING:
    from collections.abc import Iterable

RUN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""A run key: also a path segment, a file name and a metrics label, so nothing needs escaping anywhere."""

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""An escalation, command, session or launch id."""

VERB = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""What a command is called."""

USER_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./ -]{0,63}")
"""A key of `log` or `step`: the tags people use with SummaryWriter pass."""


FITTING = "Choose one of that form: letters, digits, '-' and '_', a letter or digit first."


def check_name(value: object, pattern: re.Pattern[str], where: str) -> str:
    """Return `value` if it is a string that matches `pattern` as a whole.

    Raises:
        GradwatchError: `invalid-argument`, naming the pattern and what came.
    """
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    raise GradwatchError("invalid-argument", where=where, expected=pattern.pattern, got=repr(value)[:80], next_step=FITTING)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word closest to `word`, or None when none is close (ratio below 0.6)."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), None)


def slug(text: str) -> str:
    """Turn any text into a run key: lower case, other characters become '-'. Empty text becomes 'run'."""
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64]
    return cleaned or "run"
