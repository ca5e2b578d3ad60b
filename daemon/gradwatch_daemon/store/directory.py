"""The data directory: one daemon at a time, readable by its owner only, of a version this code knows.

Everything that can be wrong with it is one refusal, `data-dir-unusable`, that says what.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.store.mounts import network_type
from gradwatch_daemon.store.schema import APPLICATION_ID, MIGRATIONS, VERSION

if TYPE_CHECKING:
    from pathlib import Path

DATABASE = "gradwatch.db"
LOCK = "gradwatch.lock"

BUSY_TIMEOUT_S = 5.0
"""How long to wait for another program (a backup, a person's sqlite3) that holds the file."""


def unusable(where: object, expected: str, got: object, next_step: str = "") -> GradwatchError:
    """The refusal that says why a data directory does not do."""
    return GradwatchError("data-dir-unusable", where=str(where), expected=expected, got=str(got), next_step=next_step)


def lock_directory(path: Path) -> int:
    """Create the directory (0700) and its lock and database files (0600), and lock it; returns the lock's descriptor.

    The lock belongs to the descriptor, so it ends with the process however that ends.

    Raises:
        GradwatchError: `data-dir-unusable`: cannot be written, lies on a network file system, or another process has it
            (named by its pid).
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(path, "a directory that can be written", error.strerror or error) from error
    if kind := network_type(path):
        os.close(lock)
        raise unusable(
            path,
            "a disk of this machine: SQLite's write-ahead log does not work over a network, and two machines could write",
            f"a file system of type {kind}",
            "Choose a local directory with --data-dir; copy it away with `gradwatch export --backup FILE`.",
        )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        # Made before SQLite opens it, so that it, its WAL and its index never exist with wider rights.
        os.close(os.open(path / DATABASE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.chmod(path / DATABASE, 0o600)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise unusable(
            path, "no other daemon on it", f"process {holder} has it", "Stop that one, or choose another with --data-dir."
        ) from None
    except OSError as error:
        os.close(lock)
        raise unusable(path, "a directory that can be written", error.strerror or error) from error
    return lock


def is_locked(path: Path) -> bool:
    """Whether a process has this directory now. It may have another answer the next moment: only `lock_directory` decides."""
    try:
        lock = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def open_writer(path: Path, *, synced: bool = False) -> sqlite3.Connection:
    """The one connection that writes and checkpoints, with the data brought to this version. `synced`: a commit returns when
    the disk has it.

    Raises:
        GradwatchError: `data-dir-unusable`: no database of ours, of a newer version, or it cannot be written.
    """
    file = path / DATABASE
    db = sqlite3.connect(file, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        _check_owner(db, file)
        # NORMAL: a commit survives the death of the process; FULL syncs the log in each, so it survives that of the machine.
        # Checkpoints are ours to time, on this connection alone: a checkpoint that races another connection's commit can
        # corrupt SQLite before 3.51.3.
        durability = "FULL" if synced else "NORMAL"
        for pragma in ("journal_mode = WAL", f"synchronous = {durability}", "wal_autocheckpoint = 0", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        # Four chunks: what was just written and is read again. With 16 MiB it wrote no faster, and held them.
        db.execute(f"PRAGMA cache_size = {-4 * 1024}")
        db.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
        migrate(db)
    except sqlite3.Error as error:
        db.close()
        raise unusable(file, "a database that can be written", error) from error
    except GradwatchError:
        db.close()
        raise
    return db


def _check_owner(db: sqlite3.Connection, file: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != APPLICATION_ID:
        raise unusable(file, "a database of gradwatch", "one of another program")
    if version > VERSION:
        raise unusable(
            file,
            f"data of version {VERSION} or older",
            f"version {version}",
            "Upgrade gradwatch, or choose another --data-dir.",
        )


def migrate(db: sqlite3.Connection) -> None:
    """Run the migrations the data has not seen, each in its own transaction with the version it makes."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for number in range(version, VERSION):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in MIGRATIONS[number]:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {number + 1}")
            db.execute("COMMIT")
        except BaseException:
            db.rollback()
            raise


def open_reader(file: Path) -> sqlite3.Connection:
    """A connection that cannot write, for any one thread at a time."""
    uri = f"{file.resolve().as_uri()}?mode=ro"
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA query_only = ON")
    db.execute(f"PRAGMA cache_size = {-8 * 1024}")  # the roll-ups of ten signals over 1 M updates
    return db
