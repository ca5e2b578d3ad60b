"""A real daemon in its own process, and its HTTP as a test uses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, TypeVar

from gradwatch_contracts.connection import FILE_NAME, Connection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
START_S = 180.0


def wait_for(condition: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """Poll until the condition is true and return it; fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} s for {what}")


class DaemonProcess:
    """`gradwatch serve` on free ports with directories of its own. Restarting keeps directories and ingest endpoint."""

    def __init__(self, home: Path, *flags: str) -> None:
        self.home = home
        self.runtime_dir = home / "run"
        self.data_dir = home / "data"
        self._flags = flags
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """For every process of this test: the runtime directory, and nothing of the caller's own gradwatch."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GRADWATCH_")}
        return {**kept, "GRADWATCH_RUNTIME_DIR": str(self.runtime_dir)}

    def start(self) -> DaemonProcess:
        """Start and wait until it answers."""
        (self.runtime_dir / FILE_NAME).unlink(missing_ok=True)
        command = [sys.executable, "-m", "gradwatch_daemon.cli.main", "serve", "--http", "127.0.0.1:0"]
        command += ["--data-dir", str(self.data_dir), *self._flags]
        with open(self.home / "daemon.log", "ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.home)
        wait_for(self._answers, "the daemon to start", START_S)
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the daemon ended: {self.log}"
        if not (self.runtime_dir / FILE_NAME).exists():
            return False
        try:
            return self.get("/livez")["status"] == "alive"
        except urllib.error.URLError:
            return False

    @property
    def log(self) -> str:
        return (self.home / "daemon.log").read_text()

    @property
    def connection(self) -> Connection:
        return Connection.from_json((self.runtime_dir / FILE_NAME).read_text())

    @property
    def token(self) -> str:
        return (self.data_dir / "token").read_text().strip()

    def kill(self) -> None:
        """As the kernel would: no last words."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """As an operator would; returns the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process = None
        return code

    def __enter__(self) -> DaemonProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.kill()

    # -- HTTP ---------------------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """The document at a path."""
        return self._ask(path, None, "GET")

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to a request."""
        return self._ask(path, body, "POST")

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """The answer of the API to a change."""
        return self._ask(path, body, "PATCH")

    def delete(self, path: str) -> Any:
        """The answer to a cancellation."""
        return self._ask(path, None, "DELETE")

    def _ask(self, path: str, body: dict[str, Any] | None, method: str) -> Any:
        connection = self.connection
        request = urllib.request.Request(
            connection.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def run(self, run: str) -> Any:
        """The run, or None while it is unknown."""
        try:
            return self.get(f"/api/v1/runs/{run}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise


def python(daemon: DaemonProcess, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """A Python process that finds this daemon."""
    return subprocess.Popen([sys.executable, *arguments], env=daemon.environment, **options)
