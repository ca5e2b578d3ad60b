"""A spool's segments as bytes: the frames of one session that no daemon had room or ears for, one behind the other.

A segment begins with the HELLO of its session, `replay` set and without a secret, and holds every SCHEMA that its rows name, so
each one can be read, thinned and dropped by itself. Frames carry their own length and CRC-32; reading ends where one is cut
short or damaged. Files, and which of them to drop, are the agent's `spool`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import decode
from gradwatch_contracts.columns import Schema
from gradwatch_contracts.errors import ContractError
from gradwatch_contracts.frame import HEADER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SUFFIX = ".seg"
"""Of a segment's file, whose name is its first seq with 20 digits: names in order are records in order."""

BOX = "blackbox.tables"
"""The file of a session's newest black box, beside its segments: what is sent of one that ended without a BYE."""

NOT_SPOOLED = "not in the spool"
"""Reason of a LOSS for records that neither daemon nor spool has."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What could be read of one: its HELLO, the messages behind it in order, the BYE of a session that ended, and how many
    bytes at its end could not."""

    hello: m.Hello
    messages: tuple[m.Message, ...]
    bye: m.Bye | None
    unread: int


def segment_name(first_seq: int) -> str:
    """The file name of the segment that begins with this record."""
    return f"{first_seq:020d}{SUFFIX}"


def read_segment(data: bytes) -> Segment | None:
    """Read as much as is whole; None when not even the HELLO is. Raises nothing, whatever the bytes."""
    at, hello, bye = 0, None, None
    messages: list[m.Message] = []
    while at + HEADER.size <= len(data):
        size = HEADER.size + int(HEADER.unpack_from(data, at)[4])
        try:
            message = decode(data[at : at + size])
        except ContractError:
            break
        if hello is None:
            if not isinstance(message, m.Hello):
                return None
            hello = message
        elif isinstance(message, m.Bye):
            bye = message
        elif isinstance(message, m.SchemaMessage) or seqs_of(message) is not None:
            messages.append(message)
        at += size
    return None if hello is None else Segment(hello, tuple(messages), bye, len(data) - at)


def read_box(data: bytes, first_seq: int) -> tuple[m.Table, ...]:
    """The tables of a black box as records from `first_seq` on; none where it is damaged. Raises nothing."""
    at = 0
    tables: list[m.Table] = []
    while at + HEADER.size <= len(data):
        size = HEADER.size + int(HEADER.unpack_from(data, at)[4])
        try:
            message = decode(data[at : at + size])
        except ContractError:
            return ()
        if not isinstance(message, m.Table):
            return ()
        tables.append(replace(message, seq=first_seq + len(tables)))
        at += size
    return tuple(tables)


def seqs_of(message: m.Message) -> tuple[int, int] | None:
    """First and last record that a message carries or covers; None for one without."""
    if isinstance(message, m.Samples):
        return message.first_seq, message.first_seq + message.n - 1
    if isinstance(message, m.Loss):
        return message.first_seq, message.last_seq
    if isinstance(message, (m.Event, m.Table, m.Result, m.Artifact)):
        return message.seq, message.seq
    return None


def without_gaps(messages: Iterable[m.Message], after: int) -> Iterator[m.Message]:
    """What follows record `after`, in order: what is older is left out, and where records are missing a LOSS says so."""
    for message in messages:
        seqs = seqs_of(message)
        if seqs is None:
            yield message
            continue
        first, last = seqs
        if last <= after:
            continue
        if first > after + 1:
            yield m.Loss(after + 1, first - 1, NOT_SPOOLED)
        yield cut_rows(message, after + 1) if isinstance(message, m.Samples) else message
        after = last


def cut_rows(rows: m.Samples, first_seq: int, end_seq: int | None = None) -> m.Samples:
    """The rows from record `first_seq` on, and below `end_seq`; at least one of them must be there."""
    begin = max(first_seq - rows.first_seq, 0)
    end = rows.n if end_seq is None else min(end_seq - rows.first_seq, rows.n)
    if begin == 0 and end == rows.n:
        return rows

    def part(data: bytes) -> bytes:
        width = len(data) // rows.n
        return data[begin * width : end * width]

    return m.Samples(
        rows.first_seq + begin,
        end - begin,
        rows.schema,
        update=part(rows.update),
        t_ns=part(rows.t_ns),
        env_steps=part(rows.env_steps),
        level=part(rows.level),
        flags=part(rows.flags),
        values=part(rows.values),
        status=None if rows.status is None else part(rows.status),
    )


def schema_id(message: m.SchemaMessage) -> str:
    """The id under which rows name it."""
    return Schema.of(message.columns).id
