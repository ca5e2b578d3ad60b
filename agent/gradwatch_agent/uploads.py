"""A file on its way to the daemon: read chunk by chunk, so that never more than one of them is in memory."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from gradwatch_contracts import limits
from gradwatch_contracts.messages import Artifact, Result

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = limits.ARTIFACT_CHUNK_BYTES


class Upload:
    """One file of a command. It is removed when all of it was read, or at `close`.

    `outcome` is what the command ends with behind the last chunk; `finish` says whether it still may: not when somebody took
    it back in the meantime.
    """

    def __init__(self, path: str, name: str, outcome: Result, finish: Callable[[], bool]) -> None:
        self._path, self._name, self._outcome, self._finish = path, name, outcome, finish
        self._count = max(1, -(-os.stat(path).st_size // CHUNK))
        self._index = 0
        self.done = False

    def next(self) -> list[Artifact | Result]:
        """The next chunk, with the last one the RESULT. A file that cannot be read any more has failed."""
        id_, update = self._outcome.id, self._outcome.update
        try:
            with open(self._path, "rb") as file:
                file.seek(self._index * CHUNK)
                data = file.read(CHUNK)
        except OSError as error:
            self.close()
            failed = Result(0, id_, "rejected", update, f"failed: the file cannot be read back: {error.strerror}")
            return [failed] if self._finish() else []
        chunk = Artifact(0, id_, self._name, self._index, self._count, data)
        self._index += 1
        if self._index < self._count:
            return [chunk]
        self.close()
        return [chunk, self._outcome] if self._finish() else []

    def close(self) -> None:
        """Remove the file; nothing more of it is read."""
        self.done = True
        with suppress(OSError):
            os.unlink(self._path)
            os.rmdir(os.path.dirname(self._path))
