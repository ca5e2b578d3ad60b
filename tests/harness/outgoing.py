"""Rows as the agent makes them, of tiny schemas, what a HELLO of a test says, and what an outbox gives."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from gradwatch_agent.inbox import Draft, size_of
from gradwatch_agent.row import Row
from gradwatch_contracts.columns import Column, Kind, RankRule, Schema
from gradwatch_contracts.messages import Event, Hello, Loss, Message, Result, Samples, Table

if TYPE_CHECKING:
    from gradwatch_agent.outbox import Outbox

NARROW = Schema.of([Column("sys.update_s", Kind.LAST, RankRule.NONE)])
WIDE = Schema.of([Column("sys.update_s", Kind.LAST, RankRule.NONE), Column("policy.kl.k3", Kind.MOMENTS, RankRule.MERGE)])


def row(update: int, schema: Schema = NARROW, status: int = 0, **changes: object) -> Row:
    """A row whose every value is its update."""
    facts: dict[str, object] = {
        "update": update,
        "t_ns": 1_700_000_000_000_000_000 + update,
        "env_steps": 10 * update,
        "level": 2,
        "flags": 0,
        "schema": schema,
        "values": struct.pack("<d", update) * schema.slots,
        "status": bytes([status]) * len(schema.columns),
    }
    return Row(**{**facts, **changes})  # type: ignore[arg-type]


def put_row(outbox: Outbox, row: Row) -> None:
    """As an agent whose update was measured puts it: the link thread makes it."""
    outbox.put_draft(Draft(size_of(row), lambda: (row,)))


def hello() -> Hello:
    """The HELLO of one session."""
    return Hello("run", "launch", "session", rank=0, world=1, host="here", pid=1, started_unix_ns=1)


def seqs_of(messages: list[Message]) -> list[int]:
    """The seq of every record in the messages, losses included."""
    found: list[int] = []
    for message in messages:
        if isinstance(message, Samples):
            found += range(message.first_seq, message.first_seq + message.n)
        elif isinstance(message, Loss):
            found += range(message.first_seq, message.last_seq + 1)
        elif isinstance(message, (Event, Table, Result)):
            found.append(message.seq)
    return found


def take_all(outbox: Outbox, window: int = 10**9) -> list[Message]:
    """Everything that goes out without an ack."""
    messages: list[Message] = []
    while taken := outbox.take(window):
        messages += taken
    return messages


def samples_of(messages: list[Message]) -> list[Samples]:
    """Those with rows."""
    return [message for message in messages if isinstance(message, Samples)]
