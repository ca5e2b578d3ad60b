"""What people did about anomalies, as plain records: seen, and silenced. An overlay: detection never reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from gradwatch_daemon.records.anomaly import Anomaly


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Somebody has seen an anomaly: the name of their token, when (unix ns), and what they say of it."""

    by: str
    at_ns: int
    note: str


@dataclass(frozen=True, slots=True)
class Attention:
    """What people did about one anomaly. `silence` is the id of the silence that mutes it, or muted it until it resolved;
    '' for none."""

    anomaly: str
    acknowledged: Acknowledgement | None = None
    silence: str = ""


@dataclass(frozen=True, slots=True)
class Silence:
    """Anomalies of a run, a kind and a subject (None: any) are not delivered until it expires; times are unix ns.

    `muted` counts the anomalies it kept from being delivered. Everything stays in the record, muted or not.
    """

    id: str
    run: str | None
    kind: str | None
    subject: str | None
    reason: str
    author: str
    created_ns: int
    expires_ns: int
    ended_ns: int | None = None
    muted: int = 0

    def state(self, now_ns: int) -> str:
        """`active`, `expired` or `ended` (by somebody, before its time)."""
        if self.ended_ns is not None:
            return "ended"
        return "active" if now_ns < self.expires_ns else "expired"

    def covers(self, anomaly: Anomaly) -> bool:
        """Whether it is about this anomaly: by its root, not by what is attached to it."""
        return self.run in (None, anomaly.run) and self.kind in (None, anomaly.kind) and self.subject in (None, anomaly.subject)


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """HTTP → pipeline: mark an anomaly as seen or as not, and note something. None leaves it as it is."""

    anomaly: str
    by: str
    acknowledged: bool | None
    note: str | None


@dataclass(frozen=True, slots=True)
class CreateSilence:
    """HTTP → pipeline: silence what is covered, from now. The same id with the same content again is the same request."""

    id: str
    run: str | None
    kind: str | None
    subject: str | None
    reason: str
    author: str
    lifetime_ns: int


@dataclass(frozen=True, slots=True)
class EndSilence:
    """HTTP → pipeline: end a silence before its time."""

    id: str


AttentionRequest = Union[Acknowledge, CreateSilence, EndSilence]
