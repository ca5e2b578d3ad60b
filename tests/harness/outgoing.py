"""Rows as the agent makes them, of tiny schemas, and what a HELLO of a test says."""

from __future__ import annotations

import struct

from gradwatch_agent.row import Row
from gradwatch_contracts.columns import Column, Kind, RankRule, Schema
from gradwatch_contracts.messages import Hello

NARROW = Schema.of([Column("sys.update_s", Kind.LAST, RankRule.NONE)])
WIDE = Schema.of([Column("sys.update_s", Kind.LAST, RankRule.NONE), Column("policy.kl.k3", Kind.MOMENTS, RankRule.MERGE)])


def row(update: int, schema: Schema = NARROW, status: int = 0, **changes: object) -> Row:
    """A row whose every value is its update."""
    facts: dict[str, object] = {
        "update": update,
        "t_ns": 1_700_000_000_000_000_000 + update,
        "env_steps": 10 * update,
        "level": 2,
        "flags": 0,
        "schema": schema,
        "values": struct.pack("<d", update) * schema.slots,
        "status": bytes([status]) * len(schema.columns),
    }
    return Row(**{**facts, **changes})  # type: ignore[arg-type]


def hello() -> Hello:
    """The HELLO of one session."""
    return Hello("run", "launch", "session", rank=0, world=1, host="here", pid=1, started_unix_ns=1)
