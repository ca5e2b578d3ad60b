"""The law of the outbox, under any order of put, take, ack, overflow and reconnect: nothing is lost silently."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gradwatch_agent.inbox import RECORD_BYTES
from gradwatch_agent.outbox import Outbox
from gradwatch_contracts.messages import Event, Loss, Message, Result, Samples, SchemaMessage, Table
from harness.outgoing import NARROW, WIDE, put_row, row

if TYPE_CHECKING:
    from collections.abc import Iterator


def _records(message: Message) -> Iterator[tuple[int, object]]:
    """(seq, what it was) of each record in a message; what was lost is None."""
    if isinstance(message, Samples):
        yield from zip(
            range(message.first_seq, message.first_seq + message.n),
            struct.unpack(f"<{message.n}q", message.update),
            strict=True,
        )
    elif isinstance(message, Loss):
        yield from ((seq, None) for seq in range(message.first_seq, message.last_seq + 1))
    elif isinstance(message, (Event, Table, Result)):
        yield message.seq, message.update


class OutboxAgainstStore(RuleBasedStateMachine):
    """The model is a store that takes each seq once and in order, as the daemon does; connections break at any time."""

    @initialize(rows=st.integers(1, 12), reserve=st.integers(1, 6), window=st.integers(1, 20))
    def begin(self, rows: int, reserve: int, window: int) -> None:
        self.outbox = Outbox(rows * (RECORD_BYTES + 20), reserve * (RECORD_BYTES + 20))
        self.window = window
        self.puts = 0
        self.update = 0
        self.pipe: list[Message] = []
        self.schemas: set[str] = set()
        self.stored: list[object] = []  # index = seq, None = lost
        self.acked = -1

    @rule(count=st.integers(1, 40), wide=st.booleans())
    def put_rows(self, count: int, wide: bool) -> None:
        for _ in range(count):
            put_row(self.outbox, row(self.update, WIDE if wide else NARROW))
            self.update += 1
        self.puts += count

    @rule(count=st.integers(1, 5), reason=st.sampled_from(["device busy", "other"]))
    def lose(self, count: int, reason: str) -> None:
        self.outbox.lose(count, reason)
        self.puts += count

    @rule(kind=st.sampled_from(["event", "result", "table", "huge", "malformed"]))
    def put_other(self, kind: str) -> None:
        if kind == "event":
            self.outbox.put_event("note", self.update, 1)
        elif kind == "result":
            self.outbox.put_result("e1", "applied", self.update)
        elif kind == "malformed":
            put_row(self.outbox, row(self.update, values=b""))
        else:
            self.outbox.put_table("layers", self.update, ("a",), ("b",), bytes(8 if kind == "table" else 100_000))
        self.update += 1
        self.puts += 1

    @rule(messages=st.integers(1, 9))
    def take(self, messages: int) -> None:
        self.pipe += self.outbox.take(self.window, messages_max=messages)

    @rule(which=st.integers(0, 8))
    def spoil(self, which: int) -> None:
        """A message that turns out not to be sendable is replaced before it leaves."""
        if which < len(self.pipe):
            loss = self.outbox.spoil(self.pipe[which], "no")
            if loss is not None:
                self.pipe[which] = loss

    @rule(count=st.integers(1, 9))
    def deliver(self, count: int) -> None:
        for message in self.pipe[:count]:
            if isinstance(message, SchemaMessage):
                self.schemas.add(str(len(message.columns)))
            if isinstance(message, Samples):
                assert str(2 if message.schema == WIDE.id else 1) in self.schemas
            for seq, record in _records(message):
                assert seq <= len(self.stored), "a hole that no LOSS covers"
                if seq == len(self.stored):
                    self.stored.append(record)
        del self.pipe[:count]

    @rule(lag=st.integers(0, 5))
    def ack(self, lag: int) -> None:
        self.acked = max(self.acked, len(self.stored) - 1 - lag)
        self.outbox.ack(self.acked)

    @rule(survives=st.booleans())
    def reconnect(self, survives: bool) -> None:
        """What was in the pipe is gone; the store has at least what it acked, or is a new one and has nothing."""
        if not survives:
            self.stored.clear()
        self.pipe.clear()
        self.schemas.clear()
        self.outbox.rewind(len(self.stored) - 1)
        self.acked = len(self.stored) - 1

    @rule()
    def ack_the_future(self) -> None:
        if not self.pipe:
            self.outbox.ack(len(self.stored) - 1)

    @invariant()
    def law_holds(self) -> None:
        outbox = self.outbox
        outbox.absorb()
        assert outbox.accepted == self.puts
        assert outbox.accepted == outbox.acked + outbox.pending + outbox.lost
        assert outbox.unacked <= self.window + len(outbox._losses_sent)
        assert outbox._rows.bytes <= outbox._bytes_max
        assert outbox._tables.bytes + outbox._notes.bytes <= outbox._reserve_bytes

    def teardown(self) -> None:
        """Whatever happened, a daemon that is there in the end has every seq once, in order."""
        if not hasattr(self, "outbox"):
            return
        self.reconnect(survives=True)
        for _ in range(10_000):
            self.take(8)
            if not self.pipe:
                break
            self.deliver(len(self.pipe))
            self.outbox.ack(len(self.stored) - 1)
        assert self.outbox.settled
        assert len(self.stored) == self.puts
        updates = [update for update in self.stored if update is not None]
        assert updates == sorted(set(updates)), "a record delivered twice or out of order"


TestOutboxLaw = OutboxAgainstStore.TestCase
TestOutboxLaw.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
