"""The queue on a disk: damage and full disks first, then order, thinning and what is left behind."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gradwatch_agent.row import pack_rows
from gradwatch_agent.spool.disk import SPOOL_FULL, Spool
from gradwatch_agent.spool.files import SessionDirectory, sessions_left
from gradwatch_agent.spool.thinning import THINNED, thin
from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_contracts.columns import Column, Kind, RankRule, Schema
from gradwatch_contracts.segments import NOT_SPOOLED, read_segment
from harness.outgoing import NARROW, hello, row
from harness.spools import MemoryFiles, drain, rows, spool, told

BROAD = Schema.of([Column("user", Kind.LAST, RankRule.RANK0, f"key{number}") for number in range(40)])

if TYPE_CHECKING:
    from pathlib import Path


def test_disk_that_takes_nothing_leaves_the_spool_as_it_was() -> None:
    """What raised is not stored; the next write begins where it should."""
    files = MemoryFiles()
    disk = spool(files)
    disk.store(rows(0, 5))
    files.failing = True
    with pytest.raises(OSError, match="No space"):
        disk.store(rows(5, 5))
    files.failing = False
    disk.store(rows(5, 5))

    assert told(drain(disk)) == {seq: seq for seq in range(10)}


def test_schema_that_the_disk_did_not_take_is_written_with_its_rows_later() -> None:
    """Else the next attempt sends rows of which nobody knows the columns."""
    files = MemoryFiles()
    disk = spool(files)
    disk.store(rows(0, 5))
    files.failing = True
    with pytest.raises(OSError, match="No space"):
        disk.store(rows(5, 5, BROAD))
    files.failing = False
    disk.store(rows(5, 5, BROAD))
    schemas = [message.columns for message in drain(Spool(files)) if isinstance(message, m.SchemaMessage)]

    assert schemas == [NARROW.columns, BROAD.columns]


@pytest.mark.parametrize("where", ["end", "middle", "all"])
@pytest.mark.promise("spool-crc")
def test_damaged_segment_is_told_as_lost_and_the_others_come(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that died while it wrote, or a bad disk: the CRC of each frame tells."""
    monkeypatch.setattr(limits, "SPOOL_SEGMENT_BYTES", 1)
    files = MemoryFiles()
    disk = spool(files)
    for first in (0, 40, 80):
        disk.store(rows(first, 40))
    name = files.names()[1]
    data = bytearray(files.data[name])
    place = {"end": len(data) - 3, "middle": len(data) - 900, "all": 20}[where]
    data[place] ^= 0xFF
    files.data[name] = bytes(data)
    said = told(drain(Spool(files)))
    lost = {seq for seq, what in said.items() if what == NOT_SPOOLED}

    assert sorted(said) == list(range(120))
    assert lost == {"end": set(range(72, 80)), "middle": set(range(40, 80)), "all": set(range(40, 80))}[where]
    assert all(said[seq] == seq for seq in set(said) - lost)
    assert not files.data


def test_spool_that_ends_within_a_frame_gives_what_is_before_it() -> None:
    """kill -9 between two bytes of a write."""
    files = MemoryFiles()
    spool(files).store(rows(0, 64))
    (name,) = files.names()
    for cut in range(len(files.data[name]) - 900, len(files.data[name]), 37):
        torn = MemoryFiles()
        torn.data[name] = files.data[name][:cut]
        assert told(drain(Spool(torn))) == {seq: seq for seq in range(32)}


@pytest.mark.promise("spool-private")
def test_segment_never_holds_the_secret() -> None:
    """What lies on a disk for days is no place for it; the HELLO is marked as a replay by whoever sends it."""
    files = MemoryFiles()
    disk = Spool(files, lambda: replace(hello(), secret="", replay=True))
    disk.store(rows(0, 1))
    segment = read_segment(next(iter(files.data.values())))

    assert segment is not None
    assert (segment.hello.secret, segment.hello.replay, segment.hello.session) == ("", True, "session")


