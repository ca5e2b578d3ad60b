"""What happened in a run beside its rows: events, losses and small tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradwatch_contracts.messages import Scalar
    from gradwatch_daemon.records.blocks import Stream


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that happened in a run at an update: exception, agent_error, checkpoint, note, phase, level.

    The daemon makes two kinds itself, with seq -1, so that a replay detects on them again: `gap` (records that never
    came) and `tick` (a deadline that passed without an update). Their `detail` says behind which row of the stream. `ranks`
    is of the daemon too, for people: some rank is missing from the combined updates, or differs, from here on; and `beside`:
    an older attempt still trains beside the newest, or does no longer.
    """

    stream: Stream
    session: str
    seq: int
    update: int
    t_ns: int
    kind: str
    text: str
    detail: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class LossRecord:
    """Records that never came: `first_seq` to `last_seq` of a session, and why."""

    stream: Stream
    session: str
    first_seq: int
    last_seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One small table of an update: f64 bytes of len(index) x len(names), row-major."""

    stream: Stream
    session: str
    seq: int
    kind: str
    update: int
    index: tuple[str, ...]
    names: tuple[str, ...]
    values: bytes
