"""A whole spool within its bounds, and what of it cannot be read: nothing of others is touched, and what goes is told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gradwatch_agent.spool.delivery import Delivery
from gradwatch_agent.spool.disk import SPOOL_FULL, Spool
from gradwatch_agent.spool.files import SessionDirectory, sessions_left
from gradwatch_agent.spool.room import make_room
from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from harness.outgoing import hello
from harness.spools import drain, rows, told

if TYPE_CHECKING:
    from pathlib import Path

NOW_S = 2_000_000_000.0


def _session(root: Path, name: str, age_s: float, count: int = 100, run: str = "run") -> Path:
    """One that was last written to so many seconds ago, and crashed."""
    path = root / run / name
    files = SessionDirectory(str(path))
    disk = Spool(files, hello)
    for first in range(0, count, 20):
        disk.store(rows(first, 20))
    disk.say_bye(m.Bye(count - 1, "exception"))
    disk.end()
    for place in (*path.iterdir(), path):
        os.utime(place, (NOW_S - age_s, NOW_S - age_s))
    return path


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@pytest.mark.promise("spool-bounded")
def test_directories_of_others_in_the_spools_root_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may name their home: what is not a session of ours is neither counted nor deleted, however old."""
    monkeypatch.setattr(limits, "SPOOL_ROOT_BYTES", 0)
    for name in ("thesis.tex", "00000000000000000000.seg"):
        (tmp_path / "work" / "paper").mkdir(parents=True, exist_ok=True)
        (tmp_path / "work" / "paper" / name).write_bytes(b"x" * 1000)
        os.utime(tmp_path / "work" / "paper" / name, (0, 0))
    said: list[str] = []
    make_room(str(tmp_path), NOW_S, said.append)
    make_room(str(tmp_path / "missing"), NOW_S, said.append)

    assert said == []
    assert _bytes(tmp_path) == 2000


@pytest.mark.promise("spool-bounded", "loss-told")
def test_spool_of_many_sessions_gives_up_the_oldest_and_tells_their_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer is restarted for ever without a daemon: the newest stay whole, and of the others it is known what was lost."""
    monkeypatch.setattr(limits, "SPOOL_SEGMENT_BYTES", 1000)
    paths = [_session(tmp_path, f"s{age}", age, run=f"run{age % 2}") for age in (5, 4, 3, 2, 1)]
    monkeypatch.setattr(limits, "SPOOL_ROOT_BYTES", 3 * _bytes(paths[0]))
    busy = SessionDirectory(str(paths[0]))
    assert busy.lock()
    said: list[str] = []
    make_room(str(tmp_path), NOW_S, said.append)
    busy.end()
    left = [told(drain(Spool(SessionDirectory(str(path))))) for path in paths]

    assert [sorted(one) for one in left] == [list(range(100))] * 5
    assert [set(one.values()) == {SPOOL_FULL} for one in left] == [False, True, True, True, False]
    assert len(said) == 1
    assert "3 sessions are told as lost, 0 are gone" in said[0]


def test_session_that_was_given_up_keeps_its_place_its_end_and_its_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts come in order, and a crash stays a crash."""
    _session(tmp_path, "b-first", 50)
    _session(tmp_path, "a-second", 40)
    monkeypatch.setattr(limits, "SPOOL_ROOT_BYTES", _bytes(tmp_path) - 1)
    make_room(str(tmp_path), NOW_S, [].append)
    first, second = sessions_left(str(tmp_path), "run")
    disk = Spool(SessionDirectory(first))

    assert (os.path.basename(first), os.path.basename(second)) == ("b-first", "a-second")
    assert (disk.bye, disk.last_seq) == (m.Bye(99, "exception"), 99)
    assert {file.stat().st_mtime for file in (tmp_path / "run" / "b-first").iterdir()} == {NOW_S - 50}


@pytest.mark.promise("spool-bounded", "loss-told")
@pytest.mark.parametrize(("damaged", "known"), [(0, 99), (1, 79), (5, None)])
def test_session_is_given_up_by_its_last_segment_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: int, known: int | None
) -> None:
    """Of five the last ones are damaged: what they held nobody knows. None is read where a later one says it all."""
    monkeypatch.setattr(limits, "SPOOL_SEGMENT_BYTES", 1)
    path = _session(tmp_path, "old", 50)
    names = sorted(file.name for file in path.iterdir())
    assert len(names) == 5
    for name in names[5 - damaged :]:
        (path / name).write_bytes(b"\0" * 1000)
    os.utime(path / names[0], (NOW_S - 50, NOW_S - 50))
    reads: list[str] = []
    read = SessionDirectory.read
    monkeypatch.setattr(SessionDirectory, "read", lambda files, name: (reads.append(name), read(files, name))[1])
    monkeypatch.setattr(limits, "SPOOL_ROOT_BYTES", 1)
    monkeypatch.setattr(limits, "SPOOL_AGE_S", 1e12)
    make_room(str(tmp_path), NOW_S, [].append)

    assert reads == names[: -damaged - 2 : -1]
    assert path.exists() is (known is not None)
    if known is not None:
        disk = Spool(SessionDirectory(str(path)))
        assert told(drain(disk)) == dict.fromkeys(range(known + 1), SPOOL_FULL)
        assert disk.bye == (None if damaged else m.Bye(99, "exception"))


@pytest.mark.promise("spool-bounded")
@pytest.mark.parametrize("bound", ["age", "sessions"])
def test_sessions_too_old_or_too_many_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """Nobody will come for them; the log and the daemon hear how much it was."""
    monkeypatch.setattr(limits, "SPOOL_AGE_S" if bound == "age" else "SPOOL_SESSIONS_MAX", 15.0 if bound == "age" else 1)
    _session(tmp_path, "old", 20)
    new = _session(tmp_path, "new", 10)
    said: list[str] = []
    make_room(str(tmp_path), NOW_S, said.append)

    assert list(sessions_left(str(tmp_path), "run")) == [str(new)]
    assert "0 sessions are told as lost, 1 are gone" in said[0]


@pytest.mark.promise("spool-crc")
def test_session_without_a_readable_hello_is_named_with_its_bytes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody knows whose records they were: the log says where they lie, and so does the next attempt to the daemon."""
    path = _session(tmp_path, "damaged", -1e9, 20)  # written to in the future, whenever this runs
    (segment,) = path.iterdir()
    data = bytearray(segment.read_bytes())
    data[20] ^= 0xFF
    segment.write_bytes(data)
    said: list[str] = []
    delivery = Delivery(str(tmp_path), "run", None, said.append)  # type: ignore[arg-type]

    assert not delivery.goes_first(1.0)
    assert len(said) == 1
    assert str(path) in said[0]
    assert f"{len(data)} bytes" in said[0]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert segment.read_bytes() == data
