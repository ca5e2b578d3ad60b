"""Recordings that are damaged, foreign or incomplete: refused with the reason, or replayed as far as they go, which is said."""

from __future__ import annotations

import random
import sqlite3
import zlib
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.control import Level
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.offline import replay_stored
from gradwatch_daemon.records import Commit, Run, SignalBlock, SignalKey
from gradwatch_daemon.replay.run import replay_run
from gradwatch_daemon.replay.stream import replay
from gradwatch_daemon.store.recording import Recording, RecordingReader
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.blocks import STREAM, signal_block
from harness.replays import clock, whole
from harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def reader(tmp_path: Path, world: World) -> Iterator[RecordingReader]:
    """A replay's view of the same directory, while the daemon has it."""
    reader = RecordingReader(tmp_path)
    yield reader
    reader.close()


def _spoilt(tmp_path: Path, statement: str, *values: object) -> Recording:
    """A store of 3,000 healthy updates with one statement done to it; its recording."""
    world = World(tmp_path)
    world.greet()
    for _ in range(30):
        world.tick(world.rows.samples(100))
    world.close()
    db = sqlite3.connect(tmp_path / "gradwatch.db")
    db.execute(statement, values)
    db.commit()
    db.close()
    reader = RecordingReader(tmp_path)
    recording = reader.recording("ant-ppo")
    reader.close()
    return recording


@pytest.mark.parametrize(
    ("statement", "values", "rows"),
    [
        ("UPDATE piece SET data = ? WHERE id = (SELECT max(id) FROM piece WHERE id & 8388607 = 1)", (b"\x00garbage",), 1024),
        ("UPDATE piece SET data = ? WHERE id = (SELECT max(id) FROM piece)", (zlib.compress(b"short"),), 1024),
        ("DELETE FROM piece WHERE id = (SELECT max(id) FROM piece WHERE id & 8388607 = 1)", (), 1024),
        ("UPDATE tail SET data = x'0102' WHERE id = (SELECT max(id) FROM tail)", (), 2048),
        ("DELETE FROM chunk WHERE id = (SELECT max(id) FROM chunk)", (), 1024),
    ],
    ids=["bytes", "short", "piece gone", "tail", "chunk gone"],
)
def test_damaged_rows_end_the_replay_there_and_are_inconclusive(
    tmp_path: Path, statement: str, values: tuple[object, ...], rows: int
) -> None:
    """What came before them counts; what is behind them is never silently healthy."""
    recording = _spoilt(tmp_path, statement, *values)
    reader = RecordingReader(tmp_path)
    found = replay_run(recording, reader.blocks, load_profile("default"), clock=clock)
    reader.close()
    assert found.rows == rows
    assert f"cannot be read beyond row {rows}" in " ".join(found.inconclusive)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database of 1,100 updates: a chunk, and tails."""
    path = tmp_path_factory.mktemp("healthy")
    world = World(path)
    world.greet()
    for _ in range(11):
        world.tick(world.rows.samples(100))
    world.close()
    return (path / "gradwatch.db").read_bytes()


@pytest.mark.parametrize("seed", range(25))
def test_any_damage_is_refused_or_said_and_never_a_crash(tmp_path: Path, healthy: bytes, seed: int) -> None:
    """Bytes anywhere, most often where SQLite keeps its own, and files cut short."""
    chance, data = random.Random(seed), bytearray(healthy)
    for _ in range(chance.choice((1, 4, 50))):
        data[chance.randrange(chance.choice((200, 8192, len(data))))] = chance.randrange(256)
    file = tmp_path / "spoilt.db"
    file.write_bytes(data[: len(data) if seed % 5 else chance.randrange(len(data))])
    try:
        found = replay_stored(file, "", "default", {}, against="live")
    except GradwatchError as error:
        found = {"rows": 0, "inconclusive": [error.code.slug]}
    assert found["rows"] == 1100 or found["inconclusive"], found


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "an empty one"), (b"no database" * 100, "not a database"), (None, "no such file")],
    ids=["empty", "text", "missing"],
)
def test_what_is_no_recording_is_refused_with_what_it_is(tmp_path: Path, content: bytes | None, said: str) -> None:
    """Named by its path."""
    file = tmp_path / "some.db"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(GradwatchError, match=said) as refused:
        RecordingReader(file)
    assert refused.value.code.slug == "recording-unreadable"
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(("version", "said"), [(99, "Upgrade"), (0, "gradwatch serve")])
def test_recording_of_another_version_is_refused_with_the_way_out(tmp_path: Path, version: int, said: str) -> None:
    """A replay writes nothing, so it migrates nothing."""
    SqliteStore.open(tmp_path).close()
    with sqlite3.connect(tmp_path / "gradwatch.db") as db:
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    with pytest.raises(GradwatchError, match=said):
        RecordingReader(tmp_path)


def test_recording_in_a_directory_that_cannot_be_written_is_read(tmp_path: Path, world: World) -> None:
    """An archive on a read-only disk: no index of a write-ahead log can be made there."""
    world.greet()
    world.tick(world.rows.samples(30))
    world.close()
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "kept.db").write_bytes((tmp_path / "gradwatch.db").read_bytes())
    shelf.chmod(0o500)
    try:
        reader = RecordingReader(shelf / "kept.db")
        assert whole(reader, "ant-ppo").rows == 30
        reader.close()
    finally:
        shelf.chmod(0o700)
        world.open()


def test_signals_of_a_later_version_are_left_out_and_said(tmp_path: Path) -> None:
    """An unknown column costs itself, not the run."""
    block = signal_block(50)
    signals = (*block.signals, SignalKey("policy.future.stat"))
    values = block.values[[*range(len(block.signals)), 0]]
    status = block.status[[*range(len(block.signals)), 0]]
    columns = (block.update, block.t_ns, block.env_steps, block.level, block.flags)
    run = Run("run", 1, "l", "", {}, {}, {}, None, 1, "finished", Level.NORMAL, None, 0, 0, 0)
    store = SqliteStore.open(tmp_path)
    store.commit(Commit(blocks=(SignalBlock(STREAM, *columns, signals, values, status),), runs=(run,)))
    store.close()
    reader = RecordingReader(tmp_path)
    recording = reader.recording("run")
    found = replay_run(
        recording, reader.blocks, load_profile("default"), unknown=reader.unknown_signals(), clock=clock
    )  # fmt: skip
    reader.close()
    assert "signals this version does not know were left out: policy.future.stat" in found.notes
    plain = replay(STREAM, [block], load_profile("default"))
    assert repr(found.streams[0].detectors) == repr(plain.detectors)


def test_updates_left_out_repeated_and_gone_back_are_counted() -> None:
    """A gap is inconclusive, going back is a note; neither is a crash."""
    blocks = [signal_block(30), signal_block(10, start=35), signal_block(5, start=44), signal_block(3, start=10)]
    found = replay(STREAM, blocks, load_profile("default"))
    assert (found.rows, found.missing, found.backward) == (48, 5, 2)
    assert not [state for state in found.detectors if "failed" in state.reason]
