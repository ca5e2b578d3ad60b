"""The keys of an ingest socket that others can reach: the daemon's own, that of local trainers, and the registered ones."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING

from gradwatch_contracts.connection import CurveKeys, write_endpoint
from gradwatch_daemon.api.access import KeyBook
from gradwatch_daemon.api.context import Keyring
from gradwatch_daemon.ingest.authenticator import make_pair, public_of
from gradwatch_daemon.ingest.socket import Curve
from gradwatch_daemon.places import INGEST_KEY_FILE, KEYS_FILE, LOCAL_KEY_FILE, keep_secret, load_keys, save_entries

if TYPE_CHECKING:
    from pathlib import Path

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
"""What is bound → where it is reached from this machine."""


class Encryption:
    """The key files of a data directory, made at the first start. All are 0600; none holds a secret of another machine.

    Raises:
        GradwatchError: `config-invalid` for a file of registered keys that cannot be read.
    """

    def __init__(self, data_dir: Path) -> None:
        secret = keep_secret(data_dir / INGEST_KEY_FILE, lambda: make_pair()[1])
        self._local = keep_secret(data_dir / LOCAL_KEY_FILE, lambda: make_pair()[1])
        self._server = public_of(secret)
        path = data_dir / KEYS_FILE
        self._book = KeyBook(public_of(self._local), load_keys(path), partial(save_entries, path))
        self.curve = Curve(secret, self._book.registered)

    def local_endpoint(self, bound: str) -> str:
        """For connection.json: trainers of this user on this machine find it there and need no key of their own."""
        host, port = _split(bound)
        keys = CurveKeys(self._server, public_of(self._local), self._local)
        return write_endpoint(f"tcp://{_WILDCARDS.get(host, host)}:{port}", keys)

    def keyring(self, bound: str) -> Keyring:
        """For HTTP: lets agents of other machines in. They are told this machine by name where every address is bound."""
        host, port = _split(bound)
        shown = socket.getfqdn() if host in _WILDCARDS else host
        return Keyring(self._book, make_pair, f"tcp://{shown}:{port}", self._server)


def _split(bound: str) -> tuple[str, str]:
    host, _, port = bound.removeprefix("tcp://").rpartition(":")
    return host, port