@pytest.mark.promise("spool-full")
def test_full_spool_thins_and_keeps_extremes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than its bytes; every record is there or told as lost, and the spike stays."""
    monkeypatch.setattr(limits, "SPOOL_SEGMENT_BYTES", 4_000)
    files = MemoryFiles()
    disk = spool(files, 150_000)
    spike = struct.pack("<40d", *([1e9] * 40))
    for first in range(0, 640, 32):
        packed = [row(u, BROAD, **({"values": spike} if u == 77 else {})) for u in range(first, first + 32)]
        disk.store([m.SchemaMessage(BROAD.columns), pack_rows(first, packed)])
        assert disk.bytes_held == sum(map(len, files.data.values())) <= 150_000
    thinned = told(drain(Spool(files)))
    reasons = {what for what in thinned.values() if isinstance(what, str)}
    assert sorted(thinned) == list(range(640))
    assert reasons == {THINNED}
    assert thinned[77] == 77
    assert sum(isinstance(what, int) for what in thinned.values()) > 640 // 4
    assert all(what == seq for seq, what in thinned.items() if not isinstance(what, str))


@pytest.mark.promise("spool-full")
def test_spool_that_cannot_thin_any_more_drops_from_the_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is newest is what somebody will look at."""
    monkeypatch.setattr(limits, "SPOOL_SEGMENT_BYTES", 2_000)
    files = MemoryFiles()
    disk = spool(files, 12_000)
    for first in range(0, 3_200, 32):
        disk.store(rows(first, 32))
    said = told(drain(Spool(files)))
    dropped = [seq for seq, what in said.items() if what == SPOOL_FULL]

    assert sorted(said) == list(range(3_200))
    assert dropped == list(range(len(dropped)))
    assert len(dropped) > 1_000
    assert said[3_199] == 3_199


@pytest.mark.promise("spool-full")
def test_thinning_keeps_extremes_flags_and_what_is_not_finite() -> None:
    """One of four rows stays, and those are the ones with something to see."""
    values = dict.fromkeys(range(64), bytes(8)) | {9: b"\0\0\0\0\0\0Y@", 20: b"\0\0\0\0\0\0Y\xc0", 33: b"\0\0\0\0\0\0\xf8\x7f"}
    packed = [row(u, values=values[u], flags=1 if u == 50 else 0) for u in range(64)]
    thinned = thin([pack_rows(100, packed[:40]), pack_rows(140, packed[40:]), m.Event(164, "note", 64, 1)])
    said = told(thinned)
    kept = {seq - 100 for seq, what in said.items() if isinstance(what, int)}

    assert sorted(said) == list(range(100, 165))
    assert {0, 9, 20, 33, 50} <= kept
    assert len(kept) <= 64 // 4 + 3
    assert isinstance(said[164], m.Event)


def test_records_in_flight_keep_within_records_and_bytes() -> None:
    """The credit of WELCOME holds for the disk too."""
    disk = spool(MemoryFiles())
    disk.store(rows(0, 320))

    assert sum(part.n for part in disk.take(50) if isinstance(part, m.Samples)) == 50
    assert disk.take(50) == []
    disk.ack(9)
    assert sum(part.n for part in disk.take(50) if isinstance(part, m.Samples)) == 0  # the messages were of 32 and 18
    disk.ack(31)
    assert sum(part.n for part in disk.take(50) if isinstance(part, m.Samples)) == 32
    disk.rewind(31)
    assert sum(part.n for part in disk.take(10_000, 300) if isinstance(part, m.Samples)) == 32


@pytest.mark.promise("window-bytes")
def test_bytes_in_flight_count_for_whatever_is_sent_from_the_disk() -> None:
    """A file of a command or a long text fills a window as rows do."""
    chunk = bytes(limits.ARTIFACT_CHUNK_BYTES)
    parts: list[m.Message] = [m.Artifact(seq, "c1", "trace", seq, 40, chunk) for seq in range(20)]
    parts += [m.Event(seq, "note", 0, 1, "x" * 60_000) for seq in range(20, 40)]
    disk = spool(MemoryFiles())
    disk.store(parts)
    window, sent = 1_000_000, 0
    while sent < 40:
        taken = disk.take(10_000, window, 100)
        size = sum(len(encode(message)) for message in taken)
        assert window <= size < window + 300_000 or sent + len(taken) == 40
        assert disk.take(10_000, window, 100) == []
        sent += len(taken)
        disk.ack(sent - 1)


@pytest.mark.promise("loss-told")
def test_rewound_spool_sends_what_the_daemon_lacks_and_closes_its_gaps() -> None:
    """A daemon may have less than it acked, or more than we know of."""
    files = MemoryFiles()
    disk = spool(files)
    disk.store(rows(10, 60))
    disk.rewind(-1)
    assert told(drain(disk)) == {seq: NOT_SPOOLED if seq < 10 else seq for seq in range(70)}
    disk = spool(files)
    disk.store(rows(10, 60))
    disk.take(10_000)
    disk.rewind(44)
    assert told(drain(disk)) == {seq: seq for seq in range(45, 70)}


def test_record_that_the_daemon_refuses_is_given_up_alone() -> None:
    """Its neighbours in the message are honest."""
    disk = spool(MemoryFiles())
    disk.store(rows(0, 32))
    disk.take(100)
    disk.rewind(11)
    disk.forfeit(12, "refused by the daemon: body-malformed")
    said = told(drain(disk))

    assert {seq for seq, what in said.items() if isinstance(what, str)} == {12}
    assert sorted(said) == list(range(12, 32))


