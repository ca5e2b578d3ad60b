"""One HTTP POST with a bound on everything: time, redirects (none), and what is read of the answer.

The standard library's client: a channel is one thread that posts one document at a time, so there is nothing that a client with
pools, async and HTTP/2 would do better, and the daemon gets no further dependency.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 10.0
"""For each step of a connection."""

DEADLINE_S = 30.0
"""For all of it: a receiver that sends a byte now and then would pass every step."""

ANSWER_BYTES = 512
"""Of the answer that is kept."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `again`: it may succeed later."""

    ok: bool
    again: bool
    said: str


def post(url: str, body: bytes, headers: Mapping[str, str], deadline_s: float = DEADLINE_S) -> Answer:
    """Post a document. Anything but 2xx is a failure; it is worth another try unless the receiver says that we are wrong."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_S, context=ssl.create_default_context())
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    late = threading.Event()
    overtime = threading.Timer(deadline_s, _hang_up, (connection, late))
    overtime.daemon = True
    overtime.start()
    try:
        with closing(connection):
            connection.request("POST", path, body, {"Content-Type": "application/json", "User-Agent": "gradwatch", **headers})
            response = connection.getresponse()
            text = response.read(ANSWER_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Answer(False, True, f"no answer: {said}"[:ANSWER_BYTES])
    finally:
        overtime.cancel()
    if late.is_set():  # what came until then may look like a whole answer
        return Answer(False, True, f"no answer within {deadline_s:g} s")
    said = " ".join(f"{response.status} {response.reason} {text}".split())
    # Many servers answer an error with the address, which may hold a token; the log is shown to whoever may read.
    said = (said.replace(path, "/…") if len(path) > 1 else said)[:ANSWER_BYTES]
    if 200 <= response.status < 300:
        return Answer(True, False, said)
    return Answer(False, response.status >= 500 or response.status in {408, 425, 429}, said)


def _hang_up(connection: http.client.HTTPConnection, late: threading.Event) -> None:
    """Wake the thread that waits for an answer."""
    late.set()
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(2)
