"""A peer of one session that says exactly what a test wants and keeps what it hears."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import decode, encode
from gradwatch_daemon.ingest.sender import SenderSocket
from harness.rows import FULL, RowMaker, hello

if TYPE_CHECKING:
    from types import TracebackType


class Client:
    """Greets at once; `rows` sends, `acked` listens."""

    def __init__(self, endpoint: str, run: str = "client") -> None:
        self._socket = SenderSocket(endpoint)
        self._maker = RowMaker()
        self.heard: list[m.Message] = []
        self.send(hello(run, f"{run}-session", launch_id=run))
        self.until(m.Welcome)
        self.send(m.SchemaMessage(FULL.columns))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def send(self, message: m.Message) -> None:
        """One message."""
        self._socket.send(encode(message))

    def rows(self, count: int) -> int:
        """Send so many more rows; returns the last record."""
        self.send(self._maker.samples(count))
        return self._maker.seq - 1

    def listen(self, seconds: float = 0.0) -> None:
        """Take in what comes within a time."""
        deadline = time.monotonic() + seconds
        while True:
            self.heard += map(decode, self._socket.receive())
            if time.monotonic() >= deadline:
                return

    def until(self, kind: type, seconds: float = 60.0) -> None:
        """Wait for a message of a kind that was not heard before."""
        before = sum(isinstance(message, kind) for message in self.heard)
        deadline = time.monotonic() + seconds
        while sum(isinstance(message, kind) for message in self.heard) == before:
            assert time.monotonic() < deadline, f"no {kind.__name__} within {seconds} s"
            self.listen()

    @property
    def acked(self) -> int:
        """The last record that was acked, -1 for none."""
        return max((message.seq for message in self.heard if isinstance(message, m.Ack)), default=-1)

    def wait_for_ack(self, seq: int, seconds: float = 60.0) -> None:
        """Until this record is acked."""
        deadline = time.monotonic() + seconds
        while self.acked < seq:
            assert time.monotonic() < deadline, f"record {seq} is not acked within {seconds} s, the last one is {self.acked}"
            self.listen()
