"""What is read of all events and losses of a run, however many: what detection noted, pauses, shadows, what was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_daemon.records import Stream
from gradwatch_daemon.store import rows
from gradwatch_daemon.store.chunks import blocks

if TYPE_CHECKING:
    import sqlite3

    from gradwatch_daemon.records import EventRecord

OWN = -1
"""The seq of events that the daemon made itself; a trainer may name its own as it likes."""


def read_marks(db: sqlite3.Connection, stream: Stream) -> list[EventRecord]:
    """The events that detection made of a stream (kinds `gap` and `tick`), oldest first."""
    query = f"SELECT {', '.join(rows.EVENT)} FROM event WHERE stream = ? AND seq = ? AND kind IN ('gap', 'tick') ORDER BY id"
    return [rows.event_of(row, stream) for row in db.execute(query, (blocks.stream_number(db, stream), OWN))]


def read_pauses(db: sqlite3.Connection) -> list[EventRecord]:
    """The events of kind `phase` of all runs, oldest first."""
    query = f"""SELECT run, attempt, rank, {", ".join(f"event.{name}" for name in rows.EVENT)} FROM stream
        JOIN event ON event.stream = stream.id AND event.kind = 'phase' ORDER BY event.id"""
    return [rows.event_of(row[3:], Stream(*row[:3])) for row in db.execute(query)]


def count_shadows(db: sqlite3.Connection, run: str) -> dict[str, int]:
    """How often each verb would have been asked for in a run."""
    query = """SELECT json_extract(detail, '$.verb'), count(*) FROM stream
        JOIN event ON event.stream = stream.id AND event.kind = 'shadow' WHERE run = ? AND seq = ? GROUP BY 1"""
    return {str(verb): count for verb, count in db.execute(query, (run, OWN))}


def count_lost(db: sqlite3.Connection, run: str) -> int:
    """Records of a run covered by a LOSS; where two overlap, counted once."""
    query = "SELECT session, first_seq, last_seq FROM loss JOIN stream ON stream.id = loss.stream WHERE run = ?"
    ranges = sorted((session, int(first), int(last)) for session, first, last in db.execute(query, (run,)))
    lost, covered = 0, ("", -1)
    for session, first, last in ranges:
        start = max(first, covered[1] + 1) if session == covered[0] else first
        lost += max(last + 1 - start, 0)
        covered = (session, max(last, covered[1])) if session == covered[0] else (session, last)
    return lost
