"""Who may ask: the Host header first (DNS rebinding), then token or cookie, scope, origin. In front of every route but two."""

import ipaddress
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Scope_

from gradwatch_daemon.api.access import Allowance, Principal, Scope, Sessions, TokenBook
from gradwatch_daemon.api.numbers import time_text
from gradwatch_daemon.api.playbook import is_playbook
from gradwatch_daemon.api.problems import ApiError, problem
from gradwatch_daemon.api.web import is_web

OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""What an orchestrator probes, under whatever name it has for us and with no token. Neither shows data."""

_ANY = frozenset({"0.0.0.0", "::"})
"""Binding to every address names no host: a page could otherwise reach us as http://0.0.0.0."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SESSION_PATH = "/session"
CODES_PATH = "/session/codes"
ADMIN_PATHS = ("/api/v1/tokens", "/api/v1/keys", "/api/v1/audit")

CHANGES_BURST = 120
CHANGES_PER_S = 4.0
"""Changes a token may ask for: a person's burst of clicks or a sweep of a script passes, a loop that went wrong does not."""

REFUSALS_NOTED_BURST = 60
REFUSALS_NOTED_PER_S = 0.1
"""Refusals at the door that the audit keeps, of one token or of nobody's: a guesser or a loop that went wrong fills at most
9,000 lines a day. Those beyond are counted in the next line."""

AUDIT_BODY_BYTES = 1024
"""Of the body of a change: an escalation with its reason. No body holds a secret; tokens are made by us."""

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


def bearer_of(header: str) -> str:
    """The token in an Authorization header; '' when there is none."""
    scheme, _, token = header.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def cookie_name(authority: str) -> str:
    """The cookie of the daemon at an authority. Browsers do not keep cookies of two ports apart, so the port is in its name."""
    parsed = parse_authority(authority)
    return f"gradwatch_{parsed.port or 0}" if parsed is not None else "gradwatch_0"


def cookie_of(header: str, name: str) -> str:
    """The value of one cookie in a Cookie header; '' when it is not there."""
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


def required_scope(method: str, path: str) -> Scope:
    """What a request needs: reading, operating (all that changes a run), or administration (tokens and the audit)."""
    if path.startswith(ADMIN_PATHS):
        return Scope.ADMIN
    return Scope.READ if method in SAFE_METHODS or path in (SESSION_PATH, CODES_PATH) else Scope.OPERATE


