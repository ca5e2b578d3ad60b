"""A trainer, a link and a daemon with one clock and no sockets, threads or disk: what a machine of faults drives.

The trainer is the agent's own session, outbox and desired state; the daemon is the whole pipeline, over a store in memory that
outlives it. Only the link is made up: it holds the frames that are on their way, and whoever drives it loses, repeats, swaps
and delays them as it likes.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gradwatch_agent.desired import DesiredState
from gradwatch_agent.outbox import Outbox
from gradwatch_agent.row import Row
from gradwatch_agent.session import Session, State
from gradwatch_contracts import limits
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from gradwatch_daemon.detect.catalogue import load_profile
from gradwatch_daemon.detect.engine import Engine
from gradwatch_daemon.pipeline.pipeline import Pipeline
from gradwatch_daemon.pipeline.work import Now
from gradwatch_daemon.records import Counters, Stream
from harness.memory_store import Memory, MemoryStore
from harness.outgoing import put_row
from harness.rows import FULL, T0_NS, healthy, hello

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradwatch_contracts.messages import Hello
    from gradwatch_daemon.detect.catalogue import Profile
    from gradwatch_daemon.records import RunView

RUN = "ant-ppo"
KL_BREACH: Mapping[str, tuple[float, ...]] = {"policy.kl.k3": (1024.0, 0.9, 0.02), "policy.kl.k3.last": (0.9,)}
"""An update that `kl_extreme` and `kl_spike` speak of."""

_PLAIN_STATUS = bytes(Status.UNDEFINED if c.name.endswith(".nonfinite_mb") else Status.MEASURED for c in FULL.columns)


def row_of(update: int, changed: Mapping[str, tuple[float, ...]] | None = None, level: int = 2) -> Row:
    """A row as the agent makes it; `env_steps` tells which it is."""
    values = {**healthy(FULL), **(changed or {})}
    packed = b"".join(struct.pack(f"<{len(values[c.name])}d", *values[c.name]) for c in FULL.columns)
    return Row(update, T0_NS + update * 10**8, update * 256, level, 0, FULL, packed, _PLAIN_STATUS)


@dataclass(slots=True)
class Link:
    """Frames on their way, oldest first. `peer` is the identity of the connection, another one after each cut; `name` is in
    front of it where there is more than one link."""

    name: bytes = b""
    up: list[tuple[bytes, bytes]] = field(default_factory=list)
    down: list[tuple[bytes, bytes]] = field(default_factory=list)
    cuts: int = 0

    @property
    def peer(self) -> bytes:
        """Of the connection of now."""
        return b"%s%d" % (self.name, self.cuts)

    def cut(self) -> None:
        """The connection breaks, and the socket makes a new one by itself: what was on its way is gone, both ways."""
        self.up.clear()
        self.down.clear()
        self.cuts += 1

    # What the pipeline wants of a socket.

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Take a frame for a connection; False when that is gone."""
        if peer != self.peer:
            return False
        self.down.append((peer, frame))
        return True

    def wake(self) -> None:
        """Nobody sleeps."""


class Trainer:
    """One process: what it did is kept here, apart from what the agent made of it.

    `kinds` says, seq by seq, what record was put; `said` counts what the agent said of each escalation.
    """

    def __init__(self, session: str, now_s: float, outbox_bytes: int, first_update: int) -> None:
        self.name = session
        self.outbox = Outbox(outbox_bytes)
        self.desired = DesiredState(Level.NORMAL)
        self.session = Session(self._hello, self.outbox, self.desired, None, now_s)
        self.update = first_update
        self.kinds: list[str] = []
        self.updates: dict[int, int] = {}
        self.applied: dict[str, int] = {}
        self.ended: dict[str, tuple[int, str]] = {}

    def _hello(self) -> Hello:
        return hello(RUN, self.name, update_next=self.update)

    def step(self, changed: Mapping[str, tuple[float, ...]] | None = None) -> None:
        """End one update and begin the next."""
        level, notes = self.desired.boundary(self.update)
        for note in notes:
            known = self.applied if note.state == "applied" else self.ended
            assert note.id not in known, f"{note.id} {note.state} twice"
            if note.state == "applied":
                self.applied[note.id] = note.update
            else:
                self.ended[note.id] = note.update, note.reason
            self.kinds.append("result")
            self.outbox.put_result(note.id, note.state, note.update, note.reason)
        self.updates[self.update] = len(self.kinds)
        self.kinds.append("row")
        put_row(self.outbox, row_of(self.update, changed, level))
        self.update += 1

    def note(self) -> None:
        """Put an event."""
        self.kinds.append("event")
        self.outbox.put_event("note", self.update, T0_NS + self.update, "seen")

    def lose(self, count: int) -> None:
        """Say that rows never became bytes."""
        self.kinds += ["lost"] * count
        self.outbox.lose(count, "device busy")

    @property
    def over(self) -> bool:
        """Whether the session has ended."""
        return self.session.state in (State.CLOSED, State.REFUSED)


