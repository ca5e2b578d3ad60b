"""The simulation with spools: each trainer has a disk in memory that may fail, and what one leaves there when it is killed, or
ends before a daemon took it, the next attempt delivers on a connection of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_agent.desired import DesiredState
from gradwatch_agent.session import Session, State
from gradwatch_agent.spool.disk import Spool
from gradwatch_agent.spool.leftover import Leftover
from gradwatch_agent.spool.spilling import SpillingOutbox
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_contracts.control import Level
from gradwatch_contracts.segments import Segment, read_segment
from gradwatch_daemon.detect.engine import Engine
from gradwatch_daemon.pipeline.pipeline import Pipeline
from gradwatch_daemon.pipeline.work import Now
from gradwatch_daemon.records import Counters
from harness.memory_store import Memory, MemoryStore
from harness.rows import FULL, T0_NS
from harness.simulation import Link, Trainer, World
from harness.spools import MemoryFiles

if TYPE_CHECKING:
    from gradwatch_agent.session import Outgoing
    from gradwatch_daemon.detect.catalogue import Profile


STANDS_OUT = dict(zip((column.name for column in FULL.columns), FULL.offsets, strict=True))["policy.kl.k3.last"]
"""Where a row of `KL_BREACH` differs from all others."""


class WatchedFiles(MemoryFiles):
    """A disk that is looked at when a segment becomes another. `flattened`: one still has rows, but what stood out is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.flattened = False

    def segments(self) -> list[Segment]:
        """All that can be read, in order."""
        return [segment for name in self.names() if (segment := read_segment(self.data[name])) is not None]

    def replace(self, name: str, data: bytes) -> None:
        before, after = _peak(self.data.get(name, b"")), _peak(data)
        super().replace(name, data)
        self.flattened |= after is not None and after != before


def _peak(data: bytes) -> float | None:
    """The largest value of the column that tells rows apart; None without rows."""
    segment = read_segment(data)
    rows = [message for message in (segment.messages if segment else ()) if isinstance(message, m.Samples)]
    values = [value for part in rows for value in np.frombuffer(part.values, "<f8")[STANDS_OUT :: FULL.slots].tolist()]
    return max(values, default=None)


class SpoolingTrainer(Trainer):
    """A trainer with a spool. `promised` is the last record that must be kept or told to be lost, also after its end."""

    def __init__(self, session: str, now_s: float, outbox_bytes: int, first_update: int, room: int) -> None:
        super().__init__(session, now_s, outbox_bytes, first_update)
        self.files = WatchedFiles()
        self.disk = Spool(self.files, lambda: replace(self._hello(), replay=True), room)
        self.records = SpillingOutbox(self.outbox, self.disk, now_s)
        self.session = Session(self._hello, self.records, self.desired, None, now_s)
        self.ended_at: int | None = None

    @property
    def promised(self) -> int:
        """While it lives all it put; afterwards what the disk had, or was acked."""
        return len(self.kinds) - 1 if self.ended_at is None else self.ended_at


@dataclass(slots=True)
class Party:
    """Somebody who sends: the live trainer, or what an earlier one left."""

    link: Link
    session: Session
    records: Outgoing


class SpoolWorld:
    """A run of several attempts, each with its disk, and a daemon that comes and goes."""

    def __init__(self, profile: Profile, outbox_bytes: int, room: int) -> None:
        self.now_s, self.outbox_bytes, self.room, self.profile = 1000.0, outbox_bytes, room, profile
        self.memory, self.counters = Memory(), Counters()
        self.trainers: list[SpoolingTrainer] = []
        self.parties: list[Party] = []
        self.away = False
        self.delivered = 0
        self.open_daemon()
        self.start_trainer()

    @property
    def trainer(self) -> SpoolingTrainer:
        """The one that lives."""
        return self.trainers[-1]

    # What the pipeline wants of a socket.

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Take a frame for whose connection it is."""
        return any(party.link.send(peer, frame) for party in self.parties)

    def wake(self) -> None:
        """Nobody sleeps."""

    def open_daemon(self) -> None:
        """A daemon on what the last one committed; every connection of that one is gone."""
        for party in self.parties:
            party.link.cut()
        if self.memory.written_by is not None:
            self.memory.written_by.close()
        self.store = MemoryStore(self.memory)
        clock = lambda: Now(T0_NS + int(self.now_s * 1e9), self.now_s)  # noqa: E731
        self.pipeline = Pipeline(
            self,  # type: ignore[arg-type]
            self.store,
            Engine(self.profile),
            self.counters,
            lambda _: None,
            clock=clock,
        )

    def end_trainer(self, politely: bool, torn: float = 0.0) -> None:
        """It ends without a daemon that hears it: politely, so that all goes to the disk with a BYE, or by kill -9, when it has
        written a share `torn` of one more record."""
        trainer = self.trainer
        if politely:
            trainer.records.absorb()
            trainer.records.discard("finished")
        record = self.memory.sessions.get(trainer.name)
        trainer.ended_at = max(trainer.disk.last_seq, trainer.outbox.acked_seq, -1 if record is None else record.last_seq)
        trainer.files.failing = False
        if not politely and trainer.files.names():
            frame = encode(m.Event(trainer.disk.last_seq + 1, "note", trainer.update, 1, "cut"))
            trainer.files.data[trainer.files.names()[-1]] += frame[: int(torn * len(frame))]
        self.parties.clear()

    def start_trainer(self) -> None:
        """The next attempt; it delivers first of all what the earlier ones left."""
        for before in self.trainers:
            self._deliver(before)
        update = self.trainer.update if self.trainers else 0
        made = SpoolingTrainer(f"s{len(self.trainers)}", self.now_s, self.outbox_bytes, update, self.room)
        self.trainers.append(made)
        self.parties.append(Party(Link(b"%s-" % made.name.encode()), made.session, made.records))

    def _deliver(self, before: SpoolingTrainer) -> None:
        left = Leftover(before.files)
        if left.greeting is None:
            left.discard()
            return
        hello = replace(left.greeting, replay=True)
        session = Session(lambda: hello, left, DesiredState(Level.OFF), None, self.now_s)
        session.close(left.reason)
        self.parties.append(Party(Link(b"%s+%d-" % (before.name.encode(), len(self.trainers))), session, left))

    def turn(self, seconds: float = 0.1, frames: int = 64) -> None:
        """Everybody hands up to so many frames to the daemon and takes its answers; while it is away, frames are gone."""
        taken = []
        for party in self.parties:
            party.records.tend(party.session.state is State.LIVE, self.now_s)
            for _ in range(frames):
                frame = party.session.frame(self.now_s)
                if frame is None:
                    break
                party.session.sent(self.now_s)
                party.link.up.append((party.link.peer, frame))
            taken += party.link.up
            party.link.up.clear()
        if not self.away:
            self.pipeline.tick(taken)
        for party in list(self.parties):
            answers, party.link.down = party.link.down, []
            for _, frame in answers:
                party.session.receive(frame, self.now_s)
            if isinstance(party.records, Leftover) and party.session.state is State.CLOSED:
                party.records.discard()
                self.parties.remove(party)
                self.delivered += 1
        self.now_s += seconds

    def settle(self, turns: int = 1500) -> bool:
        """Until nothing is left to say, over links without faults."""
        self.away = self.trainer.files.failing = False
        self.trainer.session.close("finished")
        for _ in range(turns):
            self.turn()
            if all(party.session.state in (State.CLOSED, State.REFUSED) for party in self.parties):
                return True
        return False

    stored_updates = World.stored_updates
    lost_seqs = World.lost_seqs
    stream_of = World.stream_of
