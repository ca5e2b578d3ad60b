"""Which threads a monitor's calls come from. They belong to the trainer's one: nothing of ours takes a lock in it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradwatch_agent.collect.host import Hints


class Callers:
    """`mixed` says that one came back after another had called: a training that moved to a thread for good is none of that."""

    __slots__ = ("_hints", "_last", "_seen", "mixed")

    def __init__(self, hints: Hints) -> None:
        self._last = 0
        self.mixed = False
        self._seen: set[int] = set()
        self._hints = hints

    def look(self) -> None:
        """A call comes. To be asked a few times an update: that is what it may cost."""
        thread = threading.get_ident()
        if thread == self._last:
            return
        self._last = thread
        if thread in self._seen:
            self.mixed = True
            self._hints.say(
                "threads",
                "its calls come from several threads, so updates may be mixed up or lost. Make them all in the thread that "
                "calls step(); only log() of numbers may be called in any.",
            )
        self._seen.add(thread)