def test_rows_stored_while_the_spool_is_read_come_behind_the_others() -> None:
    """A daemon that comes back takes the past while the trainer makes the present."""
    disk = spool(MemoryFiles())
    disk.store(rows(0, 40))
    sent = disk.take(1_000)
    disk.store(rows(40, 40))
    sent += drain(disk, sent)

    assert told(sent) == {seq: seq for seq in range(80)}
    assert disk.settled


@pytest.mark.promise("spool-private", "spool-gone")
def test_directory_is_private_locked_and_gone_when_all_is_acked(tmp_path: Path) -> None:
    """Nobody else reads it, nobody else sends it while its process lives, and a daemon that has all leaves nothing behind."""
    path = tmp_path / "spool" / "run" / "session"
    files = SessionDirectory(str(path))
    disk = Spool(files, hello)
    assert not path.exists()
    disk.store(rows(0, 3))
    modes = [os.stat(place).st_mode & 0o777 for place in (path, *path.iterdir())]
    assert modes == [0o700, 0o600]
    assert not SessionDirectory(str(path)).lock()
    assert list(sessions_left(str(tmp_path / "spool"), "run")) == [str(path)]
    disk.end()
    again = SessionDirectory(str(path))
    assert again.lock()
    left = Spool(again)
    assert told(drain(left)) == {0: 0, 1: 1, 2: 2}
    left.end()
    assert not (tmp_path / "spool" / "run").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_does_not_hold_the_lock_of_a_trainer_that_ended(tmp_path: Path) -> None:
    """A worker that loads data may live on for seconds; the next attempt is to find the spool free, and not before that end."""
    script = f"""
import os, warnings
from gradwatch_agent.spool.files import SessionDirectory
warnings.simplefilter("ignore", DeprecationWarning)
files = SessionDirectory({str(tmp_path / "session")!r})
files.append("1.seg", b"x")
(ready, says), (waits, ends) = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    os.close(ends)
    os.write(says, b"x")
    os.read(waits, 1)
    os._exit(0)
os.read(ready, 1)
print(SessionDirectory(files.path).lock())
files.end()
print(SessionDirectory(files.path).lock())
os.close(ends)
os.waitpid(child, 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_short_write_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in the middle of a write must not leave half a frame in the way of the next."""
    path = tmp_path / "session"
    files = SessionDirectory(str(path))
    disk = Spool(files, hello)
    disk.store(rows(0, 3))
    write, calls = os.write, []

    def half(descriptor: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) % 2:
            return write(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        disk.store(rows(3, 3))
    monkeypatch.setattr(os, "write", write)
    disk.store(rows(3, 3))
    disk.end()
    assert told(drain(Spool(SessionDirectory(str(path))))) == {seq: seq for seq in range(6)}


def test_short_write_that_cannot_be_taken_back_at_once_is_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a frame in the middle would hide all that comes behind it."""
    files = SessionDirectory(str(tmp_path / "session"))
    files.append("a.gws", b"whole")
    write, truncate = os.write, os.ftruncate

    def half(descriptor: int, data: memoryview) -> int:
        if len(data) < 4:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:3])

    def refuse(descriptor: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", half)
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(OSError, match="Input/output"):
        files.append("a.gws", b"other")
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="Input/output"):
        files.append("a.gws", b"other")
    monkeypatch.setattr(os, "ftruncate", truncate)
    files.append("a.gws", b"other")
    assert files.read("a.gws") == b"wholeother"
    files.remove("a.gws")
    files.end()


def test_spool_that_cannot_make_room_has_stored_nothing_and_takes_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller keeps what raised and comes again: it must not stand on the disk twice."""
    monkeypatch.setattr(limits, "SPOOL_SEGMENT_BYTES", 2000)
    files = MemoryFiles()
    disk = spool(files, bytes_max=8000)
    at = 0
    while disk.bytes_held < 7000:
        disk.store(rows(at, 32))
        at += 32

    def refuse(name: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "replace", refuse)
        before = dict(files.data)
        with pytest.raises(OSError, match="No space"):
            disk.store(rows(at, 32))
        assert (files.data, disk.last_seq) == (before, at - 1)
    disk.store(rows(at, 32))
    assert disk.bytes_held == sum(map(len, files.data.values())) <= 8000
    assert list(told(drain(disk))) == list(range(at + 32))


def test_bye_is_kept_with_the_last_segment() -> None:
    """The next attempt says of the last one how it ended."""
    files = MemoryFiles()
    disk = spool(files)
    disk.store(rows(0, 3))
    disk.say_bye(m.Bye(2, "exception"))

    assert Spool(files).bye == m.Bye(2, "exception")
    assert told(drain(Spool(files))) == {0: 0, 1: 1, 2: 2}


def test_segment_that_is_none_is_read_as_none() -> None:
    """Whatever the bytes."""
    assert read_segment(b"") is None
    assert read_segment(b"GRDW" * 100) is None
    assert read_segment(encode(m.Bye(1))) is None
