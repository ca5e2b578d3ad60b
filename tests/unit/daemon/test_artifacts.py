"""Files that come for commands: bounded, whole or not at all, also when daemon and trainer are killed in between."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.control import ControlState as State
from gradwatch_contracts.errors import ContractError
from gradwatch_daemon.ingest.gate import check_chunk
from gradwatch_daemon.pipeline.pipeline import THIN_S
from gradwatch_daemon.records.commands import CommandRecord, RequestCommand
from gradwatch_daemon.store.artifacts import ArtifactFiles, safe_name
from gradwatch_daemon.store.protocol import Keep
from harness.rows import T0_NS, hello
from harness.world import World

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = limits.ARTIFACT_CHUNK_BYTES
FULL = b"a" * CHUNK


@pytest.mark.parametrize(
    ("index", "count", "size"),
    [(2, 2, 1), (0, 2, CHUNK - 1), (0, 2, CHUNK + 1), (0, 1, CHUNK + 1), (0, 10_000, CHUNK), (9, 3, 1)],
)
def test_chunk_that_belongs_to_no_file_we_take_is_refused(index: int, count: int, size: int) -> None:
    """Before a byte of it is written."""
    with pytest.raises(ContractError, match="at most 256 chunks"):
        check_chunk(m.Artifact(0, "c", "f", index, count, b"x" * size))


def test_chunk_missing_before_another_spoils_the_file(tmp_path: Path) -> None:
    """A file with a hole is none."""
    files = ArtifactFiles(tmp_path)
    files.write("run", "c1", 0, 3, FULL)
    with pytest.raises(OSError, match="chunk 2"):
        files.write("run", "c1", 2, 3, b"c")
    assert files.find("run", "c1") is None
    assert list(tmp_path.rglob("*.part")) == []


def test_chunks_that_come_twice_make_one_file(tmp_path: Path) -> None:
    """We were killed between the write and the commit, at any chunk, the last one too."""
    for killed_after in range(3):
        files, run = ArtifactFiles(tmp_path), f"run{killed_after}"
        parts = [FULL, b"b" * CHUNK, b"c"]
        for index, data in enumerate(parts):
            size = files.write(run, "c1", index, 3, data)
            if index == killed_after:
                size = ArtifactFiles(tmp_path).write(run, "c1", index, 3, data)
        assert size == 2 * CHUNK + 1
        found = files.find(run, "c1")
        assert found is not None
        assert found.read_bytes() == b"".join(parts)


def test_parts_nobody_will_complete_are_forgotten_and_those_under_way_kept(tmp_path: Path) -> None:
    """A trainer that died half-way leaves a part; after a restart only what is still asked for may go on."""
    files = ArtifactFiles(tmp_path)
    for id_ in ("dead", "alive"):
        files.write("run", id_, 0, 2, FULL)
    files.write("run", "whole", 0, 1, b"all")
    files.forget_parts({("run", "alive")})
    assert sorted(path.name for path in tmp_path.glob("artifacts/*/*")) == ["alive.part", "whole.bin"]
    assert files.write("run", "alive", 1, 2, b"y") == CHUNK + 1


def test_daemon_that_starts_again_deletes_parts_of_commands_that_are_over(world: World) -> None:
    """Whoever was to send the rest is gone, and so is who asked."""
    ArtifactFiles(world.home).write("ant-ppo", "gone", 0, 2, FULL)
    world.restart()
    assert list(world.home.rglob("*.part")) == []


def test_parts_count_towards_the_bound(tmp_path: Path) -> None:
    """Trainers that begin to send and die fill no disk, though no file ever comes whole."""
    files = ArtifactFiles(tmp_path, bytes_max=2 * CHUNK)
    for number in range(4):
        files.write("run", f"c{number}", 0, 2, FULL)
        os.utime(tmp_path / "artifacts" / "run" / f"c{number}.part", (number, number))
    assert sorted(path.name for path in tmp_path.glob("artifacts/*/*")) == ["c2.part", "c3.part"]


def test_files_beyond_the_bound_go_oldest_first(tmp_path: Path) -> None:
    """The newest stays, however large; a part that never became whole goes too."""
    files = ArtifactFiles(tmp_path, bytes_max=25)
    files.write("run", "dead", 0, 2, FULL)
    for age, id_ in enumerate(("a", "b", "c")):
        files.write("run", id_, 0, 1, b"x" * 10)
        os.utime(tmp_path / "artifacts" / "run" / f"{id_}.bin", ns=(age, age))
    assert [files.find("run", id_) is not None for id_ in ("a", "b", "c")] == [False, True, True]
    assert list(tmp_path.rglob("*.part")) == []
    files.write("run", "big", 0, 1, b"x" * 100)
    assert files.find("run", "big") is not None


def test_files_go_by_age_and_by_size_and_none_that_is_still_sent(tmp_path: Path) -> None:
    """The oldest first; a part of a command under way stays however old, one of a command that is over goes like a file."""
    files = ArtifactFiles(tmp_path)
    for age, id_ in enumerate(("a", "b", "c", "d")):
        files.write("run", id_, 0, 1, b"x" * 10)
        os.utime(tmp_path / "artifacts" / "run" / f"{id_}.bin", ns=(100 + age, 100 + age))
    for id_ in ("sent", "dead"):
        files.write("run", id_, 0, 2, FULL)
        os.utime(tmp_path / "artifacts" / "run" / f"{id_}.part", ns=(1, 1))

    def left() -> list[str]:
        return sorted(path.name for path in tmp_path.glob("artifacts/*/*"))

    files.under_way = lambda: {("run", "sent")}
    assert files.thin(Keep(), 10**18) == 0
    assert files.thin(Keep(age_ns=1000), 1101) == 2
    assert left() == ["b.bin", "c.bin", "d.bin", "sent.part"]
    assert files.thin(Keep(bytes_max=CHUNK + 20), 0) == 1
    assert left() == ["c.bin", "d.bin", "sent.part"]
    files.write("run", "e", 0, 1, b"x" * 10)
    assert left() == ["d.bin", "e.bin", "sent.part"]
    assert files.write("run", "sent", 1, 2, b"end") == CHUNK + 3


def test_daemon_that_keeps_an_hour_deletes_older_files_and_not_the_command(tmp_path: Path) -> None:
    """Once a minute; the command still says that a file came, so whoever asks for it learns that it is gone."""
    world = World(tmp_path, keep=Keep(age_ns=3600 * 10**9))
    _asked(world)
    world.tick(m.Artifact(1, "c1", "trace.json.gz", 0, 2, FULL))
    os.utime(tmp_path / "artifacts" / "ant-ppo" / "c1.part", (1, 1))
    for _ in range(int(THIN_S) + 1):
        world.now_s += 1
        world.tick(m.Ping(0))
    world.tick(m.Artifact(2, "c1", "trace.json.gz", 1, 2, b"x"), m.Result(3, "c1", "ended", 7, "updates 4 to 6"))
    found = world.files.find("ant-ppo", "c1")
    assert found is not None, "what a command under way sends is not deleted"
    for age_s, there in ((3500, True), (3700, False)):
        made_ns = T0_NS + int((world.now_s + THIN_S - age_s) * 1e9)
        os.utime(found, ns=(made_ns, made_ns))
        world.now_s += THIN_S
        world.tick()
        assert (world.files.find("ant-ppo", "c1") is not None) is there
    assert _kept(world).artifact is not None
    world.close()


@pytest.mark.parametrize(
    ("name", "safe"), [("../../etc/passwd", "etc-passwd"), ('a"b\r\nc', "a-b-c"), ("", "artifact"), ("x" * 200, "x" * 100)]
)
def test_name_of_a_trainer_is_made_safe(name: str, safe: str) -> None:
    """It stands in a header and becomes a file name."""
    assert safe_name(name) == safe


def _asked(world: World) -> None:
    world.greet(verbs=("profile",))
    world.ask(RequestCommand("ant-ppo", "c1", "profile"))
    world.tick(m.Result(0, "c1", "applied", 3))


def _kept(world: World) -> CommandRecord:
    record = world.store.command("ant-ppo", "c1")
    assert record is not None
    return record


def test_artifact_nobody_asked_for_is_dropped(world: World) -> None:
    """Acked, since the trainer did nothing wrong that a resend would mend."""
    world.greet(verbs=("profile",))
    world.tick(m.Artifact(0, "c1", "trace", 0, 1, b"x"))
    assert world.files.find("ant-ppo", "c1") is None
    assert world.socket.of(m.Ack)[-1] == m.Ack(0)


def test_artifact_that_came_whole_belongs_to_its_command(world: World) -> None:
    """Over a restart in the middle of it, with the chunk before sent again."""
    _asked(world)
    world.tick(m.Artifact(1, "c1", "trace.json.gz", 0, 2, FULL))
    world.restart()
    world.greet(verbs=("profile",))
    world.tick(m.Artifact(1, "c1", "trace.json.gz", 0, 2, FULL), m.Artifact(2, "c1", "trace.json.gz", 1, 2, b"end"))
    world.tick(m.Result(3, "c1", "ended", 7, "updates 4 to 6"))
    record = _kept(world)
    assert (record.state, record.ended_why) == (State.ENDED, "updates 4 to 6")
    assert record.artifact is not None
    assert (record.artifact.name, record.artifact.bytes) == ("trace.json.gz", CHUNK + 3)
    found = world.files.find("ant-ppo", "c1")
    assert found is not None
    assert found.read_bytes() == FULL + b"end"


def test_profile_that_ended_without_its_file_has_failed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A LOSS took a chunk, or the disk was full: nobody must believe that there is a trace."""
    _asked(world)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(world.files, "write", full)
    monkeypatch.setattr(type(world.files), "write", full)
    world.tick(m.Artifact(1, "c1", "trace.json.gz", 0, 1, b"x"), m.Result(2, "c1", "ended", 7, "updates 4 to 6"))
    record = _kept(world)
    assert record.state is State.REJECTED
    assert "did not come whole" in record.ended_why
    assert world.pipeline.trouble == ""


def test_profile_is_of_one_rank_unless_another_is_named(world: World) -> None:
    """One file for a command."""
    world.greet(world=2, verbs=("profile",), launch_id="both")
    world.tick(hello(session="s2", rank=1, world=2, verbs=("profile",), launch_id="both"), peer=b"q")
    world.ask(RequestCommand("ant-ppo", "c1", "profile"))
    assert [one.rank for one in _kept(world).ranks] == [0]
