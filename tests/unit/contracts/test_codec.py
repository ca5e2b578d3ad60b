"""Messages as bytes: the examples, the golden bytes of each version, and what a bad field is told."""

from __future__ import annotations

import json
import zlib
from dataclasses import fields, replace
from pathlib import Path

import msgpack
import pytest

from gradwatch_contracts import codec, limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.errors import ContractError
from gradwatch_contracts.frame import HEADER, MAGIC, FrameType
from harness.messages import EXAMPLES, SAMPLES, SCHEMA

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "protocol-1.json").read_text())


def _body(name: str) -> object:
    return msgpack.unpackb(codec.encode(EXAMPLES[name])[HEADER.size :])


def _frame(name: str, body: object) -> bytes:
    packed = msgpack.packb(body)
    return HEADER.pack(MAGIC, 1, FrameType[name], 0, len(packed), zlib.crc32(packed)) + packed


def test_examples_cover_every_frame_type() -> None:
    """A new frame type without an example fails here."""
    assert set(EXAMPLES) == {kind.name for kind in FrameType}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example_leaves_no_field_at_its_default(name: str) -> None:
    """The round trips below mean something only for non-default values."""
    message = EXAMPLES[name]
    for field in fields(message):
        assert getattr(message, field.name) != field.default, field.name


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example_round_trips(name: str) -> None:
    """Every field comes back as it went."""
    assert codec.decode(codec.encode(EXAMPLES[name])) == EXAMPLES[name]


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_golden_bytes_of_version_1_are_what_we_write_and_read(name: str) -> None:
    """Bytes written by the first release decode for ever, and today's encoder still writes them."""
    golden = bytes.fromhex(GOLDEN[name])
    assert codec.decode(golden) == EXAMPLES[name]
    assert codec.encode(EXAMPLES[name]) == golden


def test_unknown_key_is_skipped() -> None:
    """A newer agent may say more."""
    body = _body("ACK")
    assert isinstance(body, dict)
    assert codec.decode(_frame("ACK", {**body, "later": 1})) == EXAMPLES["ACK"]


def test_unknown_tail_of_samples_is_skipped() -> None:
    """The positional message grows only at its end."""
    body = _body("SAMPLES")
    assert isinstance(body, list)
    assert codec.decode(_frame("SAMPLES", [*body, "later"])) == SAMPLES


def test_missing_key_with_default_takes_the_default() -> None:
    """An older agent may say less."""
    body = _body("HELLO")
    assert isinstance(body, dict)
    del body["group"]
    message = codec.decode(_frame("HELLO", body))
    assert isinstance(message, m.Hello)
    assert message.group == ""


def test_missing_required_key_names_it() -> None:
    """The error says which field is absent."""
    body = _body("HELLO")
    assert isinstance(body, dict)
    del body["run"]
    with pytest.raises(ContractError, match=r"HELLO\.run: expected a value, got nothing"):
        codec.decode(_frame("HELLO", body))


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("HELLO", "rank", "0", r"HELLO\.rank: expected an integer of 0 to 1000000, got str '0'"),
        ("HELLO", "rank", True, r"HELLO\.rank: expected an integer"),
        ("HELLO", "world", 0, r"HELLO\.world: expected an integer of 1"),
        ("HELLO", "level", 4, r"HELLO\.level: expected an integer of 0 to 3, got int 4"),
        ("HELLO", "config", {"a": [1]}, r"HELLO\.config\.a: expected text, a number"),
        ("HELLO", "tags", {"a": 1}, r"HELLO\.tags\.a: expected text"),
        ("HELLO", "run", "", r"HELLO\.run: expected text of 1 to 64"),
        ("HELLO", "verbs", "stop", r"HELLO\.verbs: expected a list"),
        ("HELLO", "replay", 1, r"HELLO\.replay: expected true or false"),
        ("RESULT", "update", -1, r"RESULT\.update: expected an integer of 0"),
        ("SCHEMA", "columns", [["a", "", "mean", "sum"]], r"SCHEMA\.columns\[0\]: expected a column kind"),
        ("SCHEMA", "columns", [["a", "", "sum", "sum"]] * 2, r"twice"),
        ("LEVEL", "desired", [1, 2], r"LEVEL\.desired: expected a list of 4"),
        ("ARTIFACT", "data", "text", r"ARTIFACT\.data: expected binary"),
    ],
)
def test_field_of_wrong_kind_names_path_expected_and_got(name: str, key: str, value: object, words: str) -> None:
    """Every rejection says where, what was expected and what came."""
    body = _body(name)
    assert isinstance(body, dict)
    with pytest.raises(ContractError, match=words):
        codec.decode(_frame(name, {**body, key: value}))


