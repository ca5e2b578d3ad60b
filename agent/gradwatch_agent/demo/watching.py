"""What the demo sees of the daemon, through the same HTTP that anybody uses: documents, a live stream, a request."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradwatch_contracts.connection import Connection

Document = dict[str, Any]

REQUEST_S = 10.0
"""Longest wait for one answer."""


class Api:
    """A few lines of urllib around the REST API."""

    def __init__(self, connection: Connection) -> None:
        self._base = connection.url
        self._token = Path(connection.token_file).read_text(encoding="ascii").strip()

    def request(self, path: str, body: Document | None = None) -> urllib.request.Request:
        """A GET, or a POST when there is a body."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.Request(self._base + path, data=data, headers=headers)

    def get(self, path: str) -> Document:
        """The document at a path."""
        return self._answer(self.request(path))

    def post(self, path: str, body: Document) -> Document:
        """The answer to a request."""
        return self._answer(self.request(path, body))

    @staticmethod
    def _answer(request: urllib.request.Request) -> Document:
        with urllib.request.urlopen(request, timeout=REQUEST_S) as response:
            answer: Document = json.load(response)
        return answer


class Watcher:
    """Follows GET /api/v1/stream in a thread and keeps the newest state of everything, with the time it was seen first."""

    def __init__(self, api: Api) -> None:
        self.anomalies: dict[str, Document] = {}
        self.escalations: dict[str, Document] = {}
        self.run: Document = {}
        self.seen_ns: dict[str, int] = {}
        self.changed = threading.Event()
        self._api = api
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="demo-watcher", daemon=True)

    def start(self) -> None:
        """Begin, and return once the stream is open."""
        self._thread.start()
        if not self._ready.wait(REQUEST_S):
            raise TimeoutError("the daemon opened no stream")

    def _follow(self) -> None:
        try:
            with urllib.request.urlopen(self._api.request("/api/v1/stream"), timeout=60) as response:
                event = ""
                for raw in response:
                    line = raw.decode().rstrip("\n")
                    if line.startswith("event: "):
                        event = line[7:]
                    elif line.startswith("data: "):
                        self._take(event, json.loads(line[6:]))
        except OSError:
            pass  # the daemon ended; the demo knows why
        finally:
            self._ready.set()
            self.changed.set()

    def _take(self, event: str, document: Document) -> None:
        if event == "hello":
            self._ready.set()
        elif event == "anomaly":
            self.seen_ns.setdefault(document["id"], time.time_ns())
            self.anomalies[document["id"]] = document
        elif event == "escalation":
            self.escalations[document["id"]] = document
        elif event == "run":
            self.run = document
        self.changed.set()
