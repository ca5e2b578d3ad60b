"""What one transaction writes, and what is told to the streams after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from gradwatch_daemon.records.anomaly import Anomaly
    from gradwatch_daemon.records.attention import Attention, Silence
    from gradwatch_daemon.records.blocks import SignalBlock, Stream
    from gradwatch_daemon.records.commands import CommandRecord, Escalation
    from gradwatch_daemon.records.events import EventRecord, LossRecord, TableRecord
    from gradwatch_daemon.records.notices import Delivery
    from gradwatch_daemon.records.run import Run, RunView, Session


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of detection and lifecycle of one stream after `update`, as opaque bytes of `format`."""

    stream: Stream
    update: int
    rules_hash: str
    state: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything one transaction writes. Anomalies, escalations, runs, sessions, attention and silences are upserts by key, and
    so is `waiting`: rows of ranks not combined yet, by the stream of the combined ones; empty bytes stand for none."""

    blocks: tuple[SignalBlock, ...] = ()
    runs: tuple[Run, ...] = ()
    sessions: tuple[Session, ...] = ()
    anomalies: tuple[Anomaly, ...] = ()
    escalations: tuple[Escalation, ...] = ()
    events: tuple[EventRecord, ...] = ()
    losses: tuple[LossRecord, ...] = ()
    tables: tuple[TableRecord, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    waiting: tuple[tuple[Stream, bytes], ...] = ()
    attention: tuple[Attention, ...] = ()
    silences: tuple[Silence, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    commands: tuple[CommandRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """Something to tell the streams of one topic (see `api.hub.TOPICS`), after it was committed; with an anomaly, what people
    did about it."""

    topic: str
    run: str
    payload: Union[Anomaly, Escalation, CommandRecord, RunView, SignalBlock, Silence]
    attention: Attention | None = None


@dataclass(slots=True)
class Counters:
    """What the daemon counts about itself since it started."""

    frames: int = 0
    rows: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    quarantines: int = 0
    commits: int = 0
    commit_failures: int = 0
