"""Data that any released version left is opened, brought up to date, read and continued, with nothing of it changed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records import Commit
from gradwatch_daemon.store import directory
from gradwatch_daemon.store.protocol import AnomalyFilter
from gradwatch_daemon.store.recording import RecordingReader
from gradwatch_daemon.store.schema import MIGRATIONS, VERSION
from gradwatch_daemon.store.sqlite import SqliteStore
from harness import golden_store as golden
from harness.signal_blocks import KEYS, make_block, rows_of

if TYPE_CHECKING:
    from pathlib import Path

STREAM, ROWS = golden.STREAM, golden.ROWS


@pytest.fixture(params=range(1, VERSION + 1))
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data directory as that version left it."""
    file = golden.file_of(request.param)
    assert file.is_file(), f"no {file.name}: a migration needs it; run `python -m harness.golden_store` in tests/"
    with closing(sqlite3.connect(tmp_path / "gradwatch.db")) as db:
        db.executescript(file.read_text(encoding="utf-8"))
    return tmp_path


def check_everything(store: SqliteStore, rows: int) -> None:
    """What `golden_store` wrote is there, field by field, under `rows` updates."""
    assert rows_of(store.blocks_after(STREAM, -1)) == rows_of([make_block(range(rows), stream=STREAM)])
    assert store.row_counts() == {STREAM: (rows, rows - 1)}
    assert store.runs() == [golden.RUN]
    assert store.session("s1") == golden.SESSION
    assert store.open_anomalies() == [golden.ANOMALY]
    assert store.open_escalations() == [golden.ESCALATION]
    assert store.checkpoint(STREAM) == golden.CHECKPOINT
    assert store.marks(STREAM) == [golden.MARK]
    assert store.lost_count("golden") == 10
    reader = store.reader()
    assert reader.anomalies(AnomalyFilter(kind="ratio_explosion")) == [golden.ANOMALY]
    assert reader.escalations("golden") == [golden.ESCALATION]
    assert reader.events("golden", 9) == [golden.MARK, golden.EVENT]
    assert reader.losses("golden") == [golden.LOSS]
    assert reader.tables("golden", 9) == [golden.TABLE]
    assert [(found.key, found.measured, found.value_last) for found in reader.signals(*STREAM)] == [
        (key, rows, float(make_block([rows - 1]).values[place, 0])) for place, key in enumerate(KEYS)
    ]
    assert reader.series(STREAM, KEYS[0], None, None, 10_000).update.tolist() == list(range(rows))
    reader.close()


def test_upgrade_from_each_version_keeps_every_record_and_goes_on(left: Path) -> None:
    """Read, written, compacted, and all of that again after a restart."""
    store = SqliteStore.open(left)
    check_everything(store, ROWS)
    assert rows_of(store.blocks_since_checkpoint(STREAM)) == rows_of([make_block(range(1071, ROWS), stream=STREAM)])
    store.commit(Commit((make_block(range(ROWS, 2100), stream=STREAM),)))
    assert store.compact() == 1
    check_everything(store, 2100)
    store.close()
    store = SqliteStore.open(left)
    check_everything(store, 2100)
    store.close()


def test_upgrade_that_fails_half_way_stops_at_the_last_whole_version(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal says why; nothing of the failed step is there, and the code of the version it stopped at can use it."""
    with monkeypatch.context() as planted:
        planted.setattr(directory, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE planted (x)", "DROP TABLE never_was")))
        planted.setattr(directory, "VERSION", VERSION + 1)
        with pytest.raises(GradwatchError) as refused:
            SqliteStore.open(left)
    assert refused.value.code.slug == "data-dir-unusable"
    assert "never_was" in str(refused.value)
    with closing(sqlite3.connect(left / "gradwatch.db")) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'planted'").fetchone() == (0,)
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    store = SqliteStore.open(left)
    check_everything(store, ROWS)
    store.close()


def test_recording_of_an_older_version_says_what_brings_it_up_to_date(left: Path) -> None:
    """A replay does not write, so it cannot migrate."""
    with closing(sqlite3.connect(left / "gradwatch.db")) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        assert RecordingReader(left).runs() == ["golden"]
        return
    with pytest.raises(GradwatchError) as refused:
        RecordingReader(left)
    assert "gradwatch serve" in str(refused.value)
