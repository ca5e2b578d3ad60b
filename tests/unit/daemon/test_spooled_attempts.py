"""Sessions that come from a spool: their attempts, what they may change of a run that lives, and the command for them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_agent.spool.disk import Spool
from gradwatch_agent.spool.files import SessionDirectory
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_contracts.segments import BOX
from gradwatch_daemon.importing.spool import is_spool, read_spool
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.command_line import CommandLine
from harness.rows import FULL, RowMaker, hello
from harness.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Any]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def gradwatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    """The command line in an empty directory, where no daemon is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return CommandLine(monkeypatch, capsys, tmp_path / "run")


def _past(there: Any, count: int, session: str, launch: str, **changed: Any) -> None:
    """A session from a spool, whole."""
    peer, rows = session.encode(), RowMaker()
    there.tick(hello(session=session, launch_id=launch, replay=True, **changed), peer=peer)
    there.tick(m.SchemaMessage(FULL.columns), rows.samples(count), peer=peer)
    there.tick(m.Bye(count - 1, "exception"), peer=peer)


def _spooled(root: Path, run: str, session: str, count: int, bye: str = "", first: int = 0) -> SessionDirectory:
    """A spool as an agent leaves it; still locked."""
    files = SessionDirectory(str(root / run / session))
    disk = Spool(files, lambda: replace(hello(run, session, launch_id=session), replay=True))
    disk.store([m.SchemaMessage(FULL.columns), RowMaker(seq=first, update=first).samples(count)])
    if bye:
        disk.say_bye(m.Bye(first + count - 1, bye))
    return files


@pytest.mark.promise("spool-past")
def test_spooled_session_beside_a_live_trainer_takes_nothing_from_it(world: Any) -> None:
    """The run stays with the trainer: its attempt, its state, its last update."""
    world.greet(session="now", launch_id="now")
    world.tick(world.rows.samples(3))
    before = world.view()
    _past(world, 5, "past", "past")
    after = world.view()

    assert (after.run.attempt, after.run.state, after.run.launch_id, after.live) == (1, "live", "now", True)
    assert (after.update_last, after.rows) == (before.update_last, 8)
    assert world.store.row_counts()["ant-ppo", 2, 0] == (5, 4)
    world.tick(hello(session="next", launch_id="next"), peer=b"next")
    assert world.view().run.attempt == 3


def test_ranks_of_a_spooled_launch_share_its_attempt_beside_a_live_trainer(world: Any) -> None:
    """They come one after the other; a second life of a rank is another attempt."""
    world.greet(session="now", launch_id="now")
    for rank in (0, 1):
        _past(world, 2, f"past{rank}", "past", rank=rank, world=2)
    _past(world, 2, "again", "past", rank=0, world=2)
    streams = sorted((attempt, rank) for run, attempt, rank in world.store.row_counts() if rank >= 0)

    assert [stream for stream in streams if stream[0] > 1] == [(2, 0), (2, 1), (3, 0)]


def test_spooled_session_alone_is_the_runs_next_attempt_and_ends_as_it_ended(world: Any) -> None:
    """Nothing lives that it could disturb, so the run shows it: by its crash, or as lost where nobody said."""
    _past(world, 5, "past", "past")
    assert (world.view().run.attempt, world.view().run.state, world.view().live) == (1, "crashed", False)
    world.tick(hello(session="killed", launch_id="killed", replay=True))
    world.tick(m.Bye(-1, "lost"))
    assert (world.view().run.attempt, world.view().run.state) == (2, "lost")


def test_rest_of_a_session_of_an_older_attempt_does_not_make_the_run_live(world: Any) -> None:
    """A trainer was killed, the next attempt ended, then the rest of the first one comes out of its spool."""
    world.greet(session="old", launch_id="old")
    world.tick(world.rows.samples(3))
    world.greet(session="new", launch_id="new")
    world.tick(m.Bye(-1, "closed"))
    world.tick(hello(session="old", launch_id="old", replay=True), peer=b"again")

    assert (world.view().run.attempt, world.view().run.state) == (2, "finished")


def test_import_of_a_path_without_a_spool_is_refused(gradwatch: CommandLine, tmp_path: Path) -> None:
    """It names what would do."""
    ended = gradwatch("import", str(tmp_path), "--data-dir", "data")

    assert ended.code == 5
    assert "progress.csv" in ended.err


@pytest.mark.promise("spool-import")
def test_import_stores_a_spool_once_and_says_what_was_new(gradwatch: CommandLine, tmp_path: Path) -> None:
    """Two runs, one that crashed and one that was killed; the second time nothing is new; `--delete` leaves nothing."""
    root = tmp_path / "spool"
    _spooled(root, "a", "s1", 5, "exception").end()
    _spooled(root, "b", "s2", 3).end()
    assert is_spool(root)
    assert is_spool(root / "a" / "s1")
    first = json.loads(gradwatch("import", str(root), "--data-dir", "data", "--json").out)["sessions"]
    again = json.loads(gradwatch("import", str(root), "--data-dir", "data", "--json", "--delete").out)["sessions"]
    store = SqliteStore.open(tmp_path / "data")
    states = {run.run: run.state for run in store.runs()}
    store.close()

    assert sorted((one["run"], one["records"], one["records_new"], one["ended"]) for one in first) == [
        ("a", 5, 5, "exception"),
        ("b", 3, 3, "lost"),
    ]
    assert [one["records_new"] for one in again] == [0, 0]
    assert states == {"a": "crashed", "b": "lost"}
    assert list(root.iterdir()) == []


