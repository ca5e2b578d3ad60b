"""Every implementation of the store, opened alike, and one of every record that it keeps.

A new implementation joins by one line in `PLACES`; the suite is tests/unit/daemon/test_store_rows.py, test_store_records.py
and test_store_series.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gradwatch_contracts.control import ControlState, Level, RankState, Severity
from gradwatch_daemon.records import (
    Anomaly,
    Attached,
    Checkpoint,
    Commit,
    Escalation,
    EventRecord,
    LossRecord,
    Run,
    Session,
    TableRecord,
)
from gradwatch_daemon.records.commands import ArtifactRecord, CommandRecord
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.memory_store import Memory, MemoryStore
from harness.signal_blocks import STREAM, make_block

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gradwatch_daemon.store.protocol import Store


def _sqlite(path: Path) -> Callable[[], Store]:
    return lambda: SqliteStore.open(path / "data")


def _memory(_: Path) -> Callable[[], Store]:
    memory = Memory()
    return lambda: MemoryStore(memory)


PLACES: dict[str, Callable[[Path], Callable[[], Store]]] = {"sqlite": _sqlite, "memory": _memory}
"""Implementation → what makes, in an empty directory, the opener of one place."""

SEQ_MAX = 2**64 - 1

RUN = Run(
    "ant-ppo",
    2,
    "launch-7",
    "sweep",
    {"team": "robots"},
    {"node": "n1"},
    {"lr": 3e-4, "clip": math.inf, "seed": 7, "amp": True, "note": "NaN", "none": None},
    500,
    4,
    "live",
    Level.MINIMAL,
    Level.DEBUG,
    9,
    1_000,
    2_000,
)
ANOMALY = Anomaly(
    "a1",
    "ant-ppo",
    1,
    0,
    "kl_spike",
    "arm",
    Severity.WARNING,
    "firing",
    10,
    12,
    14,
    None,
    3,
    0.25,
    0.1,
    0.05,
    2,
    "policy",
    "KL of 0.25 is above 0.1.",
    (Attached("ratio_explosion", "", Severity.CRITICAL, 11, 12, math.inf, 5.0),),
    ("lower the learning rate", "fewer epochs"),
    "rules-1",
    5_000,
)
COMMAND = CommandRecord(
    "c1",
    "ant-ppo",
    "profile",
    {"updates": 3, "stacks": True, "name": "é", "share": 0.5, "none": None},
    "operator",
    "slow",
    ControlState.APPLIED,
    77,
    2**62,
    rank=1,
    not_before=12,
    update_applied=13,
    update_ended=None,
    ended_why="not yet",
    artifact=ArtifactRecord("trace.json.gz", 2**33),
    ranks=(RankState(0, ControlState.LOST, None, "its process ended"), RankState(1, ControlState.APPLIED, 13, "", 13)),
)

ESCALATION = Escalation(
    "e1",
    "ant-ppo",
    Level.DEBUG,
    5,
    "anomaly:a1",
    "kl_spike",
    ControlState.APPLIED,
    77,
    13,
    None,
    "not yet",
    (RankState(0, ControlState.DELIVERED), RankState(1, ControlState.APPLIED, 13, "", 13)),
    2**62,
)


class Opened:
    """A store in its place, which can be closed and opened again."""

    def __init__(self, opener: Callable[[], Store]) -> None:
        self._opener = opener
        self.store = opener()

    def again(self) -> Store:
        """Close it, and open what it left."""
        self.store.close()
        self.store = self._opener()
        return self.store


def everything() -> Commit:
    """A batch with one of each."""
    return Commit(
        (make_block(range(3)),),
        (RUN,),
        (Session("s1", STREAM, "launch-7", 2, "host", 123, ("profile",)),),
        (ANOMALY,),
        (ESCALATION,),
        (EventRecord(STREAM, "s1", 0, 2, 30, "note", "hi", {"x": 1}),),
        (LossRecord(STREAM, "s1", 5, 9, "outbox full"),),
        (TableRecord(STREAM, "s1", 1, "layers", 2, ("l1",), ("norm",), b"\0" * 8),),
        (Checkpoint(STREAM, 2, "rules-1", b"state"),),
        commands=(COMMAND,),
    )


def fill(store: Store, rows: int, *, per_block: int = 512) -> None:
    """Updates 0 to `rows` - 1, compacted as far as it goes."""
    for first in range(0, rows, per_block):
        store.commit(Commit((make_block(range(first, min(first + per_block, rows))),)))
    settle(store)


def settle(store: Store) -> None:
    """Compact as far as it goes."""
    while store.compact():
        pass
