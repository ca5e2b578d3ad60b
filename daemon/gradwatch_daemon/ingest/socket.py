"""The ROUTER socket and the wake-up of the pipeline thread. The only module of the daemon that knows ZeroMQ."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import zmq

from gradwatch_contracts import limits
from gradwatch_contracts.errors import GradwatchError

if TYPE_CHECKING:
    from types import TracebackType

_QUEUE_MESSAGES = 1024
"""High-water mark per peer, a backstop only: the window in WELCOME bounds an honest agent below it."""


class IngestSocket:
    """One ROUTER, bound; used by one thread, except `wake`, which any thread may call.

    Raises:
        GradwatchError: `port-taken` when the endpoint cannot be bound, naming it and the flag to change.
    """

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, limits.FRAME_BYTES_MAX)
        self._socket.setsockopt(zmq.RCVHWM, _QUEUE_MESSAGES)
        self._socket.setsockopt(zmq.SNDHWM, _QUEUE_MESSAGES)
        # Without it ROUTER drops silently; with it a gone peer is an error we can count.
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
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
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake_read, zmq.POLLIN)

    def receive(self, timeout_ms: int, most: int) -> list[tuple[bytes, bytes]]:
        """Wait up to `timeout_ms` for frames or a wake-up, then take at most `most` frames without waiting."""
        ready = dict(self._poller.poll(timeout_ms))
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        frames: list[tuple[bytes, bytes]] = []
        if self._socket in ready:
            while len(frames) < most:
                try:
                    parts = self._socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                # A frame that is not alone behind its peer's identity is no frame of ours: the gate refuses b"".
                frames.append((parts[0], parts[1] if len(parts) == 2 else b""))
        return frames

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
