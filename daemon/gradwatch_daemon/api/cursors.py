"""Opaque keyset cursors: the sort key of the last item seen, so that new items never shift a page."""

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from typing import TypeVar

from gradwatch_daemon.api.problems import ApiError, FieldFault

Item = TypeVar("Item")
Key = tuple[int, str]
"""A time in ns and an id that makes it unique; pages go from the largest to the smallest."""

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000


def write_cursor(key: Key) -> str:
    """Text of a cursor, safe in a URL."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def read_cursor(text: str) -> Key:
    """The key in a cursor.

    Raises:
        ApiError: `invalid-parameter` when it was not made by `write_cursor`.
    """
    try:
        at, id_ = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
        if type(at) is int and -(2**63) <= at < 2**63 and isinstance(id_, str):
            return at, id_
    except (ValueError, TypeError, binascii.Error, RecursionError):
        pass
    fault = FieldFault("query/cursor", "is not the `next` of an earlier answer")
    raise ApiError(
        "invalid-parameter", where="cursor", expected="the `next` of an earlier answer", got=repr(text[:40]), faults=[fault]
    )


def page(items: Iterable[Item], key: Callable[[Item], Key], limit: int, cursor: str | None) -> tuple[list[Item], str | None]:
    """One page of items that are all in memory, largest key first, and the cursor of the next page."""
    before = read_cursor(cursor) if cursor is not None else None
    wanted = sorted((item for item in items if before is None or key(item) < before), key=key, reverse=True)
    return cut_page(wanted, key, limit)


def cut_page(items: list[Item], key: Callable[[Item], Key], limit: int) -> tuple[list[Item], str | None]:
    """At most `limit` of items already in order, and the cursor of the rest, None when there is none."""
    kept = items[:limit]
    return kept, write_cursor(key(kept[-1])) if len(items) > limit else None
