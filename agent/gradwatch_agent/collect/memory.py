"""Resident memory of this process, from the kernel's own counter."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from gradwatch_agent.collect.host import Tally

STATM = "/proc/self/statm"
"""Linux: sizes in pages, of which the second is what is resident. One read costs 2 microseconds; there is no such file
elsewhere, and then the value is UNDEFINED."""


class HostMemory:
    """Keeps the file open from `watch` on: opening it at each update would cost ten times the reading."""

    __slots__ = ("_file", "_page")

    def __init__(self) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
        try:
            self._file: int | None = os.open(STATM, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, AttributeError):
            self._file = None

    def tell(self, tally: Tally) -> None:
        """Add the column, or why it is missing."""
        try:
            pages = -1 if self._file is None else int(os.pread(self._file, 128, 0).split()[1])
        except (OSError, ValueError, IndexError):
            pages = -1
        if pages < 0:
            tally.refuse("sys.host_bytes", Status.UNDEFINED)
        else:
            tally.add("sys.host_bytes", (float(pages * self._page),))

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
