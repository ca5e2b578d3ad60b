"""Who may connect over CURVE: answers libzmq's question for every new connection (ZAP, ZeroMQ RFC 27).

libzmq admits everybody when nobody answers that question. So the answering socket is bound before the public one, in the
same context, served by the same thread and closed after it: there is no moment at which one lives without the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import zmq
from zmq.utils.z85 import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESS = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_REQUEST_PARTS = 7


class Authenticator:
    """Answers for one context. `registered` says of a public key, as 64 hex digits, whether its owner may send."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], registered: Callable[[str], bool]) -> None:
        self.refused = 0
        self._registered = registered
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ADDRESS)

    def answer(self) -> None:
        """Answer one waiting question. Anything that is not a CURVE handshake of a registered key is refused."""
        parts = self.socket.recv_multipart()
        key = _key_of(parts)
        admitted = key is not None and self._registered(key)
        self.refused += not admitted
        status, text, user = (b"200", b"OK", key or "") if admitted else (b"400", b"key not registered", "")
        request_id = parts[1] if len(parts) > 1 else b""
        self.socket.send_multipart([_VERSION, request_id, status, text, user.encode(), b""])

    def close(self) -> None:
        """Stop answering. Only after the sockets it answers for are closed."""
        self.socket.close(0)


def _key_of(parts: list[bytes]) -> str | None:
    """The public key of a handshake: version, id, domain, address, identity, mechanism, key."""
    if len(parts) != _REQUEST_PARTS or parts[0] != _VERSION or parts[5] != b"CURVE" or len(parts[6]) != 32:
        return None
    return parts[6].hex()


def make_pair() -> tuple[str, str]:
    """A new key pair, public and secret, 64 hex digits each."""
    public, secret = zmq.curve_keypair()
    return _hex(public), _hex(secret)


def public_of(secret: str) -> str:
    """The public key that belongs to a secret one."""
    return _hex(zmq.curve_public(encode(bytes.fromhex(secret))))


def encrypt(socket: zmq.Socket[bytes], secret: str) -> None:
    """Make a socket, before it is bound, speak nothing but CURVE as the server with this secret key."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, bytes.fromhex(secret))


def _hex(z85: bytes) -> str:
    return decode(z85).hex()
