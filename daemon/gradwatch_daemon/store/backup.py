"""A copy of the store as it is at one moment, taken while a daemon writes on."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.store import directory
from gradwatch_daemon.store.recording import RecordingReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def back_up(source: Path, target: Path) -> int:
    """Copy the database of a data directory (or a database file) into the new file `target`; returns its bytes.

    One read transaction: the copy holds every commit before it and none after, and the daemon writes on meanwhile (its WAL
    grows until the copy is done). The file appears under its name only when it is whole, checked and on the disk, with
    mode 0600. `gradwatch replay FILE` reads it, and it may be put back as `gradwatch.db` of a data directory.

    Raises:
        GradwatchError: `recording-unreadable` for a source that is no database of ours; `backup-failed` otherwise.
    """
    reader = RecordingReader(source)
    reader.close()
    with new_file(target, "backup-failed") as draft:
        _copy(reader.file, draft)
    return target.stat().st_size


@contextmanager
def new_file(target: Path, code: str) -> Iterator[Path]:
    """A draft to write, which becomes `target` when it is whole and on the disk; nothing is left of it otherwise.

    Raises:
        GradwatchError: `code`: there is such a file already, or it cannot be written.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    if target.exists():
        raise _failed(
            code, target, "a file that does not exist yet", "one that does", "Choose another name; nothing was written."
        )
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        yield draft
        with open(draft, "rb") as file:
            os.fsync(file.fileno())
        os.link(draft, target)  # unlike a rename, refuses a name that was taken meanwhile
        _sync_directory(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise _failed(code, target, "room and permission to write it", str(error)) from error
    finally:
        with suppress(OSError):
            draft.unlink()


def _copy(source: Path, draft: Path) -> None:
    with closing(directory.open_reader(source)) as db, closing(sqlite3.connect(draft, isolation_level=None)) as copy:
        db.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a WAL beside it
        (verdict,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"the copy is damaged, so the original may be: {verdict}")


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(code: str, where: Path, expected: str, got: str, next_step: str = "") -> GradwatchError:
    return GradwatchError(code, where=str(where), expected=expected, got=got, next_step=next_step)
