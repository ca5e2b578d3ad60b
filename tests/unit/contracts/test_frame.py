"""The header: every field checked, bad ones named."""

from __future__ import annotations

import struct
import zlib

import pytest

from gradwatch_contracts import limits
from gradwatch_contracts.errors import ContractError
from gradwatch_contracts.frame import HEADER, RETIRED_TYPES, FrameType, decode_frame, encode_frame

GOOD = encode_frame(FrameType.PING, b"body")


def _with(offset: int, fmt: str, value: object) -> bytes:
    frame = bytearray(GOOD)
    struct.pack_into(fmt, frame, offset, value)
    return bytes(frame)


def test_header_is_sixteen_little_endian_bytes() -> None:
    """The layout of docs/protocol.md, byte by byte."""
    assert HEADER.size == 16
    assert b"GRDW" + bytes([1, 16, 0, 0, 4, 0, 0, 0]) + struct.pack("<I", zlib.crc32(b"body")) + b"body" == GOOD


@pytest.mark.parametrize(
    ("frame", "slug", "words"),
    [
        (b"", "frame-malformed", "expected at least 16 bytes, got 0 bytes"),
        (GOOD[:15], "frame-malformed", "got 15 bytes"),
        (_with(0, "<4s", b"HTTP"), "frame-malformed", "header.magic"),
        (_with(4, "<B", 2), "protocol-unsupported", "header.major: expected 1, got 2"),
        (_with(5, "<B", 99), "frame-unknown-type", "header.type: expected 1 to 17, got 99"),
        (_with(6, "<H", 1), "frame-malformed", "header.flags"),
        (_with(8, "<I", 5), "frame-malformed", "header.length: expected 4 bytes, got 5 bytes"),
        (GOOD + b"x", "frame-malformed", "header.length: expected 5 bytes, got 4 bytes"),
        (_with(12, "<I", 1), "frame-corrupt", "header.crc32"),
        (b"\0" * (limits.FRAME_BYTES_MAX + 1), "frame-too-large", f"at most {limits.FRAME_BYTES_MAX} bytes"),
    ],
)
def test_frame_with_a_bad_header_names_field_expected_and_got(frame: bytes, slug: str, words: str) -> None:
    """Each field has its own refusal."""
    with pytest.raises(ContractError) as caught:
        decode_frame(frame)
    assert caught.value.code.slug == slug
    assert words in str(caught.value)


def test_frame_at_the_size_limit_passes_and_one_byte_more_does_not() -> None:
    """The limit is inclusive, and the sender meets it first."""
    largest = limits.FRAME_BYTES_MAX - HEADER.size
    assert decode_frame(encode_frame(FrameType.ARTIFACT, bytes(largest)))[0] is FrameType.ARTIFACT
    with pytest.raises(ContractError, match="larger than the limit"):
        encode_frame(FrameType.ARTIFACT, bytes(largest + 1))


def test_retired_types_are_not_in_use() -> None:
    """A retired number never means something new."""
    assert not RETIRED_TYPES & {int(kind) for kind in FrameType}
