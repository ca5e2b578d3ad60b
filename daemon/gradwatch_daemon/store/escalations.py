"""Escalations as any connection reads them: the writing one and those of readers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts.control import ControlState
from gradwatch_daemon.records.commands import ANOMALY_ORIGIN
from gradwatch_daemon.store import rows

if TYPE_CHECKING:
    import sqlite3

    from gradwatch_daemon.records import Escalation

_SELECT = f"""SELECT {", ".join(rows.ESCALATION)},
    coalesce((SELECT kind FROM anomaly WHERE anomaly.id = substr(escalation.origin, {len(ANOMALY_ORIGIN) + 1})), '')
    FROM escalation"""
"""The kind stands with the anomaly, and nowhere twice."""

_OPEN = tuple(state.value for state in ControlState if state.open)


def read_escalations(db: sqlite3.Connection, run: str) -> list[Escalation]:
    """All escalations of a run, newest first."""
    query = f"{_SELECT} WHERE run = ? ORDER BY requested_ns DESC, id DESC"
    return [rows.escalation_of(row) for row in db.execute(query, (run,))]


def read_open_escalations(db: sqlite3.Connection) -> list[Escalation]:
    """Those of all runs that anything may still become of, oldest first."""
    marks = ", ".join("?" * len(_OPEN))
    query = f"{_SELECT} WHERE state IN ({marks}) ORDER BY requested_ns, run, id"
    return [rows.escalation_of(row) for row in db.execute(query, _OPEN)]


def read_escalation(db: sqlite3.Connection, run: str, id_: str) -> Escalation | None:
    """One escalation of a run."""
    query = f"{_SELECT} WHERE run = ? AND id = ?"
    found = db.execute(query, (run, id_)).fetchone()
    return None if found is None else rows.escalation_of(found)
