"""Event files as TensorBoard's own writers make them, read without TensorBoard; and every way they can be damaged."""

from __future__ import annotations

import struct
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.importing.tfevents import masked_crc, read_events

if TYPE_CHECKING:
    from pathlib import Path

    from gradwatch_daemon.importing.points import Log

NAN, INF = float("nan"), float("inf")


def _writer(path: Path, **given: Any) -> Any:
    """TensorBoard's writer, through torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard's own, of its own imports
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(path), **given)


def _write(path: Path, values: list[tuple[str, float, int]], **given: Any) -> Path:
    """One event file with these scalars; its path."""
    before = set(path.glob("*tfevents*")) if path.exists() else set()
    writer = _writer(path, **given)
    for key, value, step in values:
        writer.add_scalar(key, value, step, walltime=1000.0 + step)
    writer.close()
    (made,) = set(path.glob("*tfevents*")) - before
    return made


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 20 updates with two keys each."""
    values = [(key, step / 8, step) for step in range(1, 21) for key in ("losses/a", "charts/b")]
    return _write(tmp_path_factory.mktemp("plain"), values)


def _record(payload: bytes) -> bytes:
    head = struct.pack("<Q", len(payload))
    return head + struct.pack("<I", masked_crc(head)) + payload + struct.pack("<I", masked_crc(payload))


def _tried(file: Path) -> Log | None:
    """The log, or None where it is refused; anything else is a crash."""
    try:
        return read_events([file])
    except GradwatchError:
        return None


def _points(log: Log) -> list[tuple[str, int, float]]:
    return [(point.key, point.step, point.value) for points in log.attempts for point in points]


def test_event_file_of_the_real_writer_is_read_in_order_with_nan_and_infinities(tmp_path: Path) -> None:
    """Old and new style of scalars, float32 and float64, each bit as written; wall times too."""
    writer = _writer(tmp_path)
    for step, value in enumerate((0.1, NAN, INF, -INF, -0.0)):
        writer.add_scalar("plain", value, step, walltime=50.5 + step)
        writer.add_scalar("new", value, step, new_style=True)
        writer.add_scalar("double", value, step, new_style=True, double_precision=True)
    writer.add_histogram("weights", __import__("numpy").ones(30), 3)
    writer.add_text("words", "hello", 3)
    writer.close()
    (file,) = tmp_path.glob("*tfevents*")
    log = read_events([file])
    found = _points(log)
    single = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    for key, first in (("plain", single), ("new", single), ("double", 0.1)):
        values = [value for name, _, value in found if name == key]
        assert repr(values) == repr([first, NAN, INF, -INF, -0.0])
    assert [point.wall_s for point in log.attempts[0] if point.key == "plain"] == [50.5 + step for step in range(5)]
    assert set(log.skipped) == {"weights", "words/text_summary"}
    assert not log.damage


