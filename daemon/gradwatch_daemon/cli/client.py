"""Finding the daemon and talking HTTP to it."""

from __future__ import annotations

import http.client
import json
import os
import stat
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gradwatch_contracts.connection import FILE_NAME, LOCK_FILE, Connection, runtime_dir
from gradwatch_contracts.errors import CODES, GradwatchError
from gradwatch_daemon.cli.failure import EXIT_BUG, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, CommandError
from gradwatch_daemon.cli.presence import is_abandoned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from http.client import HTTPMessage, HTTPResponse
    from typing import IO

TIMEOUT_S = 10.0
DOWNLOAD_TIMEOUT_S = 60.0
DOWNLOAD_PART_BYTES = 256 * 1024
STREAM_SILENCE_S = 45.0
"""Three missed heartbeats of the stream: the daemon sends one every 15 s."""

PAGE = 1000
"""Items asked for at once: the most the API gives."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the daemon is and the token for it, '' when none was found; `source` names where this was read."""

    url: str
    token: str
    source: str


def find_daemon(env: Mapping[str, str], uid: int) -> Address:
    """The daemon of `GRADWATCH_URL` and `GRADWATCH_TOKEN`, else the one that wrote `connection.json`.

    The token of the file goes to the URL of the file only, never to another one.

    Raises:
        GradwatchError: `daemon-unreachable` when neither names one, or the one of the file is known to be gone: whoever listens
            there now must not get its token; `config-invalid` for a file that is not ours.
    """
    path = Path(runtime_dir(env, uid)) / FILE_NAME
    url = env.get("GRADWATCH_URL", "").rstrip("/")
    if not url:
        found = _living(path, uid)
        return Address(found.url, env.get("GRADWATCH_TOKEN") or _read_token(found), str(path))
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise GradwatchError("config-invalid", where="GRADWATCH_URL", expected="http://HOST:PORT", got=repr(url[:80]))
    token = env.get("GRADWATCH_TOKEN", "")
    if not token and path.exists():
        found = _read_connection(path, uid)
        token = _read_token(_living(path, uid)) if found.url == url else ""
    return Address(url, token, "GRADWATCH_URL")


def local_daemon(env: Mapping[str, str], uid: int) -> Connection | None:
    """The daemon that runs on this machine, None where none does."""
    try:
        return _living(Path(runtime_dir(env, uid)) / FILE_NAME, uid)
    except GradwatchError:
        return None


def _living(path: Path, uid: int) -> Connection:
    """What the file says, unless its daemon is known to be gone."""
    found = _read_connection(path, uid)
    if is_abandoned(path.parent):
        raise GradwatchError(
            "daemon-unreachable",
            where=str(path),
            expected=f"a daemon that holds {LOCK_FILE} beside it",
            got=f"nobody: the daemon with pid {found.pid} is gone",
            next_step="Start one with `gradwatch serve`. Is it one whose lock is not seen from here (the shared folder of a"
            " virtual machine)? Set GRADWATCH_URL and GRADWATCH_TOKEN.",
        )
    return found


def _read_token(connection: Connection) -> str:
    """The token of a daemon, '' when its file is not ours to read: the daemon then says what it wants."""
    try:
        return Path(connection.token_file).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _read_connection(path: Path, uid: int) -> Connection:
    try:
        with open(path, encoding="utf-8") as file:
            info = os.fstat(file.fileno())
            text = file.read()
    except OSError as error:
        raise GradwatchError(
            "daemon-unreachable",
            where=str(path),
            expected="the file that a running daemon writes",
            got=error.strerror or str(error),
            next_step="Start one with `gradwatch serve`, or set GRADWATCH_URL and GRADWATCH_TOKEN.",
        ) from error
    # The directory may lie in /tmp, where another user could have put a file that points us to a daemon of theirs.
    if info.st_uid not in (uid, 0) or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise GradwatchError(
            "config-invalid",
            where=str(path),
            expected="a file of this user that nobody else can write",
            got=f"owner {info.st_uid}, mode {stat.S_IMODE(info.st_mode):o}",
            next_step="Remove it, or choose another place with GRADWATCH_RUNTIME_DIR.",
        )
    return Connection.from_json(text)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to where the answer points; the API has none."""

    def redirect_request(  # noqa: PLR0917 - the signature is urllib's
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Follow nothing; urllib then raises the redirect as an HTTP error."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event of the stream. `id` is '' for those that do not move the client's place."""

    id: str
    name: str
    data: Any


