"""What one tick of the pipeline has to write and to say. Collected by the stages, committed at once, then spoken."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from gradwatch_daemon.records import Commit, Escalation
from gradwatch_daemon.records.attention import Attention, Silence
from gradwatch_daemon.records.commands import CommandRecord

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

    from gradwatch_daemon.ingest.gate import Passed
    from gradwatch_daemon.ingest.session import LiveSession
    from gradwatch_daemon.records import (
        Anomaly,
        Checkpoint,
        EventRecord,
        LossRecord,
        Run,
        Session,
        SignalBlock,
        Stream,
    )
    from gradwatch_daemon.records.notices import Delivery


class Now(NamedTuple):
    """The clocks of a tick: unix time in ns for records, monotonic seconds for intervals."""

    unix_ns: int
    mono_s: float

    @classmethod
    def read(cls) -> Now:
        """Read both clocks."""
        return cls(time.time_ns(), time.monotonic())


class Gap(NamedTuple):
    """A loss, and how many rows of its stream came before it in this tick."""

    loss: LossRecord
    rows_before: int


@dataclass(slots=True)
class Work:
    """Dicts are upserts: the newest record of a key wins. `changed` and `redeliver` are keys of runs. `shown` are anomalies to
    tell of though they did not change, `attention_of` what people did about all that are told of."""

    blocks: list[SignalBlock] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    anomalies: dict[str, Anomaly] = field(default_factory=dict)
    escalations: dict[tuple[str, str], Escalation] = field(default_factory=dict)
    events: list[EventRecord] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    waiting: dict[Stream, bytes] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    redeliver: set[str] = field(default_factory=set)
    gaps: list[Gap] = field(default_factory=list)
    welcomes: list[LiveSession] = field(default_factory=list)
    answers: list[tuple[Future[Any], Any]] = field(default_factory=list)
    attention: dict[str, Attention] = field(default_factory=dict)
    silences: dict[str, Silence] = field(default_factory=dict)
    shown: dict[str, Anomaly] = field(default_factory=dict)
    attention_of: dict[str, Attention] = field(default_factory=dict)
    commands: dict[tuple[str, str], CommandRecord] = field(default_factory=dict)
    deliveries: dict[str, Delivery] = field(default_factory=dict)

    def escalated(self, records: list[Escalation]) -> None:
        """Note changed escalations."""
        for record in records:
            self.escalations[record.run, record.id] = record
            self.changed.add(record.run)

    def commanded(self, records: Iterable[CommandRecord]) -> None:
        """Note changed commands."""
        self.commands.update({(record.run, record.id): record for record in records})

    def noted(self, records: Iterable[Anomaly]) -> None:
        """Note changed anomalies."""
        for record in records:
            self.anomalies[record.id] = record
            self.changed.add(record.run)

    def attended(self, records: Iterable[Attention]) -> None:
        """Note what people did about anomalies."""
        self.attention.update({record.anomaly: record for record in records})

    def newest(self, record: object) -> object:
        """A record that was promised as an answer, as this tick left it."""
        if isinstance(record, Escalation):
            return self.escalations.get((record.run, record.id), record)
        if isinstance(record, CommandRecord):
            return self.commands.get((record.run, record.id), record)
        if isinstance(record, Silence):
            return self.silences.get(record.id, record)
        return self.attention.get(record.anomaly, record) if isinstance(record, Attention) else record

    def place_losses(self, passed: Passed) -> None:
        """Note behind which rows the losses came that are new in `passed`: detection takes both in order."""
        for loss in passed.losses[len(self.gaps) :]:
            before = sum(len(rows.update) for rows in passed.rows if rows.stream == loss.stream)
            self.gaps.append(Gap(loss, before))

    def batch(self, passed: Passed) -> Commit:
        """Everything of this tick as one transaction."""
        return Commit(
            blocks=tuple(self.blocks),
            runs=tuple(self.runs.values()),
            sessions=tuple(self.sessions.values()),
            anomalies=tuple(self.anomalies.values()),
            escalations=tuple(self.escalations.values()),
            events=tuple(self.events),
            losses=tuple(passed.losses),
            tables=tuple(passed.tables),
            checkpoints=tuple(self.checkpoints),
            waiting=tuple(self.waiting.items()),
            attention=tuple(self.attention.values()),
            silences=tuple(self.silences.values()),
            commands=tuple(self.commands.values()),
            deliveries=tuple(self.deliveries.values()),
        )