@pytest.mark.promise("spool-box")
def test_import_brings_the_black_box_of_a_killed_trainer(gradwatch: CommandLine, tmp_path: Path) -> None:
    """It lies beside the segments; of a session that said how it ended it is no record. Twice is as good as once."""
    root = tmp_path / "spool"
    for run, bye in (("killed", ""), ("crashed", "exception")):
        files = _spooled(root, run, run, 5, bye)
        files.replace(BOX, encode(m.Table(0, "blackbox", 4, ("grad@4",), ("w",), bytes(8))))
        files.end()
    first, again = (json.loads(gradwatch("import", str(root), "--data-dir", "data", "--json").out)["sessions"] for _ in "12")
    store = SqliteStore.open(tmp_path / "data")
    reader = store.reader()
    boxes = {run: [table.kind for table in reader.tables(run, 9)] for run in ("killed", "crashed")}
    reader.close()
    store.close()

    assert {one["run"]: (one["records"], one["records_new"]) for one in first} == {"killed": (6, 6), "crashed": (5, 5)}
    assert [one["records_new"] for one in again] == [0, 0]
    assert boxes == {"killed": ["blackbox"], "crashed": []}


@pytest.mark.promise("spool-crc", "spool-import")
def test_import_names_a_session_of_which_nothing_can_be_told(gradwatch: CommandLine, tmp_path: Path) -> None:
    """Its only HELLO is damaged: which directory, how many bytes and why; what lies beside it is stored."""
    root = tmp_path / "spool"
    _spooled(root, "a", "s1", 5).end()
    _spooled(root, "b", "s2", 3).end()
    (segment,) = (root / "b" / "s2").iterdir()
    data = bytearray(segment.read_bytes())
    data[20] ^= 0xFF
    segment.write_bytes(data)
    ended = gradwatch("import", str(root), "--data-dir", "data", "--json")
    said = gradwatch("import", str(root), "--data-dir", "data", "--delete")
    document = json.loads(ended.out)

    assert document["unread"] == [{"path": str(root / "b" / "s2"), "bytes": len(data)}]
    assert [one["records"] for one in document["sessions"]] == [5]
    assert (ended.code, said.code) == (11, 11)
    assert f"{root / 'b' / 's2'}, {len(data)} bytes: no segment there begins with a whole HELLO" in said.err
    assert segment.exists()


def test_import_of_one_run_leaves_the_others(gradwatch: CommandLine, tmp_path: Path) -> None:
    """`--run` chooses."""
    for run in ("a", "b"):
        _spooled(tmp_path / "spool", run, "s1", 2).end()
    ended = gradwatch("import", str(tmp_path / "spool"), "--data-dir", "data", "--run", "b")

    assert "b: 2 records, 2 of them new, as attempt 1" in ended.out
    assert "a:" not in ended.out


@pytest.mark.promise("spool-busy")
def test_import_leaves_alone_what_a_living_trainer_writes(gradwatch: CommandLine, tmp_path: Path) -> None:
    """It sends that itself; a second connection under its name would throw it out."""
    lives = _spooled(tmp_path / "spool", "a", "s1", 2)
    ended = gradwatch("import", str(tmp_path / "spool"), "--data-dir", "data")
    lives.end()

    assert ended.code == 11
    assert "belongs to a trainer that lives" in ended.err


def test_import_of_a_damaged_spool_tells_what_is_missing(gradwatch: CommandLine, tmp_path: Path) -> None:
    """The records that cannot be read are a loss in the store, and the command says so by 11."""
    files = _spooled(tmp_path / "spool", "a", "s1", 4)
    files.append(files.names()[0], b"torn")
    files.end()
    ended = gradwatch("import", str(tmp_path / "spool"), "--data-dir", "data")
    (session,), _, _ = read_spool(tmp_path / "spool")

    assert ended.code == 11
    assert "4 bytes cannot be read" in ended.err
    assert (session.unread, session.last_seq) == (4, 3)


def test_import_of_a_spool_without_its_beginning_tells_the_loss(gradwatch: CommandLine, tmp_path: Path) -> None:
    """Another daemon had it, or the spool was full."""
    _spooled(tmp_path / "spool", "a", "s1", 4, first=10).end()
    gradwatch("import", str(tmp_path / "spool"), "--data-dir", "data")
    store = SqliteStore.open(tmp_path / "data")
    losses = [(loss.first_seq, loss.last_seq, loss.reason) for loss in store.reader().losses("a")]
    store.close()

    assert losses == [(0, 9, "not in the spool")]
