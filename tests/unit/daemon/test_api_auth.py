"""The door: Host first, then the token, on every address but the two probes."""

from __future__ import annotations

import pytest

from gradwatch_daemon.api.access import Principal, Scope, TokenBook
from gradwatch_daemon.api.auth import Authority, bearer_of, host_allowed, parse_authority
from harness.fake_api import HOST, TOKEN, make_daemon, problem_of

EVERYWHERE = [
    ("GET", "/api/v1/runs"),
    ("GET", "/api/v1/anomalies"),
    ("GET", "/api/v1/detectors"),
    ("GET", "/api/v1/stream"),
    ("POST", "/api/v1/runs/ant-ppo/escalations"),
    ("DELETE", "/api/v1/runs/ant-ppo/escalations/e1"),
    ("GET", "/version"),
    ("GET", "/metrics"),
    ("GET", "/api/v1/daemon"),
    ("GET", "/openapi.json"),
    ("GET", "/nothing/here"),
]


@pytest.mark.parametrize(("method", "path"), EVERYWHERE)
@pytest.mark.parametrize("given", ["", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer ", "Bearer töken"])
async def test_token_missing_or_wrong_is_unauthenticated_everywhere(method: str, path: str, given: str) -> None:
    """401 with the challenge, and nothing of the request is carried out."""
    daemon = make_daemon()
    async with daemon.client() as client:
        client.headers.pop("Authorization")
        headers = [(b"authorization", given.encode())] if given else []
        answer = await client.request(method, path, headers=headers)

    assert problem_of(answer)["code"] == "unauthenticated"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (daemon.reader.calls, daemon.pipeline.requests) == ([], [])
    assert TOKEN not in answer.text


async def test_token_given_twice_is_unauthenticated() -> None:
    """Two headers are two opinions; a proxy may have checked the other one."""
    daemon = make_daemon()
    async with daemon.client() as client:
        request = client.build_request("GET", "/api/v1/runs")
        request.headers = type(request.headers)(
            [("host", HOST), ("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer x")]
        )
        answer = await client.send(request)

    assert answer.status_code == 401


async def test_host_given_twice_is_misdirected() -> None:
    """A proxy may have checked the other one."""
    async with make_daemon().client() as client:
        request = client.build_request("GET", "/api/v1/runs")
        request.headers = type(request.headers)(
            [("host", HOST), ("host", "evil.example"), ("authorization", f"Bearer {TOKEN}")]
        )
        answer = await client.send(request)

    assert answer.status_code == 421


async def test_token_in_the_query_is_unauthenticated() -> None:
    """A token in an address ends up in logs; only the header counts."""
    async with make_daemon().client(Authorization="") as client:
        answer = await client.get(f"/api/v1/runs?token={TOKEN}")

    assert answer.status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9470", "127.0.0.1.evil.example", "localhost@evil", "", "[::1"])
@pytest.mark.parametrize("path", ["/api/v1/runs", "/version", "/openapi.json"])
async def test_host_of_another_name_is_misdirected(host: str, path: str) -> None:
    """DNS rebinding: the page's name is in the Host header, whatever address it resolved to."""
    async with make_daemon().client(Host=host) as client:
        answer = await client.get(path)

    found = problem_of(answer)
    assert (answer.status_code, found["code"]) == (421, "host-not-allowed")
    assert "--allowed-host" in found["hint"]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:1",
        "LOCALHOST:9470",
        "localhost.",
        "[::1]",
        "[::1]:9470",
        "[0:0:0:0:0:0:0:1]:9470",
        "localhost.:80",
    ],
)
async def test_host_of_loopback_in_any_spelling_is_served(host: str) -> None:
    """IPv6 in brackets, with and without port, is the same host."""
    async with make_daemon().client(Host=host) as client:
        assert (await client.get("/api/v1/runs")).status_code == 200


async def test_host_any_address_is_never_a_name() -> None:
    """A daemon that listens on 0.0.0.0 is not to be reached as http://0.0.0.0 by a page."""
    async with make_daemon(allowed_hosts=("0.0.0.0", "localhost")).client(Host="0.0.0.0:9470") as client:
        assert (await client.get("/api/v1/runs")).status_code == 421


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_need_neither_token_nor_host(path: str) -> None:
    """A container's health check knows neither."""
    async with make_daemon().client(Host="10.1.2.3:80", Authorization="") as client:
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpu7.lab", Authority("gpu7.lab")),
        ("GPU7.lab.:80", Authority("gpu7.lab", 80)),
        ("::1", Authority("::1")),
        ("[::1]:9470", Authority("::1", 9470)),
        ("[::1]x", None),
        ("[::1]:", None),
        ("[gpu]:1", None),
        ("a:b", None),
        ("a:65536", None),
        ("a:-1", None),
        ("a b", None),
        ("a/b", None),
        ("user@a", None),
        (":80", None),
        (".", None),
        ("1:2:3", None),
    ],
)
def test_authority_is_read_or_refused(text: str, expected: Authority | None) -> None:
    """What is not exactly a host and a port is nothing."""
    assert parse_authority(text) == expected


def test_host_allowed_with_a_port_matches_that_port_only() -> None:
    """`name:8443` on the list is that service, `name` any."""
    allowed = {Authority("a", 8443), Authority("b")}

    assert host_allowed("a:8443", allowed)
    assert not host_allowed("a:80", allowed)
    assert not host_allowed("a", allowed)
    assert host_allowed("b:80", allowed)


def test_token_empty_matches_nothing() -> None:
    """A daemon without a token is closed, not open."""
    assert TokenBook("").find("", 0) is None
    assert TokenBook("tökén").find("tökén", 0) == Principal("owner", "owner", Scope.ADMIN)
    assert TokenBook("token").find("tokem", 0) is None


@pytest.mark.parametrize(
    ("header", "token"), [("Bearer a", "a"), ("bearer  a ", "a"), ("Basic a", ""), ("Bearer", ""), ("", "")]
)
def test_bearer_of_header_is_the_token(header: str, token: str) -> None:
    """The scheme's case does not matter (RFC 9110)."""
    assert bearer_of(header) == token
