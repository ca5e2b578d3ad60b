"""Following the stream of anomalies through lost connections, restarts and gaps, without losing or repeating a change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.cli.failure import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from gradwatch_daemon.cli.client import Client

RECONNECT_S = 2.0
"""What the stream itself asks browsers to wait."""

PASSING = frozenset({"daemon-unreachable", "not-ready", "overloaded"})
"""Failures that may be over in a moment. Others (a wrong token, an unknown run) will not pass by waiting."""


def follow(
    connect: Callable[[], Client],
    wanted: Mapping[str, object],
    query: Mapping[str, object],
    note: Callable[[str], None],
    pause: Callable[[float], object],
) -> Iterator[dict[str, Any]]:
    """Yield every anomaly there is, oldest first, then every change of one, for ever.

    `wanted` are the parameters of the stream, `query` those of the list. The list is read after the stream is open, so
    nothing falls between them. A lost stream is taken up after its last id; where the daemon says that events are
    missing, the list is read again. `connect` is called anew for each try: a restarted daemon may have moved.

    Raises:
        CommandError: when the first connection fails, or for a refusal that waiting does not mend.
    """
    known: dict[str, dict[str, Any]] = {}
    last_id, connected = "", False
    while True:
        try:
            client = connect()
            for event in client.stream(last_id, **wanted):
                if event.name == "anomaly":
                    yield from _changed([event.data], known)
                elif event.name == "gap" or (event.name == "hello" and not connected):
                    yield from _changed(reversed(client.listed("/api/v1/anomalies", **query)["items"]), known)
                connected = True
                last_id = event.id or last_id
        except (CommandError, GradwatchError) as error:
            slug = error.code if isinstance(error, CommandError) else error.code.slug
            if slug not in PASSING or not connected:
                raise
        note("The connection to the daemon was lost; trying again.")
        pause(RECONNECT_S)


def _changed(items: Iterable[dict[str, Any]], known: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        if known.get(item["id"]) != item:
            known[item["id"]] = item
            yield item