class Door:
    """ASGI middleware: 421 for a wrong Host, 401 for nobody's token, 403 for a scope or an origin, 429 for too many changes.

    Whoever passes is `scope["gradwatch.principal"]`; `scope["gradwatch.ends_ns"]` says when that ends, for what lasts. Every
    request that would change something is told to `audit`, with its outcome; of those refused here as many as
    `REFUSALS_NOTED_PER_S` lets through, and how many were not.
    """

    def __init__(
        self,
        app: ASGIApp,
        book: TokenBook,
        sessions: Sessions,
        audit: Callable[[dict[str, Any]], None],
        allowed_hosts: Collection[str],
    ) -> None:
        self._app = app
        self._book, self._sessions, self._audit = book, sessions, audit
        self._allowance = Allowance(CHANGES_BURST, CHANGES_PER_S)
        self._noted = Allowance(REFUSALS_NOTED_BURST, REFUSALS_NOTED_PER_S)
        self._unnoted = 0
        parsed = (parse_authority(host) for host in allowed_hosts)
        self._allowed = frozenset(a for a in parsed if a is not None and a.host not in _ANY)

    async def __call__(self, scope: Scope_, receive: Receive, send: Send) -> None:
        """Refuse or pass on."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
        elif scope["method"] in SAFE_METHODS:
            await self._serve(scope, receive, send)
        else:
            await self._serve_change(scope, receive, send)

    async def _serve(self, scope: Scope_, receive: Receive, send: Send) -> None:
        try:
            self._admit(scope)
        except ApiError as refusal:
            scope["gradwatch.refused"] = True
            await problem(refusal, scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _serve_change(self, scope: Scope_, receive: Receive, send: Send) -> None:
        """Serve, and write down who wanted what and how it went."""
        status, body = 500, b""

        async def receive_noted() -> Message:
            nonlocal body
            message = await receive()
            body = (body + message.get("body", b""))[:AUDIT_BODY_BYTES]
            return message

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._serve(scope, receive_noted, send_noted)
        finally:
            self._note(scope, status, body)

    def _note(self, scope: Scope_, status: int, body: bytes) -> None:
        """Tell the audit of a change, or count it where too many were refused."""
        principal: Principal | None = scope.get("gradwatch.principal")
        if scope.get("gradwatch.refused") and self._noted.take(principal.token if principal else "", time.monotonic()):
            self._unnoted += 1
            return
        client = scope.get("client")
        unwritten, self._unnoted = self._unnoted, 0
        self._audit(
            {
                "at": time_text(time.time_ns()),
                "who": principal.name if principal else None,
                "from": client[0] if client else None,
                "method": scope["method"],
                "path": scope["path"][:AUDIT_BODY_BYTES],
                "body": body.decode("utf-8", "replace"),
                "status": status,
                **({"unwritten": unwritten} if unwritten else {}),
            }
        )

    def _admit(self, scope: Scope_) -> None:
        """Find who asks and whether they may.

        Raises:
            ApiError: the refusal.
        """
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not host_allowed(hosts[0], self._allowed):
            shown = sorted(a.host for a in self._allowed)
            raise ApiError(
                "host-not-allowed", where="Host", expected=f"one of {', '.join(shown)}", got=repr(", ".join(hosts)[:80])
            )
        if is_web(scope["method"], scope["path"]) or is_playbook(scope["method"], scope["path"]):
            return
        change = scope["method"] not in SAFE_METHODS
        opening = scope["method"] == "POST" and scope["path"] == SESSION_PATH
        principal, cookie = self._identify(headers, hosts[0], opening)
        by_cookie = bool(cookie)
        scope["gradwatch.principal"] = principal
        scope["gradwatch.ends_ns"] = (
            partial(self._sessions.ends_ns, cookie) if cookie else partial(self._book.ends_ns, principal)
        )
        if by_cookie and change and scope["method"] == "POST" and scope["path"] in (SESSION_PATH, CODES_PATH):
            # Or a cookie that was stolen once would renew itself for ever.
            got = "a session, which opens no other one"
            raise ApiError("unauthenticated", where="Authorization", expected="Bearer TOKEN", got=got, headers=CHALLENGE)
        if change:
            _check_origin(headers, hosts[0], scope["scheme"], required=by_cookie)
        needed = required_scope(scope["method"], scope["path"])
        if principal.scope < needed:
            raise ApiError(
                "forbidden",
                where=f"token {principal.name}",
                expected=f"scope {needed.word}",
                got=principal.scope.word,
                next_step=f"Make one: `gradwatch token add NAME --scope {needed.word}`, with the owner's token.",
            )
        if change and (wait_s := self._allowance.take(principal.token, time.monotonic())):
            raise ApiError(
                "rate-limited",
                where=f"token {principal.name}",
                expected=f"at most {CHANGES_BURST} changes at once and {CHANGES_PER_S:g} a second",
                got="more",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )

    def _identify(self, headers: Headers, host: str, opening: bool) -> tuple[Principal, str]:
        """Who asks, and the cookie when that said so, else ''. An Authorization header wins over a cookie.

        Where a session is to be opened, and nowhere else, a one-time code stands for the token it was made with.
        """
        given, now_ns = headers.getlist("authorization"), time.time_ns()
        if not given:
            cookie = cookie_of(headers.get("cookie", ""), cookie_name(host))
            principal = self._sessions.find(cookie, now_ns) if cookie else None
            if principal is None:
                got = "a session that is over" if cookie else "none"
                raise ApiError("unauthenticated", where="Authorization", expected="Bearer TOKEN", got=got, headers=CHALLENGE)
            return principal, cookie
        bearer = bearer_of(given[0]) if len(given) == 1 else ""
        principal = self._book.find(bearer, now_ns)
        if principal is None and opening and bearer:
            principal = self._sessions.redeem(bearer, now_ns)
        if principal is None:
            wrong = {"WWW-Authenticate": CHALLENGE["WWW-Authenticate"] + ', error="invalid_token"'}
            raise ApiError(
                "unauthenticated",
                where="Authorization",
                expected="Bearer TOKEN",
                got="another token or scheme, or one that expired",
                headers=wrong,
            )
        return principal, ""


def _check_origin(headers: Headers, host: str, scheme: str, required: bool) -> None:
    """A page of another site may not make a browser change anything here: its Origin is not our own address.

    Raises:
        ApiError: `origin-not-allowed`. Without an Origin header a bearer token is enough (curl sends none), a cookie is not.
    """
    origins = headers.getlist("origin")
    if origins == [f"{scheme}://{host}"] or (not origins and not required):
        return
    got = repr(", ".join(origins)[:80]) if origins else "none"
    raise ApiError("origin-not-allowed", where="Origin", expected=f"{scheme}://{host}", got=got)
