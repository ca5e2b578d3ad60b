"""GET stream and whose it is: it ends with the token or the browser session, and no token takes them all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api import stream as stream_module
from gradwatch_daemon.api.access import NEVER_NS, OWNER, Scope, TokenBook
from gradwatch_daemon.api.auth import cookie_name
from gradwatch_daemon.api.hub import CLIENTS_MAX, STREAMS_OF_OTHERS_MAX, STREAMS_OF_TOKEN_MAX, TOPICS, Holder, Hub
from harness.fake_api import HOST, TOKEN, make_daemon
from harness.fake_records import make_anomaly
from harness.stream_client import StreamClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradwatch_daemon.api.hub import Client

ORIGIN = {"Origin": f"http://{HOST}"}


def _book(lifetime_s: float | None = None) -> tuple[TokenBook, str]:
    book = TokenBook(TOKEN)
    return book, book.add("eve", Scope.READ, lifetime_s, time.time_ns())[1]


async def test_stream_of_a_token_ends_when_it_is_revoked() -> None:
    """At once: what happens next is told to those who may still know."""
    book, secret = _book()
    daemon = make_daemon(book=book)

    async with StreamClient(daemon, token=secret) as client, StreamClient(daemon) as owner, daemon.client() as http:
        await client.next(), await owner.next()
        assert (await http.delete("/api/v1/tokens/eve")).status_code == 200
        daemon.publish(make_anomaly())
        rest = [(event.name, event.data) async for event in client.rest()]
        told = await owner.next()

    assert rest == [("bye", {"reason": "token over"})]
    assert told.name == "anomaly"


async def test_stream_of_a_token_ends_when_it_expires() -> None:
    """By itself, at the second, not at the next heartbeat."""
    book, secret = _book(0.2)
    daemon = make_daemon(book=book)

    async with StreamClient(daemon, token=secret) as client:
        await client.next()
        rest = [(event.name, event.data) async for event in client.rest()]

    assert rest == [("bye", {"reason": "token over"})]
    assert daemon.hub.clients == frozenset()


@pytest.mark.parametrize("way", ["token revoked", "signed out"])
async def test_stream_of_a_browser_ends_with_its_session(way: str) -> None:
    """Also where somebody else took back the token that opened it."""
    book, secret = _book()
    daemon = make_daemon(book=book)

    async with daemon.client(Authorization=f"Bearer {secret}") as browser:
        cookie = (await browser.post("/session")).headers["set-cookie"].partition(";")[0]
        assert cookie.startswith(cookie_name(HOST))
        del browser.headers["Authorization"]
        async with StreamClient(daemon, cookie=cookie) as client:
            await client.next()
            if way == "signed out":
                assert (await browser.delete("/session", headers=ORIGIN)).status_code == 204
            else:
                async with daemon.client() as owner:
                    assert (await owner.delete("/api/v1/tokens/eve")).status_code == 200
            rest = [(event.name, event.data) async for event in client.rest()]

    assert rest == [("bye", {"reason": "token over"})]


async def test_stream_whose_session_gave_way_ends_at_the_next_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells the streams of it, so each looks again."""
    monkeypatch.setattr(stream_module, "HEARTBEAT_S", 0.01)
    book, secret = _book()
    daemon = make_daemon(book=book)

    async with StreamClient(daemon, token=secret) as client:
        await client.next()
        book.revoke("eve")
        assert client.task is not None
        await client.task

    assert '{"reason":"token over"}' in client.text


def _opened(hub: Hub, token: str, ends_ns: Callable[[], int] = lambda: NEVER_NS) -> Client:
    return hub.subscribe(TOPICS, holder=Holder(token, ends_ns))


def test_streams_of_one_token_are_bounded_and_the_owner_still_gets_one() -> None:
    """Neither one token nor all of them together take the last stream."""
    hub = Hub("cafe")
    for _ in range(STREAMS_OF_TOKEN_MAX):
        _opened(hub, "t0")
    with pytest.raises(GradwatchError, match="of this token"):
        _opened(hub, "t0")
    for n in range(STREAMS_OF_TOKEN_MAX, STREAMS_OF_OTHERS_MAX):
        _opened(hub, f"t{n}")
    with pytest.raises(GradwatchError, match="but the owner's"):
        _opened(hub, "one more")
    for _ in range(CLIENTS_MAX - STREAMS_OF_OTHERS_MAX):
        _opened(hub, OWNER)
    with pytest.raises(GradwatchError, match=f"at most {CLIENTS_MAX}"):
        _opened(hub, OWNER)


def test_requests_that_wait_take_no_stream() -> None:
    """They have bounds of their own, in time."""
    hub = Hub("cafe")
    for _ in range(CLIENTS_MAX):
        hub.subscribe({"run"}, {"ant-ppo"})

    assert _opened(hub, OWNER) in hub.clients
