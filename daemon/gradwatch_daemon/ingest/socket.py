"""The ROUTER socket and the wake-up of the pipeline thread. The only module of the daemon that knows ZeroMQ."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import zmq

from gradwatch_contracts import limits
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.ingest.authenticator import Authenticator, encrypt, make_pair, public_of
from gradwatch_daemon.ingest.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_READ_BYTES = 8 * 1024 * 1024
"""Taken from ZeroMQ at once, to find who else has something behind what one peer floods with: about 4 ms."""

_READ_FRAMES = 8192
"""And as many frames: 1,000 trainers that all have a few waiting after a long tick, about 20 ms."""

_QUEUE_MESSAGES = 1024
"""High-water mark per peer, a backstop only: the window in WELCOME bounds an honest agent below it."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Encryption of an ingest socket: its own secret key in hex, and who may send, asked by public key in hex."""

    secret: str
    registered: Callable[[str], bool]


class IngestSocket:
    """One ROUTER, bound; used by one thread, except `wake`, which any thread may call.

    With `curve` only registered keys get in, and each frame is checked again: a key that was revoked is not heard from then
    on, on connections that are open too.

    Raises:
        GradwatchError: `port-taken` when the endpoint cannot be bound, naming it and the flag to change; `internal` when a
            stranger got past the authenticator in its self-test: then nothing is bound.
    """

    def __init__(self, endpoint: str, curve: Curve | None = None) -> None:
        if curve is not None:
            check_refusal()
        self._context = zmq.Context()
        self._curve, self._authenticator = curve, None
        if curve is not None:
            self._authenticator = Authenticator(self._context, curve.registered)
        self._socket = self._context.socket(zmq.ROUTER)
        if curve is not None:
            encrypt(self._socket, curve.secret)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, limits.FRAME_BYTES_MAX)
        self._socket.setsockopt(zmq.RCVHWM, _QUEUE_MESSAGES)
        self._socket.setsockopt(zmq.SNDHWM, _QUEUE_MESSAGES)
        # Without it ROUTER drops silently; with it a gone peer is an error we can count.
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._strangers = 0
        self._turns = Turns()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise GradwatchError(
                "port-taken",
                where="ingest",
                expected=f"{endpoint} to be free",
                got=str(error),
                next_step="Change it with --ingest.",
            ) from error
        self.endpoint = str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT)).rstrip("\0")
        if self.endpoint.startswith("ipc://"):
            os.chmod(self.endpoint.removeprefix("ipc://"), 0o600)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake_read, zmq.POLLIN)
        if self._authenticator is not None:
            self._poller.register(self._authenticator.socket, zmq.POLLIN)

    def receive(self, timeout_ms: int, most: int, bytes_most: int = limits.FRAME_BYTES_MAX) -> list[tuple[bytes, bytes]]:
        """Wait up to `timeout_ms` for frames or a wake-up, then return at most `most` frames, and none more once they have
        `bytes_most` bytes: of all peers in turn. What is left waits for the next call."""
        ready = dict(self._poller.poll(0 if self._turns else timeout_ms))
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        if self._authenticator is not None and self._authenticator.socket in ready:
            self._authenticator.answer()
        if self._socket in ready:
            read = 0
            for _ in range(_READ_FRAMES):
                try:
                    parts = self._take()
                except zmq.Again:
                    break
                if parts is None:
                    continue
                # A frame that is not alone behind its peer's identity is no frame of ours: the gate refuses b"".
                frame = parts[1] if len(parts) == 2 else b""
                self._turns.put(parts[0], frame)
                read += len(frame)
                if read > _READ_BYTES:
                    break
        return self._turns.take(most, bytes_most)

    @property
    def waiting(self) -> tuple[bytes, ...]:
        """Peers of whom something has arrived that no call has returned yet."""
        return self._turns.peers

    @property
    def dropped(self) -> int:
        """Frames dropped because too much of their connection waited already."""
        return self._turns.dropped

    def _take(self) -> list[bytes] | None:
        """The parts of one message, None when it is from a key that is no longer registered."""
        if self._curve is None:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        try:
            key = str(parts[-1].get("User-Id"))
        except zmq.ZMQError:  # no such property: nobody vouched for this connection
            key = ""
        if not key or not self._curve.registered(key):
            self._strangers += 1
            return None
        return [part.bytes for part in parts]

    @property
    def strangers(self) -> int:
        """Connections and frames refused because their key is not registered."""
        return self._strangers + (self._authenticator.refused if self._authenticator is not None else 0)

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Queue a frame for a peer; False when it is gone or its queue is full."""
        try:
            self._socket.send_multipart([peer, frame], zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def wake(self) -> None:
        """End the wait of `receive` from another thread. A full pipe means it is awake already."""
        try:
            os.write(self._wake_write, b"\0")
        except (BlockingIOError, OSError):
            return

    def close(self) -> None:
        """Close socket, context and pipe; queued frames are dropped (the agent resends what was not acked)."""
        self._socket.close(0)
        if self._authenticator is not None:
            self._authenticator.close()
        self._context.term()
        # Forgotten before it is closed: a late `wake` must not write into a file that got the same number.
        read, write = self._wake_read, self._wake_write
        self._wake_read = self._wake_write = -1
        for fd in (read, write):
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> IngestSocket:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


SELF_TEST_MS = 2_000
"""What a handshake on loopback may take at most; it takes about 2 ms."""


def check_refusal() -> None:
    """Try the authenticator on a socket of its own, before anything is bound where others can reach it.

    A registered key must get through and a stranger must not. libzmq fails open where the question is not answered, so this
    is tried and not believed.

    Raises:
        GradwatchError: `internal`, saying which of the two failed.
    """
    secret, known, stranger = make_pair()[1], make_pair()[1], make_pair()[1]
    admitted = [_try_key(secret, key, public_of(known)) for key in (known, stranger)]
    if admitted != [True, False]:
        raise GradwatchError(
            "internal",
            where="the self-test of the authenticator",
            expected="a registered key admitted, a stranger refused",
            got=f"{'admitted' if admitted[0] else 'refused'}, {'admitted' if admitted[1] else 'refused'}",
            next_step="Nothing was opened. Use the default ingest endpoint on this machine, and please report it.",
        )


def _try_key(secret: str, key: str, registered: str) -> bool:
    """Whether a message of `key` arrives where only `registered` may send."""
    context = zmq.Context()
    authenticator = Authenticator(context, lambda public: public == registered)
    server, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    try:
        encrypt(server, secret)
        port = server.bind_to_random_port("tcp://127.0.0.1")
        client.setsockopt(zmq.CURVE_SERVERKEY, bytes.fromhex(public_of(secret)))
        client.setsockopt(zmq.CURVE_PUBLICKEY, bytes.fromhex(public_of(key)))
        client.setsockopt(zmq.CURVE_SECRETKEY, bytes.fromhex(key))
        client.connect(f"tcp://127.0.0.1:{port}")
        client.send(b"")
        poller = zmq.Poller()
        for socket in (server, authenticator.socket):
            poller.register(socket, zmq.POLLIN)
        for _ in range(4):
            ready = dict(poller.poll(SELF_TEST_MS))
            if server in ready or not ready:
                return server in ready
            authenticator.answer()
            if authenticator.refused:
                return bool(server.poll(50))  # refused, and nothing comes through all the same
        return False
    finally:
        for socket in (client, server):
            socket.close(0)
        authenticator.close()
        context.term()
