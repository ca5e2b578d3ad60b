"""`connection.json`: how an agent and the command line find the daemon of this user, and where it lies.

Written by `gradwatch serve` with mode 0600 into a directory with mode 0700; whoever can read it is trusted.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME = "connection.json"
LOCK_FILE = "daemon.lock"
"""Beside it. A daemon holds it (`flock`) for as long as it lives, however it ends: one that is there and free says that whoever
wrote the file is gone, and that something else may listen where it did. Where there is none, nothing is known."""
TCP_DEFAULT = "tcp://127.0.0.1:9471"
"""Where an agent looks when it has neither environment nor file; such a connection needs the secret."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Ingest endpoint (ZeroMQ), HTTP base URL, the secret that ingest over TCP asks for, the daemon's pid.

    `token_file` is where the HTTP token lies: not the token itself, for whoever may send data need not be an operator.
    """

    ingest: str
    url: str
    secret: str
    token_file: str
    pid: int

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Connection:
        """Parse; unknown keys are skipped.

        Raises:
            GradwatchError: `config-invalid` when it is not such a document.
        """
        try:
            raw = json.loads(text)
            return cls(str(raw["ingest"]), str(raw["url"]), str(raw["secret"]), str(raw["token_file"]), int(raw["pid"]))
        except (ValueError, KeyError, TypeError) as error:
            raise GradwatchError(
                "config-invalid",
                where=FILE_NAME,
                expected="the file written by `gradwatch serve`",
                got=f"{type(error).__name__}: {error}",
                next_step="Restart the daemon to write it anew.",
            ) from error


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """What an agent needs to speak CURVE: the daemon's public key, and its own pair. 64 hex digits each."""

    server: str
    public: str
    secret: str


def write_endpoint(address: str, keys: CurveKeys) -> str:
    """One string for GRADWATCH_ENDPOINT: the address and the keys. Whoever has it may send as this agent."""
    return f"{address}?server={keys.server}&public={keys.public}&secret={keys.secret}"


def read_endpoint(text: str) -> tuple[str, CurveKeys | None]:
    """Address and keys of an endpoint; None where it is to be spoken to without encryption.

    Raises:
        GradwatchError: `invalid-argument` for keys that are none; the sentence does not repeat them.
    """
    address, question, query = text.partition("?")
    if not question:
        return address, None
    given = dict(part.partition("=")[::2] for part in query.split("&"))
    if given.keys() == {"server", "public", "secret"} and all(_KEY.fullmatch(value) for value in given.values()):
        return address, CurveKeys(given["server"], given["public"], given["secret"])
    raise GradwatchError(
        "invalid-argument",
        where=f"endpoint {address[:80]}",
        expected="?server=KEY&public=KEY&secret=KEY with 64 hex digits each",
        got="something else",
        next_step="Copy the whole line that `gradwatch keys add` printed, in quotes.",
    )


_KEY = re.compile(r"[0-9a-f]{64}")


def state_dir(env: Mapping[str, str]) -> str:
    """Where what is kept lies: $XDG_DATA_HOME/gradwatch when that is absolute (the specification has relative ones ignored),
    else under HOME; '' where there is neither."""
    base = env.get("XDG_DATA_HOME", "")
    if base.startswith("/"):
        return f"{base.rstrip('/')}/gradwatch"
    return f"{env['HOME'].rstrip('/')}/.local/share/gradwatch" if env.get("HOME") else ""


ENV_SPOOL = "GRADWATCH_SPOOL_DIR"
"""Directory of the spool; empty for none. `gradwatch run` sets it to `spool` in the directory of what is kept."""


def runtime_dir(env: Mapping[str, str], uid: int) -> str:
    """The directory of `connection.json` and the ipc socket, chosen from the environment and the user id.

    `GRADWATCH_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/gradwatch`, else `/tmp/gradwatch-UID`. The last lies in a shared
    directory: whoever uses it must check owner and mode first.
    """
    if env.get("GRADWATCH_RUNTIME_DIR"):
        return env["GRADWATCH_RUNTIME_DIR"]
    if env.get("XDG_RUNTIME_DIR"):
        return f"{env['XDG_RUNTIME_DIR'].rstrip('/')}/gradwatch"
    return f"/tmp/gradwatch-{uid}"
