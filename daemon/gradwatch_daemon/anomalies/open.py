"""An anomaly while it is open: its root's numbers, what is attached to it, and which findings still fire."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgpack

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.records import Anomaly, Attached
from gradwatch_daemon.records.rules import END_OF_UPDATE

if TYPE_CHECKING:
    from gradwatch_daemon.records import Stream
    from gradwatch_daemon.records.rules import Rule

FIRING, RESOLVED = "firing", "resolved"
Finding = tuple[str, str]
"""(kind, subject) of a finding."""


def anomaly_id(stream: Stream, kind: str, subject: str, onset: int) -> str:
    """16 hex digits of the finding that opened it: a replay of the same rows makes the same ids, so storing them again changes
    nothing. The id stays when an earlier cause is found."""
    return hashlib.blake2b(msgpack.packb([*stream, kind, subject, onset]), digest_size=8).hexdigest()


@dataclass(slots=True)
class OpenAnomaly:
    """Mutable twin of `records.Anomaly`. `rank` is that of its gravest finding, `root_rank` of its root.

    `firing` are the findings not yet over, `root_last` the root's newest breach.

    `value`, `limit`, `baseline`, `minibatch`, `stage` and `sentence` are of the update at which the root reached its
    present severity.
    """

    id: str
    kind: str
    subject: str
    rank: int
    root_rank: int
    onset: int
    fired: int
    last: int
    root_last: int
    count: int
    value: float
    limit: float
    baseline: float
    minibatch: int
    stage: int
    sentence: str
    t_ns: int
    firing: list[Finding]
    attached: list[Attached] = field(default_factory=list)
    resolved: int | None = None

    def attach(self, found: Attached) -> None:
        """Add what a finding says, or put its newer words in place of the older; the root is as grave as its gravest."""
        key = (found.kind, found.subject, found.update_onset)
        kept = [other for other in self.attached if (other.kind, other.subject, other.update_onset) != key]
        self.attached = [*kept, found]
        self.rank = max(self.rank, found.severity.rank)

    def root(self) -> Attached:
        """What the root itself said, as if it were attached."""
        severity = list(Severity)[self.root_rank]
        return Attached(self.kind, self.subject, severity, self.onset, self.fired, self.value, self.limit)

    def attached_of(self, finding: Finding, onset: int) -> Attached:
        """What a finding said when it was attached."""
        return next(a for a in self.attached if (a.kind, a.subject) == finding and a.update_onset == onset)

    def record(self, stream: Stream, rule: Rule, rules_hash: str) -> Anomaly:
        """The record the other stages see."""
        return Anomaly(
            id=self.id,
            run=stream.run,
            attempt=stream.attempt,
            rank=stream.rank,
            kind=self.kind,
            subject=self.subject,
            severity=list(Severity)[self.rank],
            state=FIRING if self.resolved is None else RESOLVED,
            update_onset=self.onset,
            update_fired=self.fired,
            update_last=self.last,
            update_resolved=self.resolved,
            count=self.count,
            value=self.value,
            limit=self.limit,
            baseline=None if math.isnan(self.baseline) else self.baseline,
            minibatch=-1 if self.minibatch == END_OF_UPDATE else self.minibatch,
            stage=list(Stage)[self.stage].value,
            sentence=self.sentence,
            attached=tuple(self.attached),
            tries=rule.tries,
            rules_hash=rules_hash,
            t_ns=self.t_ns,
        )

    def state(self) -> list[Any]:
        """Everything, as plain values, in the order of the fields."""
        attached = [
            [a.kind, a.subject, a.severity.value, a.update_onset, a.update_fired, a.value, a.limit] for a in self.attached
        ]
        plain = [getattr(self, name) for name in _PLAIN]
        return [*plain, [list(finding) for finding in self.firing], attached, self.resolved]

    @classmethod
    def restored(cls, state: list[Any]) -> OpenAnomaly:
        """The anomaly that gave this `state`."""
        *plain, firing, attached, resolved = state
        found = [Attached(kind, subject, Severity(severity), *rest) for kind, subject, severity, *rest in attached]
        return cls(*[*plain, [(kind, subject) for kind, subject in firing], found, resolved])


_PLAIN = (
    "id",
    "kind",
    "subject",
    "rank",
    "root_rank",
    "onset",
    "fired",
    "last",
    "root_last",
    "count",
    "value",
    "limit",
    "baseline",
    "minibatch",
    "stage",
    "sentence",
    "t_ns",
)
