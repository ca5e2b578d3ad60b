"""The files of one session's spool: a directory of its own, locked as long as its process lives."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Protocol

from gradwatch_agent.process import disable_in_child
from gradwatch_contracts.segments import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_BYTES_MAX = 64 * 1024 * 1024
"""Of one file: ours are far smaller, and what else lies there must not fill the trainer's memory."""


class SpoolFiles(Protocol):
    """What a spool needs of a disk. Each call may raise OSError; a write that raises has written nothing."""

    def names(self) -> list[str]:
        """All segments, oldest first."""

    def read(self, name: str) -> bytes:
        """A whole segment."""

    def append(self, name: str, data: bytes) -> None:
        """Add to a segment, made where it is not there yet."""

    def replace(self, name: str, data: bytes) -> None:
        """Put another content in the place of a segment's, whole or not at all."""

    def remove(self, name: str) -> None:
        """Delete a segment."""

    def end(self) -> None:
        """Nothing more will come: an empty directory is deleted, and the lock given free."""


class SessionDirectory:
    """Segments in `ROOT/RUN/SESSION`, made with mode 0700 when the first is written. Used by one thread.

    Nothing is synced: what was written survives the death of the process, not of the machine, like a commit that is acked.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = -1
        self._open: tuple[str, int] | None = None
        self._torn: dict[str, int] = {}

    def lock(self) -> bool:
        """Take the directory for this process; False when another one that lives has it, or it is not ours alone."""
        if self._lock < 0:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_uid != os.getuid():
                    raise PermissionError(f"{self.path} belongs to another user")
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return False
            self._lock = descriptor
            disable_in_child(self)
        return True

    def disable(self) -> None:
        """We are in a forked child, such as a worker that loads data: let go of the lock there, or it would outlive its owner's
        end, and the next attempt would take what is left here for that of a living process. The owner's holds on."""
        self._close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def names(self) -> list[str]:
        """See SpoolFiles."""
        return sorted(name for name in os.listdir(self.path) if name.endswith(SUFFIX)) if os.path.isdir(self.path) else []

    def read(self, name: str) -> bytes:
        """See SpoolFiles."""
        with open(os.path.join(self.path, name), "rb") as file:
            return file.read(READ_BYTES_MAX)

    def append(self, name: str, data: bytes) -> None:
        """See SpoolFiles. A short write, as a full disk makes it, is taken back; where that fails too, before the next one."""
        descriptor = self._descriptor(name)
        if name in self._torn:
            os.ftruncate(descriptor, self._torn[name])
            del self._torn[name]
        size = os.fstat(descriptor).st_size
        try:
            _write_all(descriptor, data)
        except OSError:
            self._torn[name] = size
            os.ftruncate(descriptor, size)
            del self._torn[name]
            raise

    def replace(self, name: str, data: bytes) -> None:
        """See SpoolFiles."""
        self._close()
        temporary = os.path.join(self.path, f"{name}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)
        os.replace(temporary, os.path.join(self.path, name))
        self._torn.pop(name, None)

    def remove(self, name: str) -> None:
        """See SpoolFiles."""
        self._close()
        self._torn.pop(name, None)
        os.unlink(os.path.join(self.path, name))

    def end(self) -> None:
        """See SpoolFiles. What is not empty stays for the next attempt."""
        self._close()
        if os.path.isdir(self.path) and not self.names():
            for left in os.listdir(self.path):
                os.unlink(os.path.join(self.path, left))
            os.rmdir(self.path)
            if not os.listdir(os.path.dirname(self.path)):
                os.rmdir(os.path.dirname(self.path))
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _descriptor(self, name: str) -> int:
        if self._open is None or self._open[0] != name:
            self._close()
            if self._lock < 0:
                os.makedirs(self.path, mode=0o700, exist_ok=True)
                if not self.lock():
                    raise PermissionError(f"{self.path} is used by another process or user")
            path = os.path.join(self.path, name)
            self._open = name, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return self._open[1]

    def _close(self) -> None:
        if self._open is not None:
            os.close(self._open[1])
            self._open = None


def sessions_left(root: str, run: str) -> Iterator[str]:
    """Directories of sessions of a run, in the order they were last written to."""
    folder = os.path.join(root, run)
    try:
        found = [os.path.join(folder, name) for name in os.listdir(folder)]
        yield from sorted((path for path in found if os.path.isdir(path)), key=os.path.getmtime)
    except OSError:
        return


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
