"""A daemon of one file, for the agent's tests: a real ROUTER in a thread that answers as told and remembers everything."""

from __future__ import annotations

import itertools
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import zmq

from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import decode, encode
from gradwatch_contracts.columns import Schema
from gradwatch_contracts.control import Desired

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


def eventually(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Wait until the condition holds; fail saying what never came."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        pause.wait(0.002)


@dataclass
class Memory:
    """What the daemon has of one session: records by seq, or the reason of the LOSS that covers it. Its store."""

    records: dict[int, object] = field(default_factory=dict)
    losses: dict[int, str] = field(default_factory=dict)
    last_seq: int = -1

    def take(self, first: int, records: list[object], reason: str = "") -> bool:
        """Count what is new; False when something before it is missing."""
        if first > self.last_seq + 1:
            return False
        for seq, record in enumerate(records, first):
            if seq == self.last_seq + 1:
                self.last_seq = seq
                if reason:
                    self.losses[seq] = reason
                else:
                    self.records[seq] = record
        return True


class FakeDaemon:
    """Answers HELLO, acks, keeps what came. Set its attributes at any time; `restart` keeps the store, `wipe` empties it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.silent = False
        self.acking = True
        self.refuse: m.Refuse | None = None
        self.window = 4096
        self.desired = Desired(0)
        self.received: list[m.Message] = []
        self.store: dict[str, Memory] = {}
        self._attempts = itertools.count(1)
        self._outgoing: list[bytes] = []
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._bound = threading.Event()

    def __enter__(self) -> FakeDaemon:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Bind and answer."""
        self._stopping.clear()
        self._bound.clear()
        self._thread = threading.Thread(target=self._run, name="fake-daemon", daemon=True)
        self._thread.start()
        assert self._bound.wait(5), "the fake daemon did not bind"

    def stop(self) -> None:
        """Unbind at once: peers see the connection break."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join(5)
            assert not self._thread.is_alive()
            self._thread = None

    def wipe(self) -> None:
        """Lose the store, as after `rm -r` of the data directory."""
        self.store.clear()

    def send(self, message: m.Message | bytes) -> None:
        """Send to the newest peer, as soon as the thread comes by."""
        self._outgoing.append(message if isinstance(message, bytes) else encode(message))

    def of(self, kind: type) -> list[m.Message]:
        """What came of one kind so far, duplicates included."""
        return [message for message in list(self.received) if isinstance(message, kind)]

    @property
    def memory(self) -> Memory:
        """The store of the only session."""
        (memory,) = self.store.values()
        return memory

    @property
    def last_seq(self) -> int:
        """The last record of the only session, -1 before it."""
        return max((memory.last_seq for memory in self.store.values()), default=-1)

    def updates(self) -> list[int]:
        """The update of each row in the store, in order of seq."""
        return [record for _, record in sorted(self.memory.records.items()) if isinstance(record, int)]

    def _run(self) -> None:
        context = zmq.Context()
        router = context.socket(zmq.ROUTER)
        router.setsockopt(zmq.LINGER, 0)
        try:
            router.bind(self.endpoint)
            self._bound.set()
            peers: dict[bytes, str] = {}
            schemas: dict[bytes, set[str]] = {}
            newest = b""
            while not self._stopping.is_set():
                if router.poll(5):
                    newest, frame = router.recv_multipart()
                    message = decode(frame)
                    self.received.append(message)
                    for reply in [] if self.silent else self._answer(newest, message, peers, schemas):
                        router.send_multipart([newest, encode(reply)])
                while self._outgoing and newest:
                    router.send_multipart([newest, self._outgoing.pop(0)])
        finally:
            router.close(linger=0)
            context.term()

    def _answer(
        self, peer: bytes, message: m.Message, peers: dict[bytes, str], schemas: dict[bytes, set[str]]
    ) -> list[m.Message]:
        if isinstance(message, m.Hello):
            if self.refuse is not None:
                return [self.refuse]
            peers[peer], schemas[peer] = message.session, set()
            memory = self.store.setdefault(message.session, Memory())
            return [m.Welcome(next(self._attempts), self.window, memory.last_seq, self.desired, "fake")]
        if peer not in peers:
            return [m.Rehello()]
        if isinstance(message, m.Ping):
            return [m.Pong(message.t_ns)]
        if isinstance(message, m.SchemaMessage):
            schemas[peer].add(Schema.of(message.columns).id)
        memory = self.store[peers[peer]]
        taken = _take(memory, message, schemas[peer])
        if taken is None:
            return []
        if not taken:
            return [m.Rehello()]
        return [m.Ack(memory.last_seq)] if self.acking else []


def _take(memory: Memory, message: m.Message, schemas: set[str]) -> bool | None:
    """Store the records of a message; None when it has none, False for a gap."""
    if isinstance(message, m.Samples):
        assert message.schema in schemas, "rows of a schema that was not sent on this connection"
        return memory.take(message.first_seq, list(struct.unpack(f"<{message.n}q", message.update)))
    if isinstance(message, m.Loss):
        return memory.take(message.first_seq, [None] * (message.last_seq - message.first_seq + 1), message.reason)
    if isinstance(message, (m.Event, m.Table, m.Result)):
        return memory.take(message.seq, [message])
    return None
