"""A small HTTP server that speaks like the daemon: scripted answers, a record of what was asked, streams that break off or
that stay."""

from __future__ import annotations

import json
import queue
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from harness.api_documents import problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

TOKEN = "stub-token"
OPEN_PATHS = ("/livez", "/readyz")


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that came. Names of headers are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request is answered with."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class OpenStream:
    """A stream that goes on: events are put in while a client reads, until it is cut."""

    def __init__(self, *parts: bytes) -> None:
        self._parts: queue.Queue[bytes | None] = queue.Queue()
        for part in parts:
            self._parts.put(part)

    def send(self, part: bytes) -> None:
        """To whoever reads."""
        self._parts.put(part)

    def cut(self) -> None:
        """Break the connection off."""
        self._parts.put(None)

    def parts(self) -> Iterator[bytes]:
        """What is sent, as it is sent."""
        while (part := self._parts.get()) is not None:
            yield part


class DaemonStub:
    """Answers by (method, path): each in turn, the last one again and again. `/api/v1/stream` takes one script a connection."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.streams: deque[bytes | OpenStream] = deque()
        self._open: list[OpenStream] = []
        self._replies: dict[tuple[str, str], deque[Reply]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, name="daemon-stub")

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, method: str, path: str, *documents: Any, status: int = 200) -> None:
        """Script the answers to a path."""
        self.reply(method, path, *(Reply(status, json.dumps(document).encode()) for document in documents))

    def answer_only(self, method: str, path: str, *documents: Any) -> None:
        """Script the answers to a path in place of those it had."""
        self._replies.pop((method, path), None)
        self.answer(method, path, *documents)

    def reply(self, method: str, path: str, *replies: Reply) -> None:
        """Script answers that are no documents."""
        self._replies.setdefault((method, path), deque()).extend(replies)

    def asked(self, path: str) -> list[Seen]:
        """The requests that came for a path."""
        return [seen for seen in self.requests if seen.path == path]

    def opened(self, stream: OpenStream) -> None:
        """A client reads it: it is cut when the stub ends."""
        self._open.append(stream)

    def take(self, seen: Seen) -> Reply:
        """The reply to a request."""
        self.requests.append(seen)
        if seen.path not in OPEN_PATHS and seen.headers.get("authorization") != f"Bearer {TOKEN}":
            return _problem("unauthenticated", "The bearer token is missing or wrong.", 401)
        replies = self._replies.get((seen.method, seen.path))
        if not replies:
            return _problem("route-not-found", "There is nothing at this address.", 404)
        return replies.popleft() if len(replies) > 1 else replies[0]

    def __enter__(self) -> DaemonStub:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for stream in self._open:
            stream.cut()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def sse(name: str, data: Any, id_: str = "") -> bytes:
    """One server-sent event."""
    head = f"id: {id_}\n" if id_ else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _problem(code: str, title: str, status: int) -> Reply:
    return Reply(status, json.dumps(problem(code, title, status)).encode())


def _handler(stub: DaemonStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """One connection, one request: closing it is how a stream breaks off."""

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def do_PATCH(self) -> None:
            self._serve()

        def do_DELETE(self) -> None:
            self._serve()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen = Seen(self.command, parts.path, query, json.loads(raw) if raw else None, headers)
            if parts.path == "/api/v1/stream" and stub.streams:
                stub.requests.append(seen)
                script = stub.streams.popleft()
                whole = script if isinstance(script, bytes) else b""
                self._send(Reply(200, whole, {"Content-Type": "text/event-stream"}))
                if isinstance(script, OpenStream):
                    self._go_on(script)
                return
            self._send(stub.take(seen))

        def _go_on(self, stream: OpenStream) -> None:
            stub.opened(stream)
            with suppress(BrokenPipeError, ConnectionResetError):  # the client has left
                for part in stream.parts():
                    self.wfile.write(part)
                    self.wfile.flush()

        def _send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

    return Handler
