"""What is fuzzed: bytes a stranger may send, through the decoder and through the gate. A target raises when a promise breaks.

The first byte of an input says what the rest is. Header and checksum are made here where it says so: a fuzzer does not guess a
CRC, and behind it is where the code is.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gradwatch_contracts.codec import decode, encode
from gradwatch_contracts.columns import Schema
from gradwatch_contracts.errors import ContractError
from gradwatch_contracts.frame import FrameType, encode_frame
from gradwatch_daemon.ingest.gate import Gate, Passed, join_rows
from gradwatch_daemon.ingest.session import LiveSession, Sessions
from gradwatch_daemon.records import Counters, Stream
from harness.messages import EXAMPLES, SCHEMA
from harness.rows import hello

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
_KINDS = tuple(FrameType)


def frame_of(data: bytes) -> bytes:
    """A whole frame: of the type that the first byte names, around the rest; from 128 on the rest as it is."""
    if not data or data[0] >= 128:
        return data[1:]
    return encode_frame(_KINDS[data[0] % len(_KINDS)], data[1:])


def input_of(frame: bytes) -> bytes:
    """The input that gives back a frame of ours."""
    return bytes([_KINDS.index(FrameType(frame[5]))]) + frame[16:]


def fuzz_decode(data: bytes) -> None:
    """Whatever the bytes: a message, which is the same when written and read again, or a ContractError with where and what."""
    try:
        message = decode(frame_of(data))
    except ContractError:
        return
    written = encode(message)
    assert encode(decode(written)) == written  # by bytes: a config may hold NaN


def fuzz_gate(data: bytes) -> None:
    """Frames one after another, each behind its length in two bytes: nothing is raised, seqs go forward without a hole or a
    repeat, and rows that pass have the shape that they say."""
    sessions, counters = Sessions(), Counters()
    gate = Gate(sessions, counters)
    session = LiveSession("s1", b"p", Stream("run", 1, 0), hello(), -1, -1, 0.0)
    session.learn(Schema.of(SCHEMA.columns))
    sessions.open(session)
    at = frames = 0
    covered = -1
    while at + 2 <= len(data) and frames < 64:
        size = int.from_bytes(data[at : at + 2], "little")
        frame, at, frames = frame_of(data[at + 2 : at + 2 + size]), at + 2 + size, frames + 1
        passed = Passed()
        gate.admit(b"p", frame, float(frames), passed)
        before, covered = covered, session.last_seq
        assert before <= covered
        kept = sum(rows.seqs[1] - rows.seqs[0] + 1 for rows in passed.rows)
        kept += len(passed.events) + len(passed.tables) + len(passed.results)
        kept += sum(loss.last_seq - loss.first_seq + 1 for loss in passed.losses)
        assert kept <= covered - before  # an ARTIFACT has a seq too
        for rows in join_rows(passed.rows):
            assert rows.values.shape == (len(rows.update), rows.schema.slots)
            assert rows.status.shape == (len(rows.update), len(rows.schema.columns))
    assert counters.frames == frames


TARGETS: dict[str, Callable[[bytes], None]] = {"decode": fuzz_decode, "gate": fuzz_gate}


def seeds(target: str) -> list[bytes]:
    """One input of every message; for the gate also all of them in one."""
    inputs = [input_of(encode(message)) for message in EXAMPLES.values()]
    if target == "decode":
        return inputs
    framed = [len(part).to_bytes(2, "little") + part for part in inputs if len(part) < 2**16]
    return [*framed, b"".join(framed)]


def corpus(target: str) -> list[bytes]:
    """The seeds, and what earlier fuzzing found to reach further."""
    return seeds(target) + [file.read_bytes() for file in sorted((CORPUS / target).iterdir())]


_EDGES = (
    *(bytes([byte]) for byte in (0, 0x7F, 0x80, 0xC0, 0xC1, 0xFF)),
    b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + bytes(7),
    b"\xdf\xff\xff\xff\xff",
)
"""Bytes that mean something to msgpack or to an integer."""


def mutations(known: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` inputs made of known ones by a few random edits each; not guided by what they reach."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(known))
        for _ in range(chance.randint(1, 6)):
            place, kind = chance.randrange(len(data) + 1), chance.randrange(6)
            if kind == 0 and place < len(data):
                data[place] ^= 1 << chance.randrange(8)
            elif kind == 1 and place < len(data):
                data[place] = chance.randrange(256)
            elif kind == 2:
                data[place:place] = chance.choice(_EDGES)
            elif kind == 3:
                del data[place : place + chance.randint(1, 8)]
            elif kind == 4:
                other = chance.choice(known)
                start = chance.randrange(len(other) + 1)
                data[place:place] = other[start : start + chance.randint(1, 32)]
            else:
                data[place : place + 4] = data[place : place + 4] * chance.randint(2, 64)
        yield bytes(data[: 1 << 16])


def run(target: str, data: bytes) -> None:
    """Run a target; what fails is printed as bytes that can be put into the corpus."""
    try:
        TARGETS[target](data)
    except BaseException:
        print(f"{target} fails on {data!r}", file=sys.stderr)
        raise
