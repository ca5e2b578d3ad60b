"""Many made-up trainers in one process: a DEALER each, greeted, sending healthy rows, and when each row was committed."""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
import zmq

from feed import SCHEMA, frames, values_of
from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import decode, encode
from gradwatch_contracts.control import Desired

if TYPE_CHECKING:
    from gradwatch_contracts.connection import Connection

ANSWERS_S = 240.0

SCHEMA_FRAME = encode(m.SchemaMessage(SCHEMA.columns))


class Member:
    """One trainer of a crowd. `made` has (last seq, when its rows were made, the frame) of what is not acked yet; as an agent
    does, it says that it lives, and greets and sends again when it is asked to."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], connection: Connection, run: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(connection.ingest)
        self.hello = encode(m.Hello(run, run, run, 0, 1, "localhost", 1, time.time_ns(), secret=connection.secret))
        self.welcomed = False
        self.acked = -1
        self.made: deque[tuple[int, list[float], bytes]] = deque()
        self.greeted_again = 0
        self._said_s = 0.0
        self.delays_ms: list[float] = []

    def greet(self) -> None:
        """Say HELLO."""
        self.welcomed = False
        self.socket.send(self.hello)

    def send(self, last_seq: int, frame: bytes, made: list[float]) -> None:
        """Send rows that were made at these times."""
        self.made.append((last_seq, made, frame))
        self.socket.send(frame)
        self._said_s = time.perf_counter()

    def live(self) -> None:
        """Say that it lives, where it has said nothing for long."""
        if self.welcomed and time.perf_counter() - self._said_s > limits.HEARTBEAT_S:
            self._said_s = time.perf_counter()
            self.socket.send(encode(m.Ping(time.time_ns())))

    def listen(self) -> None:
        """Take what is there."""
        while True:
            try:
                message = decode(self.socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            if isinstance(message, m.Welcome):
                self.welcomed = True
                self._acked(message.last_seq)
                self.socket.send(SCHEMA_FRAME)
                for _, _, frame in self.made:
                    self.socket.send(frame)
            elif isinstance(message, m.Rehello):
                self.greeted_again += 1
                self.greet()
            elif isinstance(message, m.Ack):
                self._acked(message.seq)

    def _acked(self, seq: int) -> None:
        self.acked, now = seq, time.perf_counter()
        while self.made and self.made[0][0] <= seq:
            self.delays_ms += [(now - at) * 1e3 for at in self.made.popleft()[1]]


class Crowd:
    """So many trainers, each a run of its own."""

    def __init__(self, connection: Connection, name: str, size: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, size + 16)
        self.members = [Member(self._context, connection, f"{name}-{i}") for i in range(size)]
        self._poller = zmq.Poller()
        for member in self.members:
            self._poller.register(member.socket, zmq.POLLIN)
        self._by_socket = {member.socket: member for member in self.members}
        rows = values_of(np.random.default_rng(1), 4096)
        self.ready = {batch: frames(rows, batch) for batch in (1, 2, 32)}

    def greet(self) -> float:
        """Say HELLO all at once; seconds until the last WELCOME."""
        start = time.perf_counter()
        for member in self.members:
            member.greet()
        self.until(lambda: all(member.welcomed for member in self.members))
        return time.perf_counter() - start

    def until(self, done: object, seconds: float = ANSWERS_S) -> None:
        """Listen until `done()`.

        Raises:
            RuntimeError: it took longer.
        """
        deadline = time.perf_counter() + seconds
        while not done():  # type: ignore[operator]
            if time.perf_counter() > deadline:
                raise RuntimeError("the daemon did not answer all in time")
            self.listen(50)

    def listen(self, timeout_ms: float) -> None:
        """Wait for any message and take all."""
        for member in self.members:
            member.live()
        for socket, _ in self._poller.poll(timeout_ms):
            self._by_socket[socket].listen()

    def push(self, batches: int, batch: int = 32) -> None:
        """So many batches of every member, each acked before the next."""
        for number in range(batches):
            for member in self.members:
                last_seq, frame = self.ready[batch][number]
                member.send(last_seq, frame, [time.perf_counter()])
            self.until(lambda: not any(member.made for member in self.members))

    def pace(self, seconds: float, gather_s: float = 0.02) -> list[float]:
        """Each member makes an update every half `gather_s` and sends two together, as the link does; ms from an update's end
        to its ack. Offsets are spread, as those of trainers are."""
        for member in self.members:
            member.delays_ms.clear()
        begin = time.perf_counter()
        offsets = [gather_s * i / len(self.members) for i in range(len(self.members))]
        sent = [0] * len(self.members)
        while time.perf_counter() - begin < seconds:
            now = time.perf_counter()
            for i, member in enumerate(self.members):
                due = begin + offsets[i] + (sent[i] + 1) * gather_s
                if now >= due and sent[i] < len(self.ready[2]):
                    last_seq, frame = self.ready[2][sent[i]]
                    member.send(last_seq, frame, [due - gather_s / 2, due])
                    sent[i] += 1
            self.listen(1)
        self.until(lambda: not any(member.made for member in self.members))
        return [delay for member in self.members for delay in member.delays_ms]

    def close(self) -> None:
        """All at once, without a word."""
        for member in self.members:
            member.socket.close()
        self._context.term()


def flood(connection: Connection, run: str) -> None:
    """A hostile trainer: rows of 256 a frame as fast as the socket takes them, whatever the window says. Until killed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(connection.ingest)
    socket.send(encode(m.Hello(run, run, run, 0, 1, "localhost", 1, time.time_ns(), secret=connection.secret)))
    socket.send(encode(m.SchemaMessage(SCHEMA.columns)))
    rows, first = values_of(np.random.default_rng(2), limits.ROWS_PER_MESSAGE_MAX), 0
    while True:
        socket.send(frames(rows, limits.ROWS_PER_MESSAGE_MAX, first)[0][1])
        first += limits.ROWS_PER_MESSAGE_MAX


def bare(endpoint: str, file: str) -> None:
    """The least that durable ingest costs: a ROUTER that writes frames as blobs, one transaction for what waits, and acks."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(endpoint)
    db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", "CREATE TABLE t (peer BLOB, data BLOB)"):
        db.execute(statement)
    seq: dict[bytes, int] = {}
    while True:
        socket.poll()
        taken = []
        while len(taken) < 512:
            try:
                taken.append(socket.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                break
        db.execute("BEGIN")
        db.executemany("INSERT INTO t VALUES (?, ?)", taken)
        db.execute("COMMIT")
        for peer, frame in taken:
            if peer not in seq:
                seq[peer] = -1
                socket.send_multipart([peer, encode(m.Welcome(1, limits.WINDOW_RECORDS, -1, Desired(0)))])
            elif isinstance(message := decode(frame), m.Samples):
                seq[peer] = message.first_seq + message.n - 1
                socket.send_multipart([peer, encode(m.Ack(seq[peer]))])
