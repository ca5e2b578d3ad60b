"""TensorBoard event files, decoded without TensorBoard: `events.out.tfevents.*` as `SummaryWriter` writes them.

A file is records of [length u64, masked crc32c of it u32, bytes, masked crc32c of them u32]; each holds one `Event`: wall_time
(1, double), step (2), summary (5) of values (1) with tag (1) and simple_value (2, float) or tensor (8), session_log (7).
Source: tensorboard/compat/proto/{event,summary,tensor}.proto and tensorflow/core/lib/io/record_writer.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from gradwatch_daemon.importing.points import Damage, Log, Point, unreadable
from gradwatch_daemon.importing.protobuf import fields, signed

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

MARK = "tfevents"
"""In the name of every event file."""

RECORD_BYTES_MAX = 256 * 1024 * 1024
"""A longer record is a damaged length."""

CHECKED_BYTES_MAX = 64 * 1024
"""Longer records are images and histograms: no checksum over them, at 0.1 us a byte."""

_HEAD = struct.Struct("<QI")
_FORMATS = {1: "f", 2: "d", 3: "i", 9: "q", 19: "e"}
"""DataType of a tensor → its elements, where they are numbers that a log holds."""

_LISTED = {5: "f", 6: "d", 7: "", 10: ""}
"""Field of a tensor's values outside `tensor_content` → format; '' for varints."""

_START = 1
"""SessionLog: the writer began, and what was written for this step or later is void."""


def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return tuple(found)


_CRC32C = _table()


def masked_crc(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated and shifted as record files have it."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC32C[(value ^ byte) & 0xFF] ^ value >> 8
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(paths: Sequence[Path]) -> Log:
    """All event files of one directory, in order of their names, which begin with the time they were made.

    Another attempt begins where a file starts at a step that a file before it had passed, or where the writer says so.

    Raises:
        GradwatchError: `recording-unreadable` when none of them is an event file.
    """
    log = Log(paths[0], [[]], Damage())
    last: dict[str, int] = {}
    for path in sorted(paths):
        newest = dict(last)
        begun: set[str] = set()
        for event in _events(path, log.damage):
            wall_s, step, points, restarted = _decode(event, path, log)
            back = any(key not in begun and step <= last.get(key, step - 1) for key, _ in points)
            if (restarted or back) and log.attempts[-1]:
                log.attempts.append([])
                last, newest = {}, {}
            for key, value in points:
                begun.add(key)
                newest[key] = max(newest.get(key, step), step)
                log.attempts[-1].append(Point(key, step, wall_s, value))
        last = newest
    if not any(log.attempts) and log.damage:
        raise unreadable(paths[0], "a TensorBoard event file", "; ".join(log.damage.lines()))
    return log


def _events(path: Path, damage: Damage) -> Iterator[bytes]:
    """The records of a file. One that is damaged is left out; behind a damaged length nothing can be found any more."""
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            if len(head) < _HEAD.size:
                damage.cut_short = True
                return
            length, check = _HEAD.unpack(head)
            if masked_crc(head[:8]) != check or length > RECORD_BYTES_MAX:
                rest = path.stat().st_size - file.tell()
                damage.words.append(
                    f"{path.name} is damaged at byte {file.tell() - len(head)}: {rest} bytes behind it are lost"
                )
                return
            data = _body(file, length, damage)
            if data is None:
                return
            if data:
                yield data


def _body(file: BinaryIO, length: int, damage: Damage) -> bytes | None:
    """The bytes of a record, b"" for one whose checksum is wrong, None where the file ends within it."""
    data, check = file.read(length), file.read(4)
    if len(data) < length or len(check) < 4:
        damage.cut_short = True
        return None
    if length <= CHECKED_BYTES_MAX and masked_crc(data) != struct.unpack("<I", check)[0]:
        damage.counts["records with a wrong checksum"] += 1
        return b""
    return data


def _decode(event: bytes, path: Path, log: Log) -> tuple[float, int, list[tuple[str, float]], bool]:
    """(wall seconds, step, numbers, whether the writer began anew) of one event."""
    wall_s, step, points, restarted = 0.0, 0, [], False
    try:
        for number, value in fields(event):
            if number == 1 and isinstance(value, bytes):
                (wall_s,) = struct.unpack("<d", value)
            elif number == 2 and isinstance(value, int):
                step = signed(value)
            elif number == 5 and isinstance(value, bytes):
                points += _summary(value, log.skipped)
            elif number == 7 and isinstance(value, bytes):
                restarted = dict(fields(value)).get(1) == _START
    except (ValueError, struct.error):
        log.damage.counts[f"records of {path.name} that are no events"] += 1
        return wall_s, step, [], False
    return wall_s, step, points, restarted


def _summary(data: bytes, skipped: Counter[str]) -> list[tuple[str, float]]:
    found = []
    for number, value in fields(data):
        if number != 1 or not isinstance(value, bytes):
            continue
        parts = dict(fields(value))
        tag = parts.get(1, b"")
        key = tag.decode("utf-8", "replace") if isinstance(tag, bytes) else ""
        simple, tensor = parts.get(2), parts.get(8)
        scalar = None
        if isinstance(simple, bytes):
            (scalar,) = struct.unpack("<f", simple)
        elif isinstance(tensor, bytes):
            scalar = _scalar(tensor)
        if scalar is None:
            skipped[key] += 1
        else:
            found.append((key, scalar))
    return found


def _scalar(tensor: bytes) -> float | None:
    """The one number of a tensor; None for more of them, or for text."""
    parts: dict[int, int | bytes] = {}
    for number, value in fields(tensor):
        parts[number] = value
    kind, content = parts.get(1), parts.get(4)
    form = _FORMATS.get(kind) if isinstance(kind, int) else None
    if form is None:
        return None
    if isinstance(content, bytes) and content:
        return float(struct.unpack(f"<{form}", content)[0]) if len(content) == struct.calcsize(form) else None
    for number, listed in _LISTED.items():
        held = parts.get(number)
        if isinstance(held, int):
            return float(signed(held))
        if isinstance(held, bytes) and listed and len(held) == struct.calcsize(listed):
            return float(struct.unpack(f"<{listed}", held)[0])
    return None
