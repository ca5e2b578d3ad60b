"""Last words: an exception nobody caught, or the end of the process, closes every open monitor first."""

from __future__ import annotations

import atexit
import sys
import traceback
from typing import TYPE_CHECKING, Protocol

from gradwatch_agent.guard import text_of
from gradwatch_contracts import limits

if TYPE_CHECKING:
    from types import TracebackType


class Closable(Protocol):
    """An open monitor."""

    def close_with(self, error: BaseException | None, reason: str) -> None:
        """Pack what is unfinished, tell of `error` if there is one, close. Never raises."""


class Exits:
    """The open monitors of this process; the hooks are in place only while there is one."""

    def __init__(self) -> None:
        self._open: list[Closable] = []
        self._previous = sys.excepthook

    @property
    def monitors(self) -> tuple[Closable, ...]:
        """Those open, oldest first."""
        return tuple(self._open)

    def add(self, monitor: Closable) -> None:
        """Close `monitor` when the process ends, however it does."""
        if not self._open:
            self._previous = sys.excepthook
            sys.excepthook = self._on_exception
            atexit.register(self._at_exit)
        self._open.append(monitor)

    def remove(self, monitor: Closable) -> None:
        """Forget it; after the last one, leave no trace, unless somebody chained to us: then we only pass on."""
        if monitor not in self._open:
            return
        self._open.remove(monitor)
        if not self._open:
            atexit.unregister(self._at_exit)
            if sys.excepthook == self._on_exception:
                sys.excepthook = self._previous

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """The user's traceback first: closing may take a second."""
        previous = self._previous
        try:
            previous(kind, error, trace)
        finally:
            self._close_all(error, reason_of(error))

    def _at_exit(self) -> None:
        self._close_all(None, "exit")

    def _close_all(self, error: BaseException | None, reason: str) -> None:
        for monitor in self.monitors:
            monitor.close_with(error, reason)


EXITS = Exits()
"""Exit hooks are a process-wide thing, so this is the one list of open monitors; empty unless the trainer has one."""


def reason_of(error: BaseException) -> str:
    """The reason of BYE: Ctrl-C is somebody's will and no crash."""
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "exception"


def describe(error: BaseException) -> tuple[str, dict[str, str]]:
    """An exception as text (its traceback, head and tail kept) and as type and message."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    room = limits.TRACEBACK_CHARS_MAX
    if len(text) > room:
        text = f"{text[: room // 4]}\n…\n{text[-(room * 3 // 4 - 3) :]}"
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ in {"builtins", "__main__"} else f"{kind.__module__}.{kind.__qualname__}"
    return text, {"type": name[:256], "message": text_of(error)[:1024]}
