"""Binding the HTTP address, and saying who has it when it is taken."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from pathlib import Path

from gradwatch_contracts.errors import GradwatchError

WRITTEN = "Write it as 127.0.0.1:9470, or as [::1]:9470."


def split_address(address: str, flag: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`.

    Raises:
        GradwatchError: `invalid-argument` naming the flag.
    """
    host, _, port = address.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise GradwatchError("invalid-argument", where=flag, expected="HOST:PORT", got=repr(address), next_step=WRITTEN)
    return host, int(port)


def host_to_open(host: str) -> str:
    """The host of an address that a browser on this machine can open: every address is none."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


def bind_http(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Port 0 takes a free one.

    Raises:
        GradwatchError: `port-taken`, naming the process that has it where the system tells, and the flag to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only then; without it a small answer waits 44 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        raise GradwatchError(
            "port-taken" if taken else "invalid-argument",
            where="http",
            expected=f"{host}:{port} to be free" if taken else "an address of this machine",
            got=f"used by {port_owner(port) or 'another process'}" if taken else f"{host}:{port} ({error.strerror})",
            next_step="Choose another with --http HOST:PORT.",
        ) from error
    return listener


def check_certificate(cert: Path | None, key: Path | None) -> None:
    """Load what HTTP is to be encrypted with, before anything is served; nothing to do without.

    Raises:
        GradwatchError: `config-invalid`, naming the files.
    """
    if cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        got = f"{cert}, {key}: {error}"
        raise GradwatchError(
            "config-invalid", where="tls_cert and tls_key", expected="a PEM certificate and its key", got=got
        ) from error


def port_owner(port: int) -> str:
    """`name (pid N)` of the process listening on a TCP port, or '' when the system does not tell (not Linux, not ours)."""
    inodes = {
        fields[9]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for fields in _rows(table)
        if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port
    }
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*") if wanted else ():
        if wanted & _open_files(process):
            return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""


def _open_files(process: Path) -> set[str]:
    found = set()
    try:
        for fd in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile, like the one this listing uses itself
                found.add(os.readlink(fd))
    except OSError:
        return set()  # gone meanwhile, or another user's
    return found


def _rows(table: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path(table).read_text().splitlines()[1:]]
    except OSError:
        return []
