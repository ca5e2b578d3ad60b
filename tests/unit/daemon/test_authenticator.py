"""Who may connect over CURVE: closed whenever it is not certain, tried before anything is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import zmq

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.ingest import socket as ingest
from gradwatch_daemon.ingest.authenticator import ADDRESS, Authenticator, encrypt, make_pair, public_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CURVE = [b"1.0", b"7", b"", b"127.0.0.1", b"", b"CURVE", b"k" * 32]


@pytest.fixture
def open_socket() -> Iterator[Callable[[int], zmq.Socket[bytes]]]:
    """Makes sockets of one context, and closes them at the end."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made: list[zmq.Socket[bytes]] = []

    def make(kind: int) -> zmq.Socket[bytes]:
        made.append(context.socket(kind))
        return made[-1]

    yield make
    for socket in made:
        socket.close(0)
    context.term()


def _ask(parts: list[bytes], registered: Callable[[str], bool]) -> list[bytes]:
    with zmq.Context() as context:
        authenticator = Authenticator(context, registered)
        with context.socket(zmq.REQ) as asking:
            asking.connect(ADDRESS)
            asking.send_multipart(parts)
            assert authenticator.socket.poll(5000)
            authenticator.answer()
            assert asking.poll(5000)
            answer = asking.recv_multipart()
        authenticator.close()
    return answer


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        CURVE[:6],
        [*CURVE, b"more"],
        [b"2.0", *CURVE[1:]],
        [*CURVE[:5], b"NULL", b"k" * 32],
        [*CURVE[:5], b"PLAIN", b"k" * 32],
        [*CURVE[:6], b"k" * 31],
    ],
)
def test_question_that_is_no_curve_handshake_is_refused(parts: list[bytes]) -> None:
    """Even when every key would be welcome."""
    assert _ask(parts, lambda key: True)[2] == b"400"


def test_question_of_a_registered_key_is_admitted_and_named_another_is_not() -> None:
    """The name is what each of its frames then carries."""
    known = (b"k" * 32).hex()
    admitted = _ask(CURVE, lambda key: key == known)
    refused = _ask(CURVE, lambda key: key != known)

    assert (admitted[1], admitted[2], admitted[4]) == (b"7", b"200", known.encode())
    assert (refused[1], refused[2], refused[4]) == (b"7", b"400", b"")


def test_self_test_passes_with_the_authenticator_as_it_is() -> None:
    """A registered key gets through, a stranger does not."""
    ingest.check_refusal()


def test_self_test_fails_and_nothing_is_bound_when_strangers_get_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way libzmq behaves without an authenticator: encrypted, and open to everybody."""

    def elsewhere(self: Authenticator, context: zmq.Context[zmq.Socket[bytes]], registered: object) -> None:
        self.refused = 0
        self.socket = context.socket(zmq.REP)
        self.socket.bind("inproc://elsewhere")

    monkeypatch.setattr(Authenticator, "__init__", elsewhere)

    with pytest.raises(GradwatchError, match="a stranger refused, got admitted, admitted"):
        ingest.IngestSocket("tcp://127.0.0.1:0", ingest.Curve(make_pair()[1], lambda key: True))


def test_self_test_fails_when_registered_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A door that opens for nobody is noticed at the start, not by the trainers."""
    monkeypatch.setattr("gradwatch_daemon.ingest.authenticator._key_of", lambda parts: None)

    with pytest.raises(GradwatchError, match="got refused, refused"):
        ingest.check_refusal()


def test_frames_of_a_key_that_was_revoked_are_dropped_on_an_open_connection(
    open_socket: Callable[[int], zmq.Socket[bytes]],
) -> None:
    """Taking a key back does not wait for a reconnect."""
    secret, mine = make_pair()[1], make_pair()[1]
    known = {public_of(mine)}
    with ingest.IngestSocket("tcp://127.0.0.1:0", ingest.Curve(secret, known.__contains__)) as socket:
        client = open_socket(zmq.DEALER)
        _give_keys(client, secret, mine)
        client.connect(socket.endpoint)
        client.send(b"one")
        turns = [socket.receive(50, 10) for _ in range(20)]
        assert [frame for turn in turns for _, frame in turn] == [b"one"]
        known.clear()
        client.send(b"two")
        for _ in range(200):
            assert socket.receive(50, 10) == []
            if socket.strangers:
                break
        assert socket.strangers == 1


def test_encrypted_socket_hears_a_registered_key_and_not_the_plain_peer_before_it(
    open_socket: Callable[[int], zmq.Socket[bytes]],
) -> None:
    """A plain agent is not let in by mistake, though it was there first."""
    secret, mine = make_pair()[1], make_pair()[1]
    with ingest.IngestSocket("tcp://127.0.0.1:0", ingest.Curve(secret, public_of(mine).__eq__)) as socket:
        plain = open_socket(zmq.DEALER)
        plain.connect(socket.endpoint)
        plain.send(b"plain")
        for _ in range(20):
            assert socket.receive(10, 10) == []
        client = open_socket(zmq.DEALER)
        _give_keys(client, secret, mine)
        client.connect(socket.endpoint)
        client.send(b"secret")
        turns = [socket.receive(50, 10) for _ in range(20)]

    assert [frame for turn in turns for _, frame in turn] == [b"secret"]


def _give_keys(client: zmq.Socket[bytes], secret: str, mine: str) -> None:
    client.setsockopt(zmq.CURVE_SERVERKEY, bytes.fromhex(public_of(secret)))
    client.setsockopt(zmq.CURVE_PUBLICKEY, bytes.fromhex(public_of(mine)))
    client.setsockopt(zmq.CURVE_SECRETKEY, bytes.fromhex(mine))


def test_encrypt_makes_a_socket_a_curve_server(open_socket: Callable[[int], zmq.Socket[bytes]]) -> None:
    """Set before the bind, so that there is no plain moment."""
    socket = open_socket(zmq.ROUTER)
    encrypt(socket, make_pair()[1])

    assert socket.getsockopt(zmq.MECHANISM) == zmq.CURVE
