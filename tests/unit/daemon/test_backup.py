"""A backup is whole, of one moment, private, and never in the way of the writer or of a file that is there."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import Commit
from gradwatch_daemon.store import backup
from gradwatch_daemon.store.backup import back_up
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.signal_blocks import STREAM, make_block

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with 3,000 rows: chunks and tails."""
    opened = SqliteStore.open(tmp_path / "data")
    for first in range(0, 3000, 500):
        opened.commit(Commit(blocks=(make_block(range(first, first + 500)),)))
    opened.compact()
    yield opened
    opened.close()


def _updates(path: Path) -> list[int]:
    """All stored updates of the stream in a data directory or file that nobody has open, in order."""
    home = path if path.is_dir() else path.parent / f"{path.name}-opened"
    if path.is_file():
        home.mkdir(mode=0o700)
        (home / "gradwatch.db").write_bytes(path.read_bytes())
    with closing(SqliteStore.open(home)) as opened:
        return [update for block in opened.blocks_after(STREAM, -1) for update in block.update.tolist()]


def test_backup_of_no_store_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    """A missing directory, an empty one, and the database of another program."""
    (tmp_path / "empty").mkdir()
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    for source in ("absent", "empty", "other.db"):
        with pytest.raises(GradwatchError, match="database"):
            back_up(tmp_path / source, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_backup_onto_a_file_that_is_there_is_refused_and_leaves_it(store: SqliteStore, tmp_path: Path) -> None:
    """Last night's backup is not overwritten by accident."""
    (tmp_path / "copy.db").write_text("last night's")
    with pytest.raises(GradwatchError, match="Choose another name"):
        back_up(tmp_path / "data", tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "last night's"


def test_backup_that_fails_half_way_leaves_no_file(store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name stands for a whole backup."""

    def fail(source: object, draft: Path) -> None:
        draft.write_bytes(b"half")
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(backup, "_copy", fail)
    with pytest.raises(GradwatchError, match="disk is full"):
        back_up(tmp_path / "data", tmp_path / "copy.db")
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_backup_has_every_row_is_private_and_one_file(store: SqliteStore, tmp_path: Path) -> None:
    """It opens as a data directory of its own."""
    size = back_up(tmp_path / "data", tmp_path / "copy.db")

    copy = tmp_path / "copy.db"
    assert copy.stat().st_size == size
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["copy.db", "data"]
    assert _updates(copy) == list(range(3000))


def test_backup_beside_a_writer_is_a_prefix_of_what_it_wrote(store: SqliteStore, tmp_path: Path) -> None:
    """Commits go on during the copy; each is in it whole or not at all."""
    done = threading.Event()

    def write() -> None:
        first = 3000
        while not done.is_set():
            store.commit(Commit(blocks=(make_block(range(first, first + 7)),)))
            store.compact()
            first += 7

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            back_up(tmp_path / "data", tmp_path / f"copy{number}.db")
    finally:
        done.set()
        writer.join()
    for number in range(5):
        updates = _updates(tmp_path / f"copy{number}.db")
        assert updates == list(range(len(updates)))
        assert len(updates) >= 3000
        assert (len(updates) - 3000) % 7 == 0
