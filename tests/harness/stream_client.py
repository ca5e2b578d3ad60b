"""A client that reads GET stream straight from the application, event by event."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.fake_api import HOST, TOKEN, FakeDaemon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@dataclass(frozen=True)
class ServerEvent:
    """One event as a browser would see it."""

    name: str
    id: str
    data: Any


class StreamClient:
    """Reads GET stream straight from the ASGI application (httpx collects a whole body before it hands out any)."""

    def __init__(
        self, daemon: FakeDaemon, query: str = "", last_event_id: str | None = None, *, token: str = TOKEN, cookie: str = ""
    ) -> None:
        self._daemon = daemon
        self._query = query
        self._last = last_event_id
        self._proof = (b"cookie", cookie.encode()) if cookie else (b"authorization", f"Bearer {token}".encode())
        self._parts: asyncio.Queue[bytes] = asyncio.Queue()
        self._leaving = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self.text = ""
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> StreamClient:
        headers = [(b"host", HOST.encode()), self._proof]
        if self._last is not None:
            headers.append((b"last-event-id", self._last.encode()))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/api/v1/stream",
            "raw_path": b"/api/v1/stream",
            "query_string": self._query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 9470),
        }
        self.task = asyncio.create_task(self._daemon.app(scope, self._receive(), self._send))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self._leaving.set()
        self.reading.set()
        await asyncio.wait_for(self.task, 5)

    def leave(self) -> None:
        """Close the connection."""
        self._leaving.set()

    def _receive(self) -> Callable[[], Any]:
        asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> dict[str, Any]:
            first = next(asked, None)
            if first is not None:
                return first
            await self._leaving.wait()
            return {"type": "http.disconnect"}

        return receive

    async def _send(self, message: Any) -> None:
        await self.reading.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            return
        self.complete = self.complete or not message.get("more_body", False)
        self.text += message["body"].decode()
        for part in message["body"].split(b"\n\n"):
            if part:
                self._parts.put_nowait(part + b"\n\n")

    async def raw(self) -> str:
        """The next event or comment as it came."""
        return (await asyncio.wait_for(self._parts.get(), 5)).decode()

    async def next(self) -> ServerEvent:
        """The next event."""
        fields = dict(line.split(": ", 1) for line in (await self.raw()).strip().splitlines())
        return ServerEvent(fields["event"], fields.get("id", ""), json.loads(fields["data"]))

    async def rest(self) -> AsyncIterator[ServerEvent]:
        """Events until the end of the stream."""
        assert self.task is not None
        await asyncio.wait_for(asyncio.shield(self.task), 5)
        while not self._parts.empty():
            fields = dict(line.split(": ", 1) for line in self._parts.get_nowait().decode().strip().splitlines())
            yield ServerEvent(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
