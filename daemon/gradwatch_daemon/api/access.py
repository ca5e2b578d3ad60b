"""Who may do what: scopes, tokens kept as hashes, and what a browser holds in place of one. Pure; clocks are arguments."""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import FITTING, ID

TOKENS_MAX = 64
"""Each costs one comparison of 32 bytes per request; people and scripts beyond that want a proxy with accounts."""

KEYS_MAX = 4096
"""Agents of other machines; looked up in a set."""

SESSIONS_MAX = 32
"""Browsers of one token: who opens more ends the oldest of these, and nobody else's."""

SESSION_S = 12 * 3600
"""A working day: the cookie of a forgotten browser ends by itself."""

CODES_MAX = 16
"""Of one token, as of sessions."""

CODE_S = 15 * 60
"""A printed address opens the page this long, and once: what stays in a terminal or a log is worth nothing."""

NEVER_NS = 2**63 - 1
"""When a token ends that does not."""

OWNER = "owner"
"""The principal of the token file, which is made at the first start and is not in the book."""


class Scope(IntEnum):
    """What a token allows; each includes the ones below it."""

    READ = 1
    OPERATE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """As people write it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is kept: the SHA-256 of 256 random bits, never the token. Times are unix ns, None: it does not expire."""

    id: str
    name: str
    scope: Scope
    digest: str
    created_ns: int
    expires_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the name of the token, its id, and what it allows."""

    name: str
    token: str
    scope: Scope


def digest_of(secret: str) -> str:
    """What is kept of a secret. It has 256 random bits, so nothing slower than one hash is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


class TokenBook:
    """The owner's token and those made for others. `save` is given the whole list after each change, before it holds."""

    def __init__(self, owner: str, tokens: Sequence[Token] = (), save: Callable[[Sequence[Token]], None] | None = None) -> None:
        self._owner = Token(OWNER, OWNER, Scope.ADMIN, digest_of(owner) if owner else "", 0)
        self._tokens = tuple(tokens)
        self._save = save

    @property
    def owner(self) -> Principal:
        """Whoever reads the token file."""
        return Principal(OWNER, OWNER, Scope.ADMIN)

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Those made for others, oldest first."""
        return self._tokens

    def find(self, secret: str, now_ns: int) -> Principal | None:
        """Whose token this is, None when it is nobody's or has expired. Every kept hash is compared, in constant time."""
        given, found = digest_of(secret), None
        for token in (self._owner, *self._tokens):
            if hmac.compare_digest(given, token.digest) and token.digest:
                found = token
        if not secret or found is None or _over(found, now_ns):
            return None
        return Principal(found.name, found.id, found.scope)

    def holds(self, principal: Principal, now_ns: int) -> bool:
        """Whether the token behind a principal is still there and has not expired."""
        return now_ns < self.ends_ns(principal)

    def ends_ns(self, principal: Principal) -> int:
        """When the token behind a principal ends (unix ns); 0 for one that is not there (any more)."""
        ends = (token.expires_ns for token in (self._owner, *self._tokens) if token.id == principal.token)
        return next((NEVER_NS if end is None else end for end in ends), 0)

    def add(self, name: str, scope: Scope, lifetime_s: float | None, now_ns: int) -> tuple[Token, str]:
        """Make a token; the secret is given this once and not kept.

        Raises:
            GradwatchError: `invalid-argument` for a name that is taken or not a name, or beyond `TOKENS_MAX`.
        """
        _check_free(name, [token.name for token in self._tokens], TOKENS_MAX, "gradwatch token revoke NAME")
        secret = "gw_" + secrets.token_urlsafe(32)
        expires = None if lifetime_s is None else now_ns + int(lifetime_s * 1e9)
        token = Token(secrets.token_hex(4), name, scope, digest_of(secret), now_ns, expires)
        self._replace((*self._tokens, token))
        return token, secret

    def revoke(self, name: str) -> Token:
        """Take a token back; it and every session made with it are refused from now on.

        Raises:
            GradwatchError: `token-not-found`.
        """
        for token in self._tokens:
            if token.name == name:
                self._replace(tuple(other for other in self._tokens if other is not token))
                return token
        known = ", ".join(token.name for token in self._tokens) or "no token at all"
        raise GradwatchError("token-not-found", where="name", expected=f"one of {known}", got=repr(name[:80]))

    def _replace(self, tokens: tuple[Token, ...]) -> None:
        if self._save is not None:
            self._save(tokens)
        self._tokens = tokens


def _over(token: Token, now_ns: int) -> bool:
    return token.expires_ns is not None and now_ns >= token.expires_ns


@dataclass(frozen=True, slots=True)
class Key:
    """An agent of another machine: the name it was registered under and its public key in hex."""

    name: str
    public: str
    created_ns: int


