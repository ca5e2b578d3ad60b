"""The codec under arbitrary messages and arbitrary bytes."""

from __future__ import annotations

import zlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch_contracts.codec import decode, encode
from gradwatch_contracts.errors import ContractError
from gradwatch_contracts.frame import HEADER, MAGIC, FrameType
from harness.messages import EXAMPLES, MESSAGES

_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=20) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def _framed(kind: int, body: bytes) -> bytes:
    return HEADER.pack(MAGIC, 1, kind, 0, len(body), zlib.crc32(body)) + body


@given(MESSAGES)
def test_message_of_any_kind_round_trips(message: object) -> None:
    """Decoding an encoded message gives an equal message."""
    assert decode(encode(message)) == message  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_raise_only_contract_error(data: bytes) -> None:
    """No bytes from the wire make the decoder raise anything else."""
    with pytest.raises(ContractError):
        decode(data)


@given(st.sampled_from(FrameType), st.binary(max_size=200))
def test_body_of_any_bytes_decodes_or_raises_contract_error(kind: FrameType, body: bytes) -> None:
    """A valid header in front of arbitrary bytes gives a message or our error."""
    _decodes_or_refuses(_framed(kind, body))


@given(st.sampled_from(FrameType), _JUNK)
def test_body_of_any_values_decodes_or_raises_contract_error(kind: FrameType, value: object) -> None:
    """Well-formed msgpack of the wrong shape gives a message or our error."""
    _decodes_or_refuses(_framed(kind, msgpack.packb(value)))


@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_field_of_any_value_decodes_or_raises_contract_error(name: str, data: st.DataObject) -> None:
    """One field replaced by anything gives a message or our error naming a place."""
    body = msgpack.unpackb(encode(EXAMPLES[name])[HEADER.size :])
    if not body:
        return
    keys = range(len(body)) if isinstance(body, list) else sorted(body)
    body[data.draw(st.sampled_from(keys))] = data.draw(_JUNK)
    _decodes_or_refuses(_framed(FrameType[name], msgpack.packb(body)))


@given(st.sampled_from(sorted(EXAMPLES)), st.integers(0, 10_000), st.integers(0, 7))
def test_frame_with_a_flipped_bit_is_refused(name: str, position: int, bit: int) -> None:
    """Every single flipped bit is found by the header checks or the checksum."""
    frame = bytearray(encode(EXAMPLES[name]))
    frame[position % len(frame)] ^= 1 << bit
    if (position % len(frame)) == 5 and frame[5] in set(FrameType):
        return  # the type byte is not covered by the checksum: another known type may accept the same body
    with pytest.raises(ContractError):
        decode(bytes(frame))


def _decodes_or_refuses(frame: bytes) -> None:
    message: object = None
    refusal: ContractError | None = None
    try:
        message = decode(frame)
    except ContractError as error:
        refusal = error
    if refusal is not None:
        assert refusal.where
    else:
        assert type(message).__name__ in {type(example).__name__ for example in EXAMPLES.values()}
