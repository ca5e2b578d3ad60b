"""A real daemon in its own process for a benchmark, and one kept-alive HTTP connection to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gradwatch_contracts.connection import FILE_NAME, Connection

if TYPE_CHECKING:
    from types import TracebackType

START_S = 60.0
"""Longest start: importing FastAPI on a busy machine takes seconds."""


class Service:
    """`gradwatch serve` in a temporary directory, as a context manager; both are gone at the end."""

    def __init__(self, profile: str = "default") -> None:
        self._profile = profile
        self._folder = tempfile.TemporaryDirectory(prefix="gradwatch-bench-")
        self.home = Path(self._folder.name)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the daemon."""
        return self.connection.pid

    def cpu_s(self) -> float:
        """CPU seconds the daemon has used so far, all threads (Linux)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def environment(self) -> dict[str, str]:
        """For processes that are to find this daemon."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GRADWATCH_")}
        return {**kept, "GRADWATCH_RUNTIME_DIR": str(self.home / "run")}

    @property
    def connection(self) -> Connection:
        """Where it listens, and the token."""
        return Connection.from_json((self.home / "run" / FILE_NAME).read_text())

    def __enter__(self) -> Service:
        self._start()
        return self

    def kill_and_start(self) -> None:
        """kill -9, and another one on the same data and the same socket."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        (self.home / "run" / FILE_NAME).unlink(missing_ok=True)
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "gradwatch_daemon.cli.main", "serve", "--http", "127.0.0.1:0"]
        command += ["--data-dir", str(self.home / "data"), "--profile", self._profile]
        with open(self.home / "daemon.log", "ab") as log:
            self._process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon did not start:\n{(self.home / 'daemon.log').read_text()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        if not (self.home / "run" / FILE_NAME).exists():
            return False
        try:
            return Client(self.connection).status("/livez") == 200
        except OSError:
            return False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()


class Client:
    """One HTTP connection, kept alive."""

    def __init__(self, connection: Connection) -> None:
        address = urlsplit(connection.url)
        self._http = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        self._headers = {"Authorization": f"Bearer {Path(connection.token_file).read_text().strip()}"}

    def read(self, path: str) -> bytes:
        """The body at a path.

        Raises:
            RuntimeError: any status but 200.
        """
        try:
            self._http.request("GET", path, headers=self._headers)
            response = self._http.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError):
            # Idle for longer than the server keeps a connection: it may close it, and a client opens the next.
            self._http.close()
            self._http.request("GET", path, headers=self._headers)
            response = self._http.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"GET {path}: {response.status} {body[:200]!r}")
        return body

    def get(self, path: str) -> Any:
        """The document at a path."""
        return json.loads(self.read(path))

    def status(self, path: str) -> int:
        """Only the status."""
        self._http.request("GET", path, headers=self._headers)
        response = self._http.getresponse()
        response.read()
        return response.status

    def stream(self, path: str) -> http.client.HTTPResponse:
        """Open a stream; the response is read line by line."""
        self._http.request("GET", path, headers=self._headers)
        return self._http.getresponse()

    def time_us(self, path: str, times: int) -> list[float]:
        """Seconds from request to the last byte, one after another, in us."""
        taken = []
        for _ in range(times):
            start = time.perf_counter()
            self.read(path)
            taken.append((time.perf_counter() - start) * 1e6)
        return taken
