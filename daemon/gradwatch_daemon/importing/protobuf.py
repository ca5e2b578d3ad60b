"""The few rules of protobuf's wire format that event files use: varints, fixed words and length-delimited fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Value = Union[int, bytes]

VARINT_BYTES_MAX = 10
"""A 64-bit number in groups of seven bits."""


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """(field number, value) in order: an int for a varint, bytes for all others.

    Raises:
        ValueError: for bytes that are not a message.
    """
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        value: Value
        if kind == VARINT:
            value, at = varint(data, at)
        else:
            size = {FIXED64: 8, FIXED32: 4}.get(kind)
            if kind == BYTES:
                size, at = varint(data, at)
            if size is None or at + size > len(data):
                raise ValueError(f"a field of kind {kind} at byte {at} of {len(data)}")
            value, at = data[at : at + size], at + size
        yield tag >> 3, value


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where the next field begins."""
    value = 0
    for place in range(VARINT_BYTES_MAX):
        if at >= len(data):
            raise ValueError("a number is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number of more than {VARINT_BYTES_MAX} bytes")


def signed(value: int) -> int:
    """A varint as the int64 that was meant."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