class World:
    """All three. `trainers` is every process that ever ran; the last one lives."""

    def __init__(self, outbox_bytes: int = 1 << 20, profile: Profile | None = None) -> None:
        self.now_s = 1000.0
        self.outbox_bytes = outbox_bytes
        self.profile = profile or load_profile("default")
        self.memory, self.link = Memory(), Link()
        self.trainers: list[Trainer] = []
        self.counters = Counters()
        self.open_daemon()
        self.start_trainer()

    @property
    def trainer(self) -> Trainer:
        """The one that lives."""
        return self.trainers[-1]

    @property
    def view(self) -> RunView | None:
        """What HTTP would show of the run."""
        return self.pipeline.snapshots.get(RUN)

    def open_daemon(self) -> None:
        """A daemon on what the last one committed."""
        if self.memory.written_by is not None:
            self.memory.written_by.close()
        self.store = MemoryStore(self.memory)
        self.pipeline = Pipeline(
            self.link,  # type: ignore[arg-type]
            self.store,
            Engine(self.profile),
            self.counters,
            lambda _: None,
            clock=lambda: Now(T0_NS + int(self.now_s * 1e9), self.now_s),
        )

    def kill_daemon(self) -> None:
        """kill -9: what it had not committed never was, and its connections break."""
        self.link.cut()
        self.open_daemon()

    def start_trainer(self) -> None:
        """Another life of the training; the one before it, if any, is gone without a word."""
        self.link.cut()
        update = self.trainer.update if self.trainers else 0
        self.trainers.append(Trainer(f"s{len(self.trainers)}", self.now_s, self.outbox_bytes, update))

    def pump(self, frames: int) -> None:
        """Let the agent hand up to so many frames to the link."""
        for _ in range(frames):
            frame = self.trainer.session.frame(self.now_s)
            if frame is None:
                return
            self.link.up.append((self.link.peer, frame))
            self.trainer.session.sent(self.now_s)

    def arrive(self, frames: int) -> None:
        """Let the daemon take up to so many frames in one tick; none is a tick too."""
        taken, self.link.up[:frames] = self.link.up[:frames], []
        self.pipeline.tick(taken)

    def answer(self, frames: int) -> None:
        """Let the agent take up to so many frames."""
        taken, self.link.down[:frames] = self.link.down[:frames], []
        for _, frame in taken:
            self.trainer.session.receive(frame, self.now_s)

    def flow(self, seconds: float = 0.1) -> None:
        """One round over a link without faults."""
        self.pump(64)
        self.arrive(len(self.link.up))
        self.answer(len(self.link.down))
        self.now_s += seconds

    def settle(self, rounds: int = 400) -> bool:
        """Let everything arrive over a link without faults; whether nothing is left to say."""
        self.link.cut()  # only a new connection makes both sides ask what is missing
        for number in range(rounds):
            self.flow()
            live = self.trainer.session.state is State.LIVE and self.trainer.outbox.settled and not self.link.down
            if live and number * 0.1 > 2 * limits.HEARTBEAT_S:  # a session with nothing to say finds the cut by its PING
                return True
        return self.trainer.over

    def part(self) -> None:
        """Let the trainer say goodbye, and the daemon hear it."""
        self.trainer.session.close("finished")
        for _ in range(8):
            self.flow()

    # What is stored, for an oracle.

    def stored_updates(self) -> dict[int, list[int]]:
        """Updates in order of arrival, by attempt."""
        found: dict[int, list[int]] = {}
        for stream, kept in self.memory.streams.items():
            for _, block in kept.blocks:
                assert block.env_steps.tolist() == [update * 256 for update in block.update.tolist()]
                found.setdefault(stream.attempt, []).extend(block.update.tolist())
        return found

    def lost_seqs(self, session: str) -> Counter[int]:
        """How many LOSS records cover each seq of a session."""
        found: Counter[int] = Counter()
        for loss in self.memory.losses:
            if loss.session == session:
                found.update(range(loss.first_seq, loss.last_seq + 1))
        return found

    def stream_of(self, session: str) -> Stream | None:
        """The stream that a session was given, None for one that never greeted."""
        record = self.memory.sessions.get(session)
        return None if record is None else record.stream
