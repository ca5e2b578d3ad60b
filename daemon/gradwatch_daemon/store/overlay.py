"""What people did about anomalies, as any connection reads it: the writing one and those of readers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gradwatch_daemon.store import rows

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from gradwatch_daemon.records.attention import Attention, Silence


def read_attention(db: sqlite3.Connection, anomalies: Iterable[str]) -> dict[str, Attention]:
    """What was done about the anomalies with these ids, by id; those nobody looked at are left out.

    One row for all: Python gives up its lock at every row of a result, and beside a busy thread waits ms to get it back.
    """
    query = f"""SELECT json_group_array(json_array({", ".join(rows.ATTENTION)})) FROM attention
        WHERE anomaly IN (SELECT value FROM json_each(?))"""
    (text,) = db.execute(query, (json.dumps(list(anomalies)),)).fetchone()
    found = (rows.attention_of(row) for row in json.loads(text))
    return {attention.anomaly: attention for attention in found}


def read_silences(db: sqlite3.Connection) -> list[Silence]:
    """All silences, active or over, newest first."""
    query = f"SELECT {', '.join(rows.SILENCE)} FROM silence ORDER BY created_ns DESC, id DESC"
    return [rows.silence_of(row) for row in db.execute(query)]


def read_silence(db: sqlite3.Connection, id_: str) -> Silence | None:
    """One silence; None for an id that is nobody's."""
    found = db.execute(f"SELECT {', '.join(rows.SILENCE)} FROM silence WHERE id = ?", (id_,)).fetchone()
    return None if found is None else rows.silence_of(found)
