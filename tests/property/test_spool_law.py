"""The law of outbox and spool together, under any order of puts, acks, failing disks, connections and kills of the trainer."""

from __future__ import annotations

import struct

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gradwatch_agent.inbox import RECORD_BYTES
from gradwatch_agent.outbox import Outbox
from gradwatch_agent.spool.disk import Spool
from gradwatch_agent.spool.leftover import Leftover
from gradwatch_agent.spool.spilling import RETRY_S, SpillingOutbox
from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.segments import seqs_of
from harness.outgoing import NARROW, WIDE, hello, put_row, row
from harness.spools import MemoryFiles

SEGMENT_BYTES = 600


class SpoolAgainstStore(RuleBasedStateMachine):
    """The model is a daemon that takes each seq once and in order, and may forget all; the trainer's process may be killed."""

    @initialize(rows=st.integers(2, 12), room=st.integers(800, 6_000), window=st.integers(1, 40))
    def begin(self, rows: int, room: int, window: int) -> None:
        self._segment_bytes, limits.SPOOL_SEGMENT_BYTES = limits.SPOOL_SEGMENT_BYTES, SEGMENT_BYTES
        self.files = MemoryFiles()
        self.memory = Outbox(rows * (RECORD_BYTES + 20), 4 * (RECORD_BYTES + 20))
        self.room = room
        self.disk = Spool(self.files, hello, room)
        self.now = 0.0
        self.outgoing: SpillingOutbox | Leftover = SpillingOutbox(self.memory, self.disk, self.now)
        self.window = window
        self.puts = 0
        self.live = self.killed = False
        self.pipe: list[m.Message] = []
        self.schemas: set[str] = set()
        self.stored: list[object] = []
        self.acked = -1
        self.on_disk = -1

    @precondition(lambda self: not self.killed)
    @rule(count=st.integers(1, 40), wide=st.booleans())
    def put(self, count: int, wide: bool) -> None:
        for _ in range(count):
            put_row(self.memory, row(self.puts, WIDE if wide else NARROW))
            self.puts += 1

    @precondition(lambda self: not self.killed)
    @rule()
    def put_event(self) -> None:
        self.memory.put_event("note", self.puts, 1)
        self.puts += 1

    @rule(wait_s=st.sampled_from([0.01, limits.SPOOL_AFTER_S + 0.1, RETRY_S]))
    def tend(self, wait_s: float) -> None:
        self.now += wait_s
        self.outgoing.tend(self.live, self.now)
        self.on_disk = max(self.on_disk, self.disk.last_seq)

    @rule(failing=st.booleans())
    def disk_fails(self, failing: bool) -> None:
        self.files.failing = failing

    @precondition(lambda self: self.live)
    @rule(credit=st.sampled_from([100, 2_000, limits.WINDOW_BYTES]))
    def take(self, credit: int) -> None:
        self.pipe += self.outgoing.take(self.window, credit)

    @rule(count=st.integers(1, 9))
    def deliver(self, count: int) -> None:
        for message in self.pipe[:count]:
            self._store(message)
        del self.pipe[:count]

    def _store(self, message: m.Message) -> None:
        if isinstance(message, m.SchemaMessage):
            self.schemas.add(str(len(message.columns)))
        if isinstance(message, m.Samples):
            assert str(2 if message.schema == WIDE.id else 1) in self.schemas, "rows of a schema that was not sent"
        seqs = seqs_of(message)
        for seq in range(seqs[0], seqs[1] + 1) if seqs else ():
            assert seq <= len(self.stored), "a hole that no LOSS covers"
            if seq == len(self.stored):
                at = 8 * (seq - seqs[0]) if seqs else 0
                row_update = struct.unpack_from("<q", message.update, at)[0] if isinstance(message, m.Samples) else None
                assert row_update in (None, seq), "a row under another number"
                self.stored.append(None if isinstance(message, m.Loss) else seq)

    @precondition(lambda self: self.live)
    @rule(lag=st.integers(0, 5))
    def ack(self, lag: int) -> None:
        self.acked = max(self.acked, len(self.stored) - 1 - lag)
        self.outgoing.ack(self.acked)

    @rule(survives=st.booleans(), live=st.booleans())
    def connect(self, survives: bool, live: bool) -> None:
        """What was in the pipe is gone; the store has at least what it acked, or is a new one."""
        if not survives:
            self.stored.clear()
            if self.killed:  # what only the old store and the dead process had is gone with both
                self.puts = self.disk.last_seq + 1
        self.pipe.clear()
        self.schemas.clear()
        self.live = live
        self.acked = len(self.stored) - 1
        if live:
            self.outgoing.rewind(self.acked)

    @precondition(lambda self: not self.killed)
    @rule()
    def kill(self) -> None:
        """Memory is gone; the next process finds the disk."""
        self.killed = True
        self.files.failing = False
        left = Leftover(self.files)
        self.disk, self.outgoing = left._disk, left
        self.disk._bytes_max = self.room
        assert self.disk.last_seq <= self.on_disk
        self.puts = max(len(self.stored), self.disk.last_seq + 1)
        self.connect(survives=True, live=False)

    @invariant()
    def law_holds(self) -> None:
        if not hasattr(self, "outgoing"):
            return
        assert self.disk.bytes_held == sum(map(len, self.files.data.values()))
        if not self.killed:
            self.memory.absorb()
            outbox = self.memory
            assert outbox.accepted == self.puts == outbox.acked + outbox.pending + outbox.lost + outbox.spooled

    def teardown(self) -> None:
        """A daemon that is there in the end has every seq once, in order, or its LOSS; nothing is left on the disk."""
        if not hasattr(self, "outgoing"):
            return
        limits.SPOOL_SEGMENT_BYTES = self._segment_bytes
        self.files.failing = False
        self.connect(survives=True, live=True)
        for _ in range(10_000):
            self.take(limits.WINDOW_BYTES)
            if not self.pipe:
                break
            self.deliver(len(self.pipe))
            self.outgoing.ack(len(self.stored) - 1)
        assert self.outgoing.settled
        assert len(self.stored) == self.puts
        assert not self.files.data


TestSpoolLaw = SpoolAgainstStore.TestCase
TestSpoolLaw.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
