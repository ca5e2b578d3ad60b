"""The audit: one line of JSON for every request that changes something, allowed or refused, in a file that only grows."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "audit.jsonl"
TAIL_BYTES = 1024 * 1024
"""What is read back to show the newest entries: some 4,000 of them."""


class AuditFile:
    """Appends to `audit.jsonl` of the data directory, mode 0600. Never truncated nor rewritten by us.

    A line is one write of O_APPEND, so a crash leaves whole lines and at most one torn last one, which readers skip.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")  # or the next entry would become part of the torn one

    def write(self, entry: dict[str, Any]) -> None:
        """Append one entry.

        Raises:
            OSError: when the disk takes no more.
        """
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        if os.write(self._fd, line) != len(line):
            raise OSError(f"{self.path}: only part of an entry was written")

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """The last `limit` entries, newest first, as far as they lie in the last `TAIL_BYTES` of the file."""
        with open(self.path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")
        if size > TAIL_BYTES:
            lines = lines[1:]  # the first one is cut
        found: list[dict[str, Any]] = []
        for line in reversed(lines):
            if len(found) == limit:
                break
            if line and (entry := _parse(line)) is not None:
                found.append(entry)
        return found

    def close(self) -> None:
        """Let the file go."""
        os.close(self._fd)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
