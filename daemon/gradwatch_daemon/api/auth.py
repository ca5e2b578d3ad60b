"""Who may ask: the Host header first (DNS rebinding), then the bearer token. Both in front of every route but two."""

import hmac
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gradwatch_daemon.api.problems import ApiError, problem

OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""What an orchestrator probes, under whatever name it has for us and with no token. Neither shows data."""

_ANY = frozenset({"0.0.0.0", "::"})
"""Binding to every address names no host: a page could otherwise reach us as http://0.0.0.0."""

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="gradwatch"'}


@dataclass(frozen=True, slots=True)
class Authority:
    """A host, lower case and without brackets or trailing dot, and a port, None when not named."""

    host: str
    port: int | None = None


def parse_authority(text: str) -> Authority | None:
    """Read `name`, `name:port`, `1.2.3.4:port`, `[v6]`, `[v6]:port` or a bare IPv6 address; None when it is none of them."""
    text = text.strip().lower()
    if text.startswith("["):
        inside, bracket, rest = text[1:].partition("]")
        if not bracket or _address(inside) is None or (rest and not rest.startswith(":")):
            return None
        return _with_port(_address(inside) or "", rest[1:] if rest else None)
    if text.count(":") > 1:
        address = _address(text)
        return Authority(address) if address else None
    host, colon, port = text.partition(":")
    host = host.removesuffix(".")
    if not host or any(not (c.isalnum() or c in "-._") for c in host):
        return None
    return _with_port(host, port if colon else None)


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        return None


def _with_port(host: str, port: str | None) -> Authority | None:
    if port is None:
        return Authority(host)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        return None
    return Authority(host, int(port))


def host_allowed(header: str, allowed: Collection[Authority]) -> bool:
    """Whether a Host header names an allowed host; an allowed one without a port matches any."""
    given = parse_authority(header)
    return given is not None and (Authority(given.host) in allowed or given in allowed)


def token_matches(given: str, expected: str) -> bool:
    """Compare in constant time. An empty expected token matches nothing."""
    same = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode("utf-8", "surrogateescape"))
    return same and bool(expected)


def bearer_of(header: str) -> str:
    """The token in an Authorization header; '' when there is none."""
    scheme, _, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class Door:
    """ASGI middleware: 421 for a wrong Host, then 401 for a missing or wrong token."""

    def __init__(self, app: ASGIApp, token: str, allowed_hosts: Collection[str]) -> None:
        self._app = app
        self._token = token
        parsed = (parse_authority(host) for host in allowed_hosts)
        self._allowed = frozenset(a for a in parsed if a is not None and a.host not in _ANY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse or pass on."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            refusal = self._refuse(Headers(scope=scope))
            if refusal is not None:
                await problem(refusal, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refuse(self, headers: Headers) -> ApiError | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not host_allowed(hosts[0], self._allowed):
            shown = sorted(a.host for a in self._allowed)
            return ApiError(
                "host-not-allowed", where="Host", expected=f"one of {', '.join(shown)}", got=repr(", ".join(hosts)[:80])
            )
        given = headers.getlist("authorization")
        if len(given) != 1:
            return ApiError("unauthenticated", where="Authorization", expected="Bearer TOKEN", got="none", headers=CHALLENGE)
        if not token_matches(bearer_of(given[0]), self._token):
            wrong = {"WWW-Authenticate": CHALLENGE["WWW-Authenticate"] + ', error="invalid_token"'}
            return ApiError(
                "unauthenticated", where="Authorization", expected="Bearer TOKEN", got="another token or scheme", headers=wrong
            )
        return None
