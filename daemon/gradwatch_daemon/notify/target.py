"""Where notifications go: the `[[notify]]` tables of the configuration, or one variable of the environment."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gradwatch_contracts.control import Severity
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import ID, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

KINDS = ("webhook", "alertmanager", "apprise")
TARGETS_MAX = 16
"""Each has a thread of its own, so that one that hangs keeps no other waiting."""

SECRET_BYTES_MIN = 16
"""Of the key that a webhook's secret stands for: shorter ones can be guessed."""


@dataclass(frozen=True, slots=True)
class Target:
    """One channel. `url` is the address to post to, of an Alertmanager its base, of Apprise one of its own kind; `secret` signs
    what a webhook is sent; what is less severe than `severity` is not told."""

    kind: str
    url: str = field(repr=False)
    name: str = ""
    secret: str = field(default="", repr=False)
    severity: Severity = Severity.WARNING

    @property
    def address(self) -> str:
        """Scheme and host: a path or an Apprise address may hold a token."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        return (
            f"{parts.scheme}://…"
            if self.kind == "apprise"
            else f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
        )


KEYS = tuple(one.name for one in fields(Target))


def signing_key(secret: str) -> bytes:
    """The key in a secret: `whsec_…` is base64 of it, as Standard Webhooks has it; another text is the key itself.

    Raises:
        ValueError: `whsec_` before something that is not base64.
    """
    return base64.b64decode(secret[6:], validate=True) if secret.startswith("whsec_") else secret.encode()


def read_targets(value: object, secret: str, origin: str) -> tuple[Target, ...]:
    """The channels of a list of tables, or of a text `KIND+URL KIND+URL` (the variable). `secret` is for webhooks without one.

    Raises:
        GradwatchError: `config-invalid`, naming the table, the key, and the nearest to an unknown one.
    """
    if isinstance(value, str):
        value = [_of_word(word, origin) for word in value.split()]
    if not isinstance(value, (list, tuple)):
        raise _invalid(f"notify ({origin})", "tables [[notify]]", repr(value)[:80])
    if len(value) > TARGETS_MAX:
        raise _invalid(f"notify ({origin})", f"at most {TARGETS_MAX}", str(len(value)))
    targets: list[Target] = []
    for place, table in enumerate(value, 1):
        targets.append(_read(table, secret, f"notify {place} ({origin})", {target.name for target in targets}))
    return tuple(targets)


def _of_word(word: str, origin: str) -> dict[str, str]:
    kind, plus, url = word.partition("+")
    if not plus:
        raise _invalid(
            f"notify ({origin})", "KIND+URL such as webhook+https://hooks.lab/x, with spaces between", repr(word)[:40]
        )
    return {"kind": kind, "url": url}


def _read(table: object, secret: str, where: str, taken: Collection[str]) -> Target:
    if not isinstance(table, dict):
        raise _invalid(where, "a table", f"a {type(table).__name__}")  # not itself: it may be an address with a token
    for key in table:
        if key not in KEYS:
            raise _unknown(where, "key", str(key), KEYS)
    kind = _text(table, "kind", where)
    if kind not in KINDS:
        raise _unknown(where, "kind", kind, KINDS)
    target = Target(
        kind,
        _text(table, "url", where),
        _text(table, "name", where) if "name" in table else _free_name(kind, taken),
        _text(table, "secret", where) if "secret" in table else secret if kind == "webhook" else "",
        _severity(table, where),
    )
    _check(target, where, taken)
    return target


def _check(target: Target, where: str, taken: Collection[str]) -> None:
    if not ID.fullmatch(target.name):
        raise _invalid(f"{where}.name", ID.pattern, repr(target.name)[:80])
    if target.name in taken:
        raise _invalid(f"{where}.name", "a name of its own", repr(target.name))
    if target.kind == "apprise":
        if "://" not in target.url:
            raise _invalid(f"{where}.url", "an address of Apprise, such as slack://… or mailto://…", "another text")
        if find_spec("apprise") is None:
            raise _invalid(
                where, "the package apprise", "none", "Install it from the clone of gradwatch: pip install -e '.[notify]'."
            )
        return
    _check_url(target.url, f"{where}.url")
    if target.kind == "webhook":
        _check_secret(target.secret, f"{where}.secret")


def _check_url(url: str, where: str) -> None:
    """Refuse at the start what could never be posted to. The words of the library are left out: they quote the address."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and not parts.username and not parts.password
        usable = usable and parts.port != 0  # reading it checks it
    except ValueError:
        raise _invalid(where, "http://HOST… or https://HOST…", "a host or port that cannot be") from None
    if not usable:
        raise _invalid(where, "http://HOST… or https://HOST…, without a user in it", f"{parts.scheme or 'no scheme'}")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise _invalid(where, "an address with %XX for spaces and what is not ASCII", "such a character as it is")


def _check_secret(secret: str, where: str) -> None:
    try:
        size = len(signing_key(secret))
    except ValueError:
        raise _invalid(where, "base64 behind whsec_, with its =", "something else") from None
    if size < SECRET_BYTES_MIN:
        expected = f"a secret of {SECRET_BYTES_MIN} bytes or more: who receives must be able to tell it is from us"
        next_step = "Set secret in the table, or GRADWATCH_NOTIFY_SECRET."
        raise _invalid(where, expected, f"{size} bytes" if size else "none", next_step)


def _severity(table: Mapping[str, Any], where: str) -> Severity:
    word, known = table.get("severity", Severity.WARNING.value), [severity.value for severity in Severity]
    if word not in known:
        raise _unknown(where, "severity", str(word), known)
    return Severity(word)


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise _invalid(f"{where}.{key}", "a text", "nothing" if value is None else repr(value)[:40])
    return value


def _free_name(kind: str, taken: Collection[str]) -> str:
    return next(name for name in (kind, *(f"{kind}-{n}" for n in range(2, TARGETS_MAX + 2))) if name not in taken)


def _unknown(where: str, what: str, word: str, known: Collection[str]) -> GradwatchError:
    hint = nearest(word, known)
    return _invalid(
        where, f"one of {', '.join(known)}", f"the unknown {what} {word[:40]!r}", f"Did you mean {hint}?" if hint else ""
    )


def _invalid(where: str, expected: str, got: str, next_step: str = "") -> GradwatchError:
    return GradwatchError("config-invalid", where=where, expected=expected, got=got, next_step=next_step)


def check_public_url(url: str) -> str:
    """The address people reach this daemon by, without a slash at its end; '' for none.

    Raises:
        ValueError: saying what was expected.
    """
    if not url:
        return ""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or any(c.isspace() for c in url):
        raise ValueError("expected an http or https address such as https://gpu7.lab:9470")
    if parts.username is not None or parts.password is not None:
        raise ValueError("expected an address without user and password: it stands in what is sent to others")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("expected an address without ? and #: links end in #/anomalies/ID")
    parts.port  # noqa: B018 - raises for a port that is none
    return url.rstrip("/")
