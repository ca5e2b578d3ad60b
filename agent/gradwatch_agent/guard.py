"""Our own bugs stop here: logged once, counted, reported, and never raised into the trainer."""

from __future__ import annotations

import functools
import logging
import os
import traceback
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")
LOGGER = logging.getLogger("gradwatch")

MISUSES_MAX = 16
"""Lines on wrong calls: each call has a few ways of being wrong, and a log is for something else."""


class Guarded(Protocol):
    """What a class with guarded methods has: somewhere to report an own error. May be called on any thread of ours."""

    def _on_own_error(self, place: str, text: str) -> None: ...


S = TypeVar("S", bound=Guarded)


def is_strict() -> bool:
    """Whether own errors are raised (`GRADWATCH_STRICT=1`, as in our tests). Read when one happens, never before."""
    return os.environ.get("GRADWATCH_STRICT") == "1"


def guarded(method: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Make a method swallow every `Exception`. `KeyboardInterrupt` and `SystemExit` are the user's and pass."""
    wrap: Callable[[Callable[Concatenate[S, P], None]], Callable[Concatenate[S, P], None]] = guarded_value(None)
    return wrap(method)


def guarded_value(fallback: T) -> Callable[[Callable[Concatenate[S, P], T]], Callable[Concatenate[S, P], T]]:
    """Like `guarded`, for a method that returns something: `fallback` when it failed."""

    def wrap(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
        @functools.wraps(method)
        def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return method(self, *args, **kwargs)
            except Exception as error:
                if is_misuse(error):
                    note_misuse(self, error)
                    return fallback
                if is_strict():
                    raise
                note_own_error(self, method.__qualname__, error)
                return fallback

        return call

    return wrap


def is_misuse(error: Exception) -> bool:
    """Whether a call did not begin, as what it was given does not fit its signature. To be asked where the call was made."""
    trace = error.__traceback__
    return isinstance(error, TypeError) and trace is not None and trace.tb_next is None


def note_misuse(owner: object, error: Exception) -> None:
    """Say once in which way a call was wrong: that is the trainer's mistake, and no bug of ours."""
    said: set[str] = vars(owner).setdefault("_misused", set())
    text = text_of(error)
    if text not in said and len(said) < MISUSES_MAX:
        said.add(text)
        LOGGER.warning("gradwatch: %s; this call is left out.", text)


def note_own_error(owner: Guarded, place: str, error: Exception) -> None:
    """Count an own error at `place`; the first one there is logged with its traceback and handed to `_on_own_error`.

    Never raises: it runs where nothing may.
    """
    try:
        counts = own_errors(owner)
        counts[place] = counts.get(place, 0) + 1
        if counts[place] > 1:
            return
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        if getattr(getattr(owner, "callers", None), "mixed", False):  # its own line has said what to do
            LOGGER.warning("gradwatch failed in %s, as it does when called in several threads: %r.", place, error)
        else:
            LOGGER.error("gradwatch failed in %s; training is not affected. Please report this:\n%s", place, text)
        owner._on_own_error(place, text)
    except Exception as second:
        LOGGER.debug("could not report an own error: %r", second)


def text_of(thing: object) -> str:
    """`str` of something of the trainer's, whose `__str__` may be as broken as anything else of it."""
    try:
        return str(thing)
    except Exception as error:
        return f"({type(thing).__name__}, whose text cannot be made: {type(error).__name__})"


def own_errors(owner: object) -> dict[str, int]:
    """Own errors of a guarded object so far: place → count. It lives in the object, so nothing outlives the monitor."""
    counts: dict[str, int] = vars(owner).setdefault("_own_errors", {})
    return counts
