"""The log of what people were told, as any connection reads it and the writing one keeps it short."""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import TYPE_CHECKING

from gradwatch_daemon.records.notices import Delivery
from gradwatch_daemon.store.schema import upsert

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

COLUMNS = tuple(field.name for field in fields(Delivery))

KEPT = 10_000
"""Deliveries of the log that are over, newest first; each is about 1 kB. What is pending stays whatever its age."""

_WRITE = upsert("delivery", COLUMNS, 1)
_FORGET = """DELETE FROM delivery WHERE state <> 'pending' AND id <=
    (SELECT id FROM delivery WHERE state <> 'pending' ORDER BY id DESC LIMIT 1 OFFSET ?)"""
"""Both parts walk `delivery_over`, which holds no bodies."""


def write_deliveries(db: sqlite3.Connection, deliveries: Sequence[Delivery]) -> None:
    """Insert or replace, and forget the oldest that are over."""
    if deliveries:
        db.executemany(_WRITE, map(astuple, deliveries))
        db.execute(_FORGET, (KEPT,))


def count_deliveries(db: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """How many of the log there are, by channel and state."""
    found = db.execute("SELECT channel, state, count(*) FROM delivery GROUP BY channel, state")
    return {(channel, state): count for channel, state, count in found}


def read_deliveries(db: sqlite3.Connection) -> list[Delivery]:
    """All that are kept, newest first."""
    return [Delivery(*row) for row in db.execute(f"SELECT {', '.join(COLUMNS)} FROM delivery ORDER BY id DESC")]