class KeyBook:
    """The public keys that may send. HTTP changes it, the socket's thread reads it: each change is one assignment."""

    def __init__(self, local: str, keys: Sequence[Key] = (), save: Callable[[Sequence[Key]], None] | None = None) -> None:
        self._local, self._keys, self._save = local, tuple(keys), save
        self._known = frozenset({local, *(key.public for key in keys)})

    @property
    def keys(self) -> tuple[Key, ...]:
        """Those of other machines, oldest first."""
        return self._keys

    def registered(self, public: str) -> bool:
        """Whether the owner of this key may send. `local` is that of trainers of this user on this machine."""
        return public in self._known

    def add(self, name: str, public: str, now_ns: int) -> Key:
        """Register a key.

        Raises:
            GradwatchError: `invalid-argument` for a name that is taken or not a name, or beyond `KEYS_MAX`.
        """
        _check_free(name, [key.name for key in self._keys], KEYS_MAX, "gradwatch keys revoke NAME")
        key = Key(name, public, now_ns)
        self._replace((*self._keys, key))
        return key

    def revoke(self, name: str) -> Key:
        """Take a key back: it is refused from its next frame on.

        Raises:
            GradwatchError: `key-not-found`.
        """
        key = next((key for key in self._keys if key.name == name), None)
        if key is None:
            known = ", ".join(key.name for key in self._keys) or "no key at all"
            raise GradwatchError("key-not-found", where="name", expected=f"one of {known}", got=repr(name[:80]))
        self._replace(tuple(other for other in self._keys if other is not key))
        return key

    def _replace(self, keys: tuple[Key, ...]) -> None:
        if self._save is not None:
            self._save(keys)
        self._keys, self._known = keys, frozenset({self._local, *(key.public for key in keys)})


def _check_free(name: str, taken: Sequence[str], most: int, way_out: str) -> None:
    """Refuse a name that is none or in use, and one more than `most`."""
    if not ID.fullmatch(name):
        raise GradwatchError("invalid-argument", where="name", expected=ID.pattern, got=repr(name[:80]), next_step=FITTING)
    if name in taken or name == OWNER:
        got, next_step = repr(name), f"Choose another, or take that one back first with `{way_out}`."
        raise GradwatchError("invalid-argument", where="name", expected="a name not in use", got=got, next_step=next_step)
    if len(taken) >= most:
        got, next_step = f"{len(taken)} already", f"Take one back with `{way_out}`."
        raise GradwatchError("invalid-argument", where="name", expected=f"at most {most}", got=got, next_step=next_step)


class Sessions:
    """What browsers hold instead of a token: a random cookie, kept here as its hash. They end with the daemon.

    A code stands for a token in an address that is printed: it opens one session. Neither outlives its token.
    """

    def __init__(self, book: TokenBook) -> None:
        self._book = book
        self._open: dict[str, tuple[Principal, int]] = {}
        self._codes: dict[str, tuple[Principal, int]] = {}

    def invite(self, principal: Principal, now_ns: int) -> tuple[str, int]:
        """A code that opens one session of `principal`, and until when (unix ns). Its oldest gives way beyond `CODES_MAX`."""
        code = "once_" + secrets.token_urlsafe(24)
        until_ns = min(now_ns + CODE_S * 1_000_000_000, self._book.ends_ns(principal))
        self._codes[digest_of(code)] = (principal, until_ns)
        self._forget(self._codes, principal, CODES_MAX, now_ns)
        return code, until_ns

    def redeem(self, code: str, now_ns: int) -> Principal | None:
        """Whose code this is; it is used up. None for one that was used, is over, or whose token was revoked."""
        principal, until_ns = self._codes.pop(digest_of(code), (None, 0))
        return principal if principal is not None and now_ns < until_ns and self._book.holds(principal, now_ns) else None

    def until(self, secret: str) -> int | None:
        """When a session ends (unix ns); None for one that is not open."""
        entry = self._open.get(digest_of(secret))
        return None if entry is None else entry[1]

    def ends_ns(self, secret: str) -> int:
        """When a session ends, with its token at the latest (unix ns); 0 for one that is not open (any more)."""
        principal, until_ns = self._open.get(digest_of(secret), (None, 0))
        return 0 if principal is None else min(until_ns, self._book.ends_ns(principal))

    def open(self, principal: Principal, now_ns: int) -> str:
        """A new cookie for `principal`, good for `SESSION_S` or as long as its token; see `until`. Its oldest one gives way
        beyond `SESSIONS_MAX`."""
        secret = secrets.token_urlsafe(32)
        until_ns = min(now_ns + SESSION_S * 1_000_000_000, self._book.ends_ns(principal))
        self._open[digest_of(secret)] = (principal, until_ns)
        self._forget(self._open, principal, SESSIONS_MAX, now_ns)
        return secret

    def _forget(self, entries: dict[str, tuple[Principal, int]], principal: Principal, most: int, now_ns: int) -> None:
        """Forget what is over, and the oldest of one token beyond `most`."""
        for key in [key for key, (who, end) in entries.items() if now_ns >= end or not self._book.holds(who, now_ns)]:
            del entries[key]
        own = [key for key, (who, _) in entries.items() if who.token == principal.token]
        for key in own[: max(len(own) - most, 0)]:
            del entries[key]

    def find(self, secret: str, now_ns: int) -> Principal | None:
        """Whose cookie this is: None once it is over, closed, or its token revoked."""
        key = digest_of(secret)
        entry = self._open.get(key)
        if entry is None:
            return None
        principal, until_ns = entry
        if now_ns >= until_ns or not self._book.holds(principal, now_ns):
            del self._open[key]
            return None
        return principal

    def close(self, secret: str) -> None:
        """Forget a cookie."""
        self._open.pop(digest_of(secret), None)


class Allowance:
    """A bucket of `burst` requests that fills at `per_s`, one for each principal: control is for people and their scripts."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst, self._per_s = burst, per_s
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, who: str, now_s: float) -> float:
        """0.0 when one more is allowed, else the seconds until it is."""
        left, since = self._left.get(who, (float(self._burst), now_s))
        left = min(float(self._burst), left + (now_s - since) * self._per_s)
        wait = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._left[who] = (left - 1 if wait == 0 else left, now_s)
        return wait
