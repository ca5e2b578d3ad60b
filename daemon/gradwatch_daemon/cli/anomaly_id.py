"""The id of an anomaly as people read and type it: its beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from gradwatch_daemon.cli.failure import EXIT_NOT_FOUND, CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradwatch_daemon.cli.client import Client

T = TypeVar("T")

SHOWN = 8
"""Characters that lists show."""

PREFIX_MIN = 4
"""Characters that are looked for: fewer are more likely a slip."""

DIGITS = frozenset("0123456789abcdef")
"""Of an id. A mistyped word is none, and nothing is asked for it."""

NAMED_MAX = 5


class AmbiguousIdError(CommandError):
    """Several anomalies have an id that begins so."""


def short(id_: str) -> str:
    """What lists show of an id."""
    return id_[:SHOWN]


def by_prefix(client: Client, text: str, ask: Callable[[str], T]) -> T:
    """What `ask` answers for an id, or for the one id that begins so. A whole id costs no request more.

    Raises:
        CommandError: what `ask` raises.
        AmbiguousIdError: 3 for a beginning that several ids have.
    """
    try:
        return ask(text)
    except CommandError as refused:
        found = beginning(client, text) if refused.code == "anomaly-not-found" else None
        if found is None:
            raise
    return ask(found)


def beginning(client: Client, text: str) -> str | None:
    """The one id that begins so, None for none.

    Raises:
        AmbiguousIdError: 3 where several begin so, naming them.
    """
    if len(text) < PREFIX_MIN or not set(text) <= DIGITS:
        return None
    items = client.listed("/api/v1/anomalies")["items"]
    alike = {item["id"]: f"{item['id']} ({item['run']} {item['kind']})" for item in items if item["id"].startswith(text)}
    if len(alike) > 1:
        more = f" and {len(alike) - NAMED_MAX} more" if len(alike) > NAMED_MAX else ""
        raise AmbiguousIdError(
            f"{len(alike)} anomalies have an id that begins with {text!r}.",
            why=", ".join(list(alike.values())[:NAMED_MAX]) + more,
            next_step="Give more of the id.",
            exit_code=EXIT_NOT_FOUND,
            code="anomaly-not-found",
        )
    return next(iter(alike), None)
