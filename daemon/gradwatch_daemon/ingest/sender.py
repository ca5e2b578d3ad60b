"""The other end of an ingest socket: the way of rows that were recorded earlier into a running daemon on this machine."""

from __future__ import annotations

import zmq

from gradwatch_contracts import limits

_WAIT_MS = 500
"""Of one `receive`."""

_LINGER_MS = 1000
"""What is queued at the end has this long to go out."""


class SenderSocket:
    """One DEALER, connected without encryption; used by one thread."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, limits.FRAME_BYTES_MAX)
        self._socket.connect(endpoint)

    def send(self, frame: bytes) -> None:
        """Queue a frame."""
        self._socket.send(frame)

    def receive(self) -> list[bytes]:
        """All frames that are there, after a wait of up to `_WAIT_MS` for the first."""
        frames: list[bytes] = []
        while self._socket.poll(0 if frames else _WAIT_MS):
            frames.append(self._socket.recv())
        return frames

    def close(self) -> None:
        """Close socket and context."""
        self._socket.close()
        self._context.term()
