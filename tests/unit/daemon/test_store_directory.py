"""What can be wrong with a data directory is refused before anything is written, and said."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import Commit
from gradwatch_daemon.store.schema import VERSION
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.signal_blocks import STREAM, make_block

if TYPE_CHECKING:
    from pathlib import Path

OPEN_AS_NOBODY = """
import os, sys
from gradwatch_daemon.store.sqlite import SqliteStore
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    SqliteStore.open(sys.argv[1])
except Exception as error:
    print(type(error).__name__, error.code.slug, error)
"""


def refusal(path: Path) -> GradwatchError:
    """What opening it says."""
    with pytest.raises(GradwatchError) as refused:
        SqliteStore.open(path)
    assert refused.value.code.slug == "data-dir-unusable"
    return refused.value


def test_open_where_a_file_is_in_the_way_is_refused(tmp_path: Path) -> None:
    """The path itself, or a part of it."""
    (tmp_path / "file").write_text("mine")
    assert "expected a directory that can be written, got File exists" in str(refusal(tmp_path / "file"))
    assert "got Not a directory" in str(refusal(tmp_path / "file" / "data"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_open_without_permission_is_refused_saying_so(tmp_path: Path, mode: int) -> None:
    """In a process without root's rights, for which no directory is closed."""
    path = tmp_path / "data"
    path.mkdir()
    path.chmod(mode)
    done = subprocess.run([sys.executable, "-c", OPEN_AS_NOBODY, str(path)], capture_output=True, text=True, check=False)
    path.chmod(0o700)
    assert done.stdout.startswith("GradwatchError data-dir-unusable The data directory cannot be written.")
    assert "got Permission denied" in done.stdout


def test_open_twice_is_refused_naming_the_process(tmp_path: Path) -> None:
    """Also from another process; it may be opened when the first is closed."""
    store = SqliteStore.open(tmp_path)
    assert f"process {os.getpid()} has it" in str(refusal(tmp_path))
    done = subprocess.run([sys.executable, "-c", OPEN_AS_NOBODY.replace("geteuid() == 0", "geteuid() < 0"), str(tmp_path)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert f"process {os.getpid()} has it" in done.stdout
    store.commit(Commit((make_block(range(3)),)))
    store.close()
    SqliteStore.open(tmp_path).close()


def test_open_of_a_newer_version_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """An older gradwatch must not write into data that it does not understand."""
    SqliteStore.open(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "gradwatch.db")) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = (tmp_path / "gradwatch.db").read_bytes()
    error = refusal(tmp_path)
    assert f"expected data of version {VERSION} or older, got version {VERSION + 1}" in str(error)
    assert "Upgrade gradwatch" in str(error)
    assert (tmp_path / "gradwatch.db").read_bytes() == before


def test_open_of_what_is_no_database_of_ours_is_refused(tmp_path: Path) -> None:
    """Bytes of any kind, and another program's SQLite file."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "gradwatch.db").write_bytes(b"not a database, but long enough to be one" * 40)
    assert "got file is not a database" in str(refusal(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    with closing(sqlite3.connect(tmp_path / "b" / "gradwatch.db")) as db:
        db.execute("CREATE TABLE theirs (x)")
    assert "got one of another program" in str(refusal(tmp_path / "b"))


def test_open_makes_files_that_only_the_owner_reads(tmp_path: Path) -> None:
    """Whatever the umask, also those SQLite makes beside it; wider rights of an old file are taken back."""
    umask = os.umask(0)
    try:
        store = SqliteStore.open(tmp_path / "deep" / "data")
        store.commit(Commit((make_block(range(3)),)))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "deep" / "data").iterdir()}
    finally:
        os.umask(umask)
    assert set(modes) == {"gradwatch.db", "gradwatch.db-wal", "gradwatch.db-shm", "gradwatch.lock"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "deep" / "data").stat().st_mode) == 0o700
    store.close()
    (tmp_path / "deep" / "data" / "gradwatch.db").chmod(0o644)
    SqliteStore.open(tmp_path / "deep" / "data").close()
    assert stat.S_IMODE((tmp_path / "deep" / "data" / "gradwatch.db").stat().st_mode) == 0o600


def test_reader_cannot_write(tmp_path: Path) -> None:
    """Whatever SQL came to be run on it."""
    store = SqliteStore.open(tmp_path / "a dir with ? and #")
    store.commit(Commit((make_block(range(3)),)))
    reader = store.reader()
    with reader._snapshot() as db, pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM tail")
    assert reader.signals(*STREAM)
    reader.close()
    store.close()


def test_reader_in_use_while_it_is_closed_finishes_its_answer(tmp_path: Path) -> None:
    """Shutdown does not pull a connection from under a request."""
    store = SqliteStore.open(tmp_path)
    store.commit(Commit((make_block(range(3)),)))
    reader = store.reader()
    with reader._snapshot() as db:
        reader.close()
        assert db.execute("SELECT count(*) FROM tail").fetchone() == (1,)
    with pytest.raises(sqlite3.ProgrammingError):
        db.execute("SELECT 1")
    store.close()


def test_connections_are_shared_by_threads_that_take_turns(tmp_path: Path) -> None:
    """The pool grows with what runs at once, not with how many threads ever asked."""
    store = SqliteStore.open(tmp_path)
    reader = store.reader()
    for _ in range(5):
        reader.signals(*STREAM)
    assert len(reader._idle) == 1
    reader.close()
    store.close()
