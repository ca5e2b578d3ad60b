"""The directories of the daemon: who may read them, the one-daemon lock, the token, `connection.json`."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from gradwatch_contracts.connection import FILE_NAME, LOCK_FILE
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api.access import Key, Scope, Token

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gradwatch_contracts.connection import Connection

TOKEN_FILE = "token"
TOKENS_FILE = "tokens.json"
KEYS_FILE = "keys.json"
INGEST_KEY_FILE = "ingest-key"
LOCAL_KEY_FILE = "local-agent-key"
SECRET_FILE = "ingest-secret"

LOCK_S = 0.5
"""A lock that is held this long is a daemon's: whoever looks whether one is there holds it for microseconds."""

Entry = TypeVar("Entry")


def private_directory(path: Path, flag: str, others: int = stat.S_IWGRP | stat.S_IWOTH) -> Path:
    """Make a directory of mode 0700, or check that it is ours and that group and others have none of the bits `others`.

    Nobody else may write the data directory; the runtime directory nobody else may even enter (0o077), since agents
    refuse one that is open.

    Raises:
        GradwatchError: `data-dir-unusable`, naming the directory, the reason and the flag.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
        if info.st_uid != os.getuid():
            raise _unusable(path, flag, f"it belongs to user {info.st_uid}")
        if info.st_mode & others:
            raise _unusable(path, flag, f"it is open to others (mode {stat.S_IMODE(info.st_mode):o}; try chmod 700)")
        probe = path / f".probe-{os.getpid()}"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise _unusable(path, flag, error.strerror or str(error)) from error
    return path


def _unusable(path: Path, flag: str, why: str) -> GradwatchError:
    return GradwatchError(
        "data-dir-unusable",
        where=str(path),
        expected="a directory of this user alone",
        got=why,
        next_step=f"Choose another with {flag}, or fix its permissions.",
    )


class DirectoryLock:
    """Held while a daemon uses a directory: a second one would steal the ipc socket without a word.

    Raises:
        GradwatchError: `port-taken`, naming the pid that holds it.
    """

    def __init__(self, directory: Path, flag: str) -> None:
        self._file = open(directory / LOCK_FILE, "a+", encoding="utf-8")  # noqa: SIM115 - held for the life of the daemon
        try:
            self._take(time.monotonic() + LOCK_S)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise GradwatchError(
                "port-taken",
                where=str(directory),
                expected="no other daemon",
                got=f"a daemon with pid {holder}",
                next_step=f"Stop it, or choose another directory with {flag}.",
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def _take(self, until_s: float) -> None:
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= until_s:
                    raise
            time.sleep(0.01)

    def release(self) -> None:
        """Let another daemon have the directory."""
        self._file.close()


def token_path(data_dir: Path) -> Path:
    """Where the bearer token of a data directory lies."""
    return data_dir.resolve() / TOKEN_FILE


def load_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens made for others; none when there is no such file. Raises as `load_entries`."""
    return load_entries(path, lambda entry: Token(**{**entry, "scope": Scope[entry["scope"].upper()]}))


def load_keys(path: Path) -> tuple[Key, ...]:
    """The registered agent keys; none when there is no such file. Raises as `load_entries`."""
    return load_entries(path, lambda entry: Key(**entry))


def load_entries(path: Path, read: Callable[[dict[str, Any]], Entry]) -> tuple[Entry, ...]:
    """The entries of a file that `save_entries` wrote; none when there is no such file.

    Raises:
        GradwatchError: `config-invalid` for a file that was changed by hand and cannot be read: nobody is let in by guess.
    """
    try:
        return tuple(read(entry) for entry in json.loads(path.read_text(encoding="utf-8"))["entries"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GradwatchError(
            "config-invalid",
            where=str(path),
            expected="what gradwatch wrote there",
            got=f"{type(error).__name__}: {error}"[:120],
            next_step="Put back a copy, or remove the file: what it granted is then gone.",
        ) from error


def save_entries(path: Path, entries: Sequence[Token] | Sequence[Key]) -> None:
    """Replace a file of tokens or keys: names, times, hashes and public keys, nothing secret."""
    words = [{**asdict(entry), **({"scope": entry.scope.word} if isinstance(entry, Token) else {})} for entry in entries]
    write_private(path, json.dumps({"entries": words}, indent=1) + "\n")


def keep_secret(path: Path, make: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> str:
    """The secret in a file of mode 0600: read, or made with 256 random bits."""
    try:
        token = path.read_text(encoding="ascii").strip()
        if token:
            return token
    except FileNotFoundError:
        pass
    token = make()
    write_private(path, token + "\n")
    return token


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; nobody but this user can read it at any moment."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def write_connection(runtime_dir: Path, connection: Connection) -> None:
    """Tell agents and the command line where the daemon is."""
    write_private(runtime_dir / FILE_NAME, connection.to_json() + "\n")


def remove_connection(runtime_dir: Path) -> None:
    """Take the file back, so that nobody waits for a daemon that ended."""
    (runtime_dir / FILE_NAME).unlink(missing_ok=True)
