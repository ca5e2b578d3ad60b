"""Resident memory of this process, from the kernel's own counter."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from gradwatch_agent.collect.host import Tally

STATM = "/proc/self/statm"
"""Linux: sizes in pages, of which the second is what is resident. There is no such file elsewhere, and then the value is
UNDEFINED."""

FRESH_NS = 1_000_000_000
"""A value that young is told again: one read takes 3 to 25 microseconds and lets go of the interpreter, which is a large part
of the `step()` of a trainer that makes ten or more a second."""


class HostMemory:
    """Keeps the file open from `watch` on: opening it each time would cost ten times the reading."""

    __slots__ = ("_file", "_page", "_told", "fresh_until_ns", "part")

    def __init__(self) -> None:
        self.part = (0.0,)
        self.fresh_until_ns = 0
        """So long `part` is the column, and `tell` need not be called."""
        self._told: int | None = None
        self._page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
        try:
            self._file: int | None = os.open(STATM, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, AttributeError):
            self._file = None

    def tell(self, tally: Tally, update: int, now_ns: int) -> int:
        """Read it and add the column, or why it is missing; returns in how many updates that was once."""
        pages = self._read()
        if pages < 0:
            tally.refuse("sys.host_bytes", Status.UNDEFINED)
        else:
            self.part, self.fresh_until_ns = (float(pages * self._page),), now_ns + FRESH_NS
            tally.parts["sys.host_bytes", ""] = self.part
        updates = 1 if self._told is None else update - self._told
        self._told = update
        return updates

    def _read(self) -> int:
        """Resident pages; -1 where nobody says."""
        try:
            return -1 if self._file is None else int(os.pread(self._file, 128, 0).split()[1])
        except (OSError, ValueError, IndexError):
            return -1

    def close(self) -> None:
        """Give the file back."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
