"""Directories, lock, token, addresses: what is refused and in which words."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.connection import Connection
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.ingest.socket import IngestSocket
from gradwatch_daemon.listen import bind_http, port_owner, split_address
from gradwatch_daemon.places import (
    DirectoryLock,
    keep_secret,
    private_directory,
    remove_connection,
    token_path,
    write_connection,
)

if TYPE_CHECKING:
    from pathlib import Path


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directory_that_is_a_file_is_refused_with_the_flag(tmp_path: Path) -> None:
    """The sentence names the path, why, and what to change."""
    (tmp_path / "file").write_text("")
    with pytest.raises(GradwatchError, match=r"file/data.*Not a directory.*--data-dir"):
        private_directory(tmp_path / "file" / "data", "--data-dir")


def test_directory_writable_by_others_is_refused(tmp_path: Path) -> None:
    """Whoever can write there could take the place of the daemon."""
    tmp_path.chmod(0o777)
    with pytest.raises(GradwatchError, match=r"open to others \(mode 777"):
        private_directory(tmp_path, "--data-dir")


def test_runtime_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    """Agents refuse it, so a daemon in it would wait for ever."""
    tmp_path.chmod(0o755)
    assert private_directory(tmp_path, "--data-dir") == tmp_path
    with pytest.raises(GradwatchError, match=r"mode 755; try chmod 700.*GRADWATCH_RUNTIME_DIR"):
        private_directory(tmp_path, "GRADWATCH_RUNTIME_DIR", others=0o077)


def test_directory_is_made_private(tmp_path: Path) -> None:
    """Nobody else can look."""
    assert _mode(private_directory(tmp_path / "new" / "data", "--data-dir")) == 0o700


def test_second_daemon_on_a_directory_is_refused_naming_the_first(tmp_path: Path) -> None:
    """An already bound ipc path would be stolen without an error."""
    lock = DirectoryLock(tmp_path, "GRADWATCH_RUNTIME_DIR")
    with pytest.raises(GradwatchError, match=rf"a daemon with pid {os.getpid()}.*GRADWATCH_RUNTIME_DIR"):
        DirectoryLock(tmp_path, "GRADWATCH_RUNTIME_DIR")
    lock.release()
    DirectoryLock(tmp_path, "GRADWATCH_RUNTIME_DIR").release()


def test_lock_that_somebody_looks_at_is_no_other_daemon(tmp_path: Path) -> None:
    """Agents and the command line hold it for a moment to see whether it is free."""
    (tmp_path / "daemon.lock").touch()
    looking = os.open(tmp_path / "daemon.lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    ending = threading.Timer(0.05, os.close, [looking])
    ending.start()

    DirectoryLock(tmp_path, "GRADWATCH_RUNTIME_DIR").release()
    ending.join()


def test_token_is_private_and_stays(tmp_path: Path) -> None:
    """A restart does not log everybody out."""
    token = keep_secret(token_path(tmp_path))
    assert len(token) >= 40
    assert keep_secret(token_path(tmp_path)) == token
    assert _mode(tmp_path / "token") == 0o600


def test_connection_file_is_private_and_goes_with_the_daemon(tmp_path: Path) -> None:
    """It holds the secret."""
    connection = Connection("ipc:///x", "http://127.0.0.1:1", "s", "t", 1)
    write_connection(tmp_path, connection)
    path = tmp_path / "connection.json"
    assert (_mode(path), Connection.from_json(path.read_text())) == (0o600, connection)
    remove_connection(tmp_path)
    remove_connection(tmp_path)
    assert not path.exists()


@pytest.mark.parametrize("address", ["", "9470", "host:", "host:http", "host:70000", ":9470"])
def test_address_that_is_none_names_the_flag(address: str) -> None:
    """HOST:PORT is what it takes."""
    with pytest.raises(GradwatchError, match=r"--http: expected HOST:PORT"):
        split_address(address, "--http")


@pytest.mark.parametrize(("address", "parts"), [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:9470", ("::1", 9470))])
def test_address_splits(address: str, parts: tuple[str, int]) -> None:
    """Also in brackets."""
    assert split_address(address, "--http") == parts


def test_taken_port_names_the_owner_and_the_flag() -> None:
    """One line: by what, and which flag."""
    with bind_http("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        with pytest.raises(GradwatchError, match=rf"127\.0\.0\.1:{port} to be free, got used by .*--http"):
            bind_http("127.0.0.1", port)
        assert f"pid {os.getpid()}" in port_owner(port)


def test_foreign_address_is_refused() -> None:
    """192.0.2.1 is reserved for documentation: no machine has it."""
    with pytest.raises(GradwatchError, match="an address of this machine"):
        bind_http("192.0.2.1", 0)


def test_taken_ingest_endpoint_names_the_flag() -> None:
    """The same for ZeroMQ."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        with pytest.raises(GradwatchError, match=r"ingest: expected tcp://127.*--ingest"):
            IngestSocket(f"tcp://127.0.0.1:{held.getsockname()[1]}")
