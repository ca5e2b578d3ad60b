"""Commands as table rows and back, and reading them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.control import ControlState, RankState
from gradwatch_daemon.records.commands import ArtifactRecord, CommandRecord

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

COMMAND = (
    "run",
    "id",
    "verb",
    "args",
    "origin",
    "reason",
    "state",
    "requested_ns",
    "expires_ns",
    "rank",
    "not_before",
    "update_applied",
    "update_ended",
    "ended_why",
    "ranks",
    "artifact_name",
    "artifact_bytes",
)
_OPEN = tuple(state.value for state in ControlState if state.open)
_SELECT = f"SELECT {', '.join(COMMAND)} FROM command"


def ranks_cell(ranks: Sequence[RankState]) -> str:
    """What each rank said, as JSON."""
    return json.dumps([[one.rank, one.state.value, one.update, one.reason, one.applied] for one in ranks])


def ranks_of(text: str) -> tuple[RankState, ...]:
    """What each rank said, of its JSON."""
    return tuple(RankState(rank, ControlState(state), *rest) for rank, state, *rest in json.loads(text))


def command_row(command: CommandRecord) -> tuple[Any, ...]:
    """A `command` row, columns as in COMMAND."""
    return (
        command.run,
        command.id,
        command.verb,
        json.dumps(dict(command.args)),
        command.origin,
        command.reason,
        command.state.value,
        command.requested_ns,
        command.expires_ns,
        command.rank,
        command.not_before,
        command.update_applied,
        command.update_ended,
        command.ended_why,
        ranks_cell(command.ranks),
        None if command.artifact is None else command.artifact.name,
        None if command.artifact is None else command.artifact.bytes,
    )


def command_of(row: Sequence[Any]) -> CommandRecord:
    """The command in a COMMAND row."""
    run, id_, verb, args, origin, reason, state, requested_ns, expires_ns, rank, *rest = row
    not_before, applied, ended, why, ranks, name, size = rest
    return CommandRecord(
        id_,
        run,
        verb,
        json.loads(args),
        origin,
        reason,
        ControlState(state),
        requested_ns,
        expires_ns,
        rank,
        not_before,
        applied,
        ended,
        why,
        ranks_of(ranks),
        None if name is None else ArtifactRecord(name, size),
    )


def read_commands(db: sqlite3.Connection, run: str) -> list[CommandRecord]:
    """All commands of a run, newest first."""
    return [command_of(row) for row in db.execute(f"{_SELECT} WHERE run = ? ORDER BY requested_ns DESC, id DESC", (run,))]


def read_open_commands(db: sqlite3.Connection) -> list[CommandRecord]:
    """Those of all runs that anything may still become of, oldest first."""
    query = f"{_SELECT} WHERE state IN ({', '.join('?' * len(_OPEN))}) ORDER BY requested_ns, run, id"
    return [command_of(row) for row in db.execute(query, _OPEN)]


def read_command(db: sqlite3.Connection, run: str, id_: str) -> CommandRecord | None:
    """One command of a run."""
    found = db.execute(f"{_SELECT} WHERE run = ? AND id = ?", (run, id_)).fetchone()
    return None if found is None else command_of(found)