class Client:
    """Requests to one daemon. Everything that goes wrong is a `CommandError` with the exit code of its kind."""

    def __init__(self, address: Address) -> None:
        self.address = address
        # A proxy of the environment is for the world outside; the daemon is on this machine or named on purpose.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    def get(self, path: str, timeout_s: float = TIMEOUT_S, **query: object) -> Any:
        """The document at a path. Parameters that are None are left out; `from_` is sent as `from`."""
        return self._document("GET", path, query, None, timeout_s)

    def post(self, path: str, body: Mapping[str, object], timeout_s: float = TIMEOUT_S, **query: object) -> Any:
        """The answer to a posted document."""
        return self._document("POST", path, query, body, timeout_s)

    def patch(self, path: str, body: Mapping[str, object], timeout_s: float = TIMEOUT_S, **query: object) -> Any:
        """The answer to a change of a resource."""
        return self._document("PATCH", path, query, body, timeout_s)

    def delete(self, path: str, timeout_s: float = TIMEOUT_S) -> Any:
        """The answer to the removal of a resource."""
        return self._document("DELETE", path, {}, None, timeout_s)

    def download(self, path: str, file: IO[bytes], timeout_s: float = DOWNLOAD_TIMEOUT_S, **query: object) -> HTTPMessage:
        """Write what is at a path into a file; the headers of the answer. What ends early is a failure."""
        with closing(self._open(self._request("GET", path, query, None, {}), timeout_s)) as response:
            try:
                written = 0
                while part := response.read(DOWNLOAD_PART_BYTES):
                    file.write(part)
                    written += len(part)
            except http.client.HTTPException as error:
                self._unreachable(error)
            announced = response.headers.get("Content-Length")
            if announced is not None and int(announced) != written:
                self._unreachable(ConnectionError(f"the answer ended after {written} of {announced} bytes"))
            return response.headers

    def pages(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """The answers to a list, page by page, until it ends."""
        cursor = None
        while True:
            answer = self.get(path, TIMEOUT_S, **{"limit": PAGE, **query, "cursor": cursor})
            yield answer
            cursor = answer["next"]
            if cursor is None:
                return

    def listed(self, path: str, **query: object) -> dict[str, Any]:
        """A whole list as one answer: the items of all pages, `next` null."""
        answers = list(self.pages(path, **query))
        return {**answers[0], "items": [item for answer in answers for item in answer["items"]], "next": None}

    def stream(self, last_id: str, **query: object) -> Iterator[ServerEvent]:
        """Events from after `last_id` ('' for new ones only) until the daemon ends the stream or falls silent."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        request = self._request("GET", "/api/v1/stream", query, None, headers)
        with closing(self._open(request, STREAM_SILENCE_S)) as response:
            try:
                yield from read_events(response)
            except (OSError, ValueError, http.client.HTTPException) as error:
                self._unreachable(error)

    def _document(self, method: str, path: str, query: Mapping[str, object], body: object, timeout_s: float) -> Any:
        request = self._request(method, path, query, body, {"Accept": "application/json"})
        try:
            with closing(self._open(request, timeout_s)) as response:
                return json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._unreachable(error)

    def _request(
        self, method: str, path: str, query: Mapping[str, object], body: object, headers: dict[str, str]
    ) -> urllib.request.Request:
        given = {name.rstrip("_"): str(value) for name, value in query.items() if value is not None}
        url = self.address.url + path + (f"?{urllib.parse.urlencode(given)}" if given else "")
        if self.address.token:
            headers["Authorization"] = f"Bearer {self.address.token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        return urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers, method=method)

    def _open(self, request: urllib.request.Request, timeout_s: float) -> HTTPResponse:
        try:
            response: HTTPResponse = self._opener.open(request, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            with closing(error):
                raise _refused(error.code, error.read()) from None
        except (OSError, http.client.HTTPException) as error:
            self._unreachable(error)
        return response

    def _unreachable(self, error: Exception) -> NoReturn:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        said = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        code = CODES["daemon-unreachable"]
        raise CommandError(
            code.title,
            why=f"{self.address.url} (from {self.address.source}): {said}",
            next_step=code.hint,
            exit_code=code.exit,
            code=code.slug,
        ) from error


def connect(env: Mapping[str, str]) -> Client:
    """A client of this user's daemon. Nothing is sent yet."""
    return Client(find_daemon(env, os.getuid()))


def segment(text: str) -> str:
    """A name as one part of a path."""
    return urllib.parse.quote(text, safe="")


def _refused(status: int, body: bytes) -> CommandError:
    """The failure of a problem document; for anything else, one that says what answered."""
    try:
        said = json.loads(body)
        slug, title = str(said["code"]), str(said["title"])
    except (ValueError, KeyError, TypeError):
        return CommandError(
            f"The answer was HTTP {status}, without a problem document.",
            why="Something else than a gradwatch daemon may be listening there.",
            next_step="Check GRADWATCH_URL.",
            exit_code=EXIT_UNREACHABLE,
            code="daemon-unreachable",
        )
    return CommandError(
        title,
        why=str(said.get("detail") or ""),
        next_step=str(said.get("hint") or ""),
        exit_code=CODES[slug].exit if slug in CODES else _exit_of(status),
        code=slug,
        did_you_mean=str(said.get("did_you_mean") or ""),
    )


def _exit_of(status: int) -> int:
    """For a code that a newer daemon knows and we do not."""
    if status >= 500:
        return EXIT_BUG
    return EXIT_REFUSED if status in (401, 403, 409, 421, 429) else EXIT_USAGE


def read_events(lines: Iterable[bytes]) -> Iterator[ServerEvent]:
    """Parse server-sent events (WHATWG HTML §9.2). Comments and unfinished events are dropped.

    Raises:
        ValueError: data that is not JSON.
    """
    id_, name = "", "message"
    data: list[str] = []
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield ServerEvent(id_, name, json.loads("\n".join(data)))
            id_, name, data = "", "message", []
        elif field == "id":
            id_ = value
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