@pytest.mark.parametrize("field", ["update", "t_ns", "env_steps", "level", "flags"])
def test_samples_with_an_array_of_wrong_length_is_refused(field: str) -> None:
    """The announced row count and the arrays must agree."""
    with pytest.raises(ContractError, match=rf"SAMPLES\.{field}: expected \d+ bytes"):
        codec.decode(codec.encode(replace(SAMPLES, **{field: b"\0"})))


@pytest.mark.parametrize("rows", [0, limits.ROWS_PER_MESSAGE_MAX + 1])
def test_samples_with_a_row_count_out_of_bounds_is_refused(rows: int) -> None:
    """The bound is checked before any array is looked at."""
    with pytest.raises(ContractError, match=r"SAMPLES\.n: expected an integer of 1 to 256"):
        codec.decode(codec.encode(replace(SAMPLES, n=rows)))


def test_samples_with_an_unknown_level_is_refused() -> None:
    """A level byte beyond DEBUG has no meaning."""
    with pytest.raises(ContractError, match=r"SAMPLES\.level: expected 0 to 3, got 9"):
        codec.decode(codec.encode(replace(SAMPLES, level=bytes([2, 9]))))


def test_rows_that_do_not_fit_their_schema_are_refused() -> None:
    """One slot or one status too few names the field and both sizes."""
    codec.check_rows(SAMPLES, SCHEMA)
    with pytest.raises(ContractError, match=r"SAMPLES\.values: expected 64 bytes, got 56 bytes"):
        codec.check_rows(replace(SAMPLES, values=SAMPLES.values[8:]), SCHEMA)
    with pytest.raises(ContractError, match=r"SAMPLES\.status: expected 4 bytes, got 3 bytes"):
        codec.check_rows(replace(SAMPLES, status=b"\0\0\0"), SCHEMA)
    with pytest.raises(ContractError, match=r"SAMPLES\.status: expected 0 to 12, got 13"):
        codec.check_rows(replace(SAMPLES, status=b"\0\0\0\x0d"), SCHEMA)


def test_body_that_announces_a_huge_list_is_refused_before_it_is_built() -> None:
    """Five bytes must not make the decoder reserve four billion slots."""
    body = b"\xdd\xff\xff\xff\xff"
    frame = HEADER.pack(MAGIC, 1, FrameType.SAMPLES, 0, len(body), zlib.crc32(body)) + body
    with pytest.raises(ContractError, match="body is not the message"):
        codec.decode(frame)


def test_body_with_an_extension_type_is_refused() -> None:
    """No extension types, hence no code of anybody's runs while decoding."""
    packed = msgpack.packb({"seq": msgpack.ExtType(1, b"x")})
    frame = HEADER.pack(MAGIC, 1, FrameType.ACK, 0, len(packed), zlib.crc32(packed)) + packed
    with pytest.raises(ContractError):
        codec.decode(frame)


def test_message_with_a_value_msgpack_cannot_carry_is_our_error() -> None:
    """An integer beyond 64 bits is refused at the sender, not truncated."""
    with pytest.raises(ContractError, match="plain values"):
        codec.encode(m.Ack(2**70))