def test_event_file_equals_what_tensorboard_itself_reads(plain: Path) -> None:
    """The reference decoder, on the same bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

        theirs = [
            (value.tag, event.step, event.wall_time, float(value.tensor.float_val[0]))
            for event in EventFileLoader(str(plain)).Load()
            for value in event.summary.value
        ]
    ours = [(point.key, point.step, point.wall_s, point.value) for point in read_events([plain]).attempts[0]]
    assert ours == theirs
    assert len(ours) == 40


def test_checksum_is_that_of_the_published_vectors() -> None:
    """RFC 3720 B.4: 32 bytes of zeros give 0x8A9136AA before masking."""
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# -- attempts -------------------------------------------------------------------------------------------------------------


def test_second_file_that_starts_at_a_smaller_step_is_another_attempt(tmp_path: Path) -> None:
    """A restart from scratch or from a checkpoint; one that goes on is the same attempt."""
    first = _write(tmp_path, [("a", 1.0, step) for step in range(10)])
    second = _write(tmp_path, [("a", 2.0, step) for step in range(10, 15)], filename_suffix=".1")
    third = _write(tmp_path, [("a", 3.0, step) for step in range(12, 20)], filename_suffix=".2")
    for name, file in (("1", first), ("2", second), ("3", third)):
        file.rename(tmp_path / f"events.out.tfevents.{name}")
    log = read_events(sorted(tmp_path.iterdir()))
    assert [[p.step for p in points] for points in log.attempts] == [list(range(15)), list(range(12, 20))]


def test_writer_that_says_it_began_anew_begins_an_attempt(tmp_path: Path) -> None:
    """`purge_step` writes a SessionLog: what is behind it is void for the old attempt."""
    first = _write(tmp_path, [("a", 1.0, step) for step in range(10)])
    first.rename(tmp_path / "events.out.tfevents.1")
    second = _write(tmp_path, [("a", 2.0, step) for step in range(30, 33)], purge_step=30, filename_suffix=".1")
    log = read_events([tmp_path / "events.out.tfevents.1", second])
    assert [len(points) for points in log.attempts] == [10, 3]


def test_earlier_step_within_a_file_stays_in_its_attempt(tmp_path: Path) -> None:
    """Two threads of one writer are no restart; the assembly counts it."""
    file = _write(tmp_path, [("a", 1.0, 1), ("a", 2.0, 5), ("a", 3.0, 3), ("a", 4.0, 6)])
    assert [[p.step for p in points] for points in read_events([file]).attempts] == [[1, 5, 3, 6]]


# -- damage ---------------------------------------------------------------------------------------------------------------


def test_file_cut_anywhere_gives_its_whole_records_and_says_it_is_cut(plain: Path, tmp_path: Path) -> None:
    """A killed writer leaves a part of a record: nothing before it is lost, and nothing is invented."""
    data, whole = plain.read_bytes(), _points(read_events([plain]))
    cut = tmp_path / "events.out.tfevents.cut"
    for end in range(len(data) - 150, len(data)):
        cut.write_bytes(data[:end])
        log = read_events([cut])
        found = _points(log)
        assert found == whole[: len(found)]
        assert log.damage.cut_short or len(data[:end]) in _ends(data)
        assert not log.damage.lines()


def _ends(data: bytes) -> set[int]:
    ends, at = {0}, 0
    while at < len(data):
        at += 16 + struct.unpack("<Q", data[at : at + 8])[0]
        ends.add(at)
    return ends


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2400), bit=st.integers(0, 7))
def test_file_with_a_flipped_bit_is_never_read_as_if_it_were_whole(plain: Path, tmp_path: Path, at: int, bit: int) -> None:
    """Every bit is under a checksum, so each flip costs its record or what is behind it, and is said."""
    data, whole = bytearray(plain.read_bytes()), _points(read_events([plain]))
    data[at % len(data)] ^= 1 << bit
    damaged = tmp_path / "events.out.tfevents.flipped"
    damaged.write_bytes(data)
    log = _tried(damaged)
    if log is None:
        return
    assert log.damage.lines()
    assert len(_points(log)) <= len(whole)
    assert set(_points(log)) <= set(whole)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=80))
def test_record_of_anything_never_crashes(tmp_path: Path, payload: bytes) -> None:
    """Right checksums around any bytes: a foreign version, or somebody's joke."""
    file = tmp_path / "events.out.tfevents.any"
    file.write_bytes(_record(b"\x1a\x0dbrain.Event:2") + _record(payload))
    log = _tried(file)
    assert log is None or all(isinstance(value, float) for _, _, value in _points(log))


@pytest.mark.parametrize("data", [b"hello, this is no event file at all", bytes(64)], ids=["text", "zeros"])
def test_file_of_something_else_is_refused_with_its_name(tmp_path: Path, data: bytes) -> None:
    """No points and damage from the first byte on."""
    file = tmp_path / "events.out.tfevents.not"
    file.write_bytes(data)
    with pytest.raises(GradwatchError, match=r"events\.out\.tfevents\.not") as refused:
        read_events([file])
    assert refused.value.code.slug == "recording-unreadable"


def test_empty_file_has_no_points_and_no_damage(tmp_path: Path) -> None:
    """A writer that has only just begun."""
    file = tmp_path / "events.out.tfevents.empty"
    file.write_bytes(b"")
    log = read_events([file])
    assert (_points(log), bool(log.damage)) == ([], False)


def test_tensors_of_all_number_types_are_read(tmp_path: Path) -> None:
    """Content as bytes or as a list; more than one element is no scalar."""

    def event(tensor: bytes) -> bytes:
        value = b"\x0a\x01k" + b"\x42" + bytes([len(tensor)]) + tensor
        summary = b"\x0a" + bytes([len(value)]) + value
        return b"\x10\x07" + b"\x2a" + bytes([len(summary)]) + summary

    tensors = [
        (b"\x08\x01\x22\x04" + struct.pack("<f", 1.5), 1.5),
        (b"\x08\x02\x22\x08" + struct.pack("<d", 2.5), 2.5),
        (b"\x08\x03\x22\x04" + struct.pack("<i", -3), -3.0),
        (b"\x08\x09\x22\x08" + struct.pack("<q", 4), 4.0),
        (b"\x08\x13\x22\x02" + struct.pack("<e", 0.5), 0.5),
        (b"\x08\x01\x2a\x04" + struct.pack("<f", 6.0), 6.0),
        (b"\x08\x03\x38\x07", 7.0),
        (b"\x08\x01\x22\x08" + struct.pack("<ff", 1.0, 2.0), None),
        (b"\x08\x07\x22\x02hi", None),
    ]
    for number, (tensor, expected) in enumerate(tensors):
        file = tmp_path / f"events.out.tfevents.{number}"
        file.write_bytes(_record(event(tensor)))
        found = [value for _, _, value in _points(read_events([file]))]
        assert found == ([] if expected is None else [expected]), number
