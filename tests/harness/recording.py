"""A monitor without a link: its rows, events, results and losses stay in lists, and each value can be read by name."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gradwatch_agent.arguments import STAGED_BYTES, Settings
from gradwatch_agent.desired import DesiredState
from gradwatch_agent.exits import Exits
from gradwatch_agent.inbox import Lost
from gradwatch_agent.monitor import Monitor
from gradwatch_agent.outbox import Outbox
from gradwatch_agent.row import Row
from gradwatch_contracts.columns import WIDTH, Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.messages import Event, Result, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gradwatch_agent.inbox import Draft


@dataclass
class Record(Outbox):
    """An outbox that keeps everything; nobody takes from it."""

    rows: list[Row] = field(default_factory=list)
    events: list[tuple[str, int, str, dict[str, Any]]] = field(default_factory=list)
    results: list[tuple[str, str, int, str]] = field(default_factory=list)
    losses: list[tuple[int, str]] = field(default_factory=list)
    tables: list[tuple[str, int, tuple[str, ...], tuple[str, ...], bytes]] = field(default_factory=list)

    def put_draft(self, draft: Draft) -> None:
        """See Outbox; made at once, within the call of the monitor, whose time counts already."""
        made_ns = self.made_ns
        records = self._make(draft)
        self.made_ns = made_ns
        for record in records:
            if isinstance(record, Row):
                self.rows.append(record)
            elif isinstance(record, Table):
                self.put_table(record.kind, record.update, record.index, record.names, record.values)
            elif isinstance(record, Event):
                self.put_event(record.kind, record.update, record.t_ns, record.text, record.detail)
            elif isinstance(record, Result):
                self.put_result(record.id, record.state, record.update, record.reason)
            elif isinstance(record, Lost):
                self.lose(record.count, record.reason)

    put_later = put_draft

    def put_event(self, kind: str, update: int, t_ns: int, text: str = "", detail: Mapping[str, Any] | None = None) -> None:
        """See Outbox."""
        self.events.append((kind, update, text, dict(detail or {})))

    def put_result(self, id: str, state: str, update: int, reason: str = "") -> None:
        """See Outbox."""
        self.results.append((id, state, update, reason))

    def put_table(self, kind: str, update: int, index: tuple[str, ...], names: tuple[str, ...], values: bytes) -> None:
        """See Outbox."""
        self.tables.append((kind, update, index, names, values))

    def table(self, kind: str) -> dict[str, dict[str, float]]:
        """The newest table of a kind: row → name → number; empty when there is none."""
        found = [table for table in self.tables if table[0] == kind]
        if not found:
            return {}
        _, _, index, names, values = found[-1]
        numbers = iter(struct.unpack(f"<{len(index) * len(names)}d", values))
        return {row: {name: next(numbers) for name in names} for row in index}

    def lose(self, count: int, reason: str) -> None:
        """See Outbox."""
        if count:
            self.losses.append((count, reason))

    @property
    def last(self) -> dict[str, Any]:
        """The newest row: see `read`."""
        return read(self.rows[-1])


def read(row: Row) -> dict[str, Any]:
    """Column → value (one float, or three), or the status that says why there is none; "name/subject" with a subject."""
    values = struct.unpack(f"<{row.schema.slots}d", row.values)
    found: dict[str, Any] = {}
    for column, offset, status in zip(row.schema.columns, row.schema.offsets, row.status, strict=True):
        key = f"{column.name}/{column.subject}" if column.subject else column.name
        slots = values[offset : offset + WIDTH[column.kind]]
        found[key] = Status(status) if status else slots[0] if len(slots) == 1 else slots
    return found


def settings(**given: Any) -> Settings:
    """Settings of a test run."""
    plain: dict[str, Any] = {
        "run": "test",
        "modules": (),
        "optimizers": (),
        "group": "",
        "tags": {},
        "config": {},
        "updates_total": None,
        "update_start": 0,
        "action_space": None,
        "level": Level.NORMAL,
        "sync": False,
        "off_policy": False,
        "max_staged_bytes": STAGED_BYTES,
    }
    return Settings(**{**plain, **given})


def open_monitor(**given: Any) -> tuple[Monitor, Record]:
    """An open monitor without a link, and what it puts out. Close it, or its hooks outlive the test."""
    record = Record()
    Outbox.__init__(record)
    chosen = settings(**given)
    monitor = Monitor(chosen, record, DesiredState(chosen.level), None, Exits())
    monitor.open()
    return monitor, record


@contextmanager
def monitoring(**given: Any) -> Iterator[tuple[Monitor, Record]]:
    """`open_monitor`, closed at the end."""
    monitor, record = open_monitor(**given)
    try:
        yield monitor, record
    finally:
        monitor.close()
