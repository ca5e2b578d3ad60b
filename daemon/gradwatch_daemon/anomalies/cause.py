"""Which anomaly a new finding belongs to: one of its own, or one whose cause is already known.

The graph is what each rule says it `explains`: NaN explains everything; data that went bad explains the critic; a step too
large explains whatever comes after it, for what it broke collects the next data. Time must agree: the finding began after the
root did, and while the anomaly went on or within `AFTERMATH` updates of its last breach, for consequences come later than
causes: a policy that was thrown away loses its return over the next twenty updates. A finding that comes back within that
time is the same one.

Rules differ in how many updates they need before they speak, so the first to speak is not always the cause. A finding that
began before the root of an open anomaly, and explains it, takes its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_daemon.anomalies.votes import INFO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gradwatch_daemon.anomalies.open import Finding, OpenAnomaly
    from gradwatch_daemon.anomalies.votes import Track
    from gradwatch_daemon.records.rules import Rule

ANYTHING = "*"


AFTERMATH = 32
"""Updates after the last breach of an anomaly in which what begins may still be its consequence, or the same again."""


def find_root(finding: Finding, track: Track, known: Iterable[OpenAnomaly], rules: Mapping[str, Rule]) -> OpenAnomaly | None:
    """The first opened anomaly that can explain a finding with this track, or had it before; None if there is none.

    An info anomaly explains only info: a warning must not hide in the timeline's small print. Two heads explain each
    other only by way of something that is about neither.
    """
    kind, subject = finding
    for root in known:
        if not root.onset <= track.onset <= root.last + AFTERMATH or (root.root_rank == INFO and track.rank > INFO):
            continue
        if (root.kind, root.subject) == finding:
            return root
        apart = root.subject and subject and root.subject != subject and root.kind != kind
        if explains(rules[root.kind], kind) and not apart:
            return root
    return None


def find_consequence(
    finding: Finding, track: Track, place: int, open_anomalies: Iterable[OpenAnomaly], rules: Mapping[str, Rule]
) -> OpenAnomaly | None:
    """The first open anomaly whose root this finding explains, having begun before it, or with it and earlier in the catalogue.

    `place` is that of the finding's rule. What is info is no root of what is not.
    """
    kind, subject = finding
    order = list(rules)
    for anomaly in open_anomalies:
        if not explains(rules[kind], anomaly.kind) or (track.rank == INFO and anomaly.rank > INFO):
            continue
        if anomaly.subject and subject and anomaly.subject != subject:
            continue
        if anomaly.onset - AFTERMATH <= track.onset and (track.onset, place) < (anomaly.onset, order.index(anomaly.kind)):
            return anomaly
    return None


def may_hold(anomaly: OpenAnomaly, finding: Finding, track: Track) -> bool:
    """Whether a finding may go on in an open anomaly that it once began: not as more than info below an info root."""
    return anomaly.root_rank > INFO or track.rank == INFO or (anomaly.kind, anomaly.subject) == finding


def explains(rule: Rule, kind: str) -> bool:
    """Whether a finding of this rule may be the cause of one of another `kind`."""
    return kind in rule.explains or (ANYTHING in rule.explains and kind != rule.kind)
