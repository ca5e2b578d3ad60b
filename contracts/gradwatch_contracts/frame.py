"""The 16-byte header in front of every body: magic, major, type, flags, length, crc32.

Everything about a frame is decided from these bytes and the limits before the body is read.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum

from gradwatch_contracts import PROTOCOL_MAJOR, limits
from gradwatch_contracts.errors import ContractError

MAGIC = b"GRDW"
HEADER = struct.Struct("<4sBBHII")
"""magic 4s, major u8, type u8, flags u16, length u32, crc32 u32: 16 bytes, little-endian."""


class FrameType(IntEnum):
    """What the body is. Append-only; a retired number stays listed and is never used again."""

    HELLO = 1
    WELCOME = 2
    REFUSE = 3
    REHELLO = 4
    SCHEMA = 5
    SAMPLES = 6
    TABLE = 7
    EVENT = 8
    RESULT = 9
    LOSS = 10
    ARTIFACT = 11
    BYE = 12
    ACK = 13
    LEVEL = 14
    COMMAND = 15
    PING = 16
    PONG = 17


RETIRED_TYPES: frozenset[int] = frozenset()
"""Numbers that once had a meaning. None yet."""


def encode_frame(kind: FrameType, body: bytes) -> bytes:
    """Return header and body as one frame.

    Raises:
        ContractError: `frame-too-large` when the whole would exceed `limits.FRAME_BYTES_MAX`.
    """
    if HEADER.size + len(body) > limits.FRAME_BYTES_MAX:
        raise ContractError(
            "frame-too-large",
            where=kind.name,
            expected=f"at most {limits.FRAME_BYTES_MAX} bytes",
            got=f"{HEADER.size + len(body)} bytes",
        )
    return HEADER.pack(MAGIC, PROTOCOL_MAJOR, kind, 0, len(body), zlib.crc32(body)) + body


def decode_frame(frame: bytes) -> tuple[FrameType, bytes]:
    """Split a frame into its type and its body, having checked every field of the header.

    Raises:
        ContractError: `frame-malformed`, `frame-too-large`, `protocol-unsupported`, `frame-unknown-type` or
            `frame-corrupt`; never anything else, whatever the bytes.
    """
    if len(frame) > limits.FRAME_BYTES_MAX:
        raise ContractError(
            "frame-too-large", where="frame", expected=f"at most {limits.FRAME_BYTES_MAX} bytes", got=f"{len(frame)} bytes"
        )
    if len(frame) < HEADER.size:
        raise ContractError(
            "frame-malformed", where="header", expected=f"at least {HEADER.size} bytes", got=f"{len(frame)} bytes"
        )
    magic, major, kind, flags, length, crc = HEADER.unpack_from(frame)
    if magic != MAGIC:
        raise ContractError("frame-malformed", where="header.magic", expected=repr(MAGIC), got=repr(magic))
    if major != PROTOCOL_MAJOR:
        raise ContractError("protocol-unsupported", where="header.major", expected=str(PROTOCOL_MAJOR), got=str(major))
    if flags:
        raise ContractError("frame-malformed", where="header.flags", expected="0 (all bits are reserved)", got=hex(flags))
    if length != len(frame) - HEADER.size:
        raise ContractError(
            "frame-malformed", where="header.length", expected=f"{len(frame) - HEADER.size} bytes", got=f"{length} bytes"
        )
    if kind not in _KNOWN:
        raise ContractError("frame-unknown-type", where="header.type", expected=f"1 to {max(_KNOWN)}", got=str(kind))
    body = frame[HEADER.size :]
    if zlib.crc32(body) != crc:
        raise ContractError("frame-corrupt", where="header.crc32", expected=hex(zlib.crc32(body)), got=hex(crc))
    return _KNOWN[kind], body


_KNOWN = {int(kind): kind for kind in FrameType}
