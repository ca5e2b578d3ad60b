"""Which anomaly a new finding belongs to: one of its own, or one whose cause is already known.

The graph is what each rule says it `explains`: NaN explains everything; a mismatch of rollout and training explains
ratio and KL; an exploded ratio explains KL and entropy; KL explains entropy. Time must agree: the finding began after the
root did, and while the root's own finding was going on or kept firing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_daemon.anomalies.votes import INFO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gradwatch_daemon.anomalies.open import Finding, OpenAnomaly
    from gradwatch_daemon.anomalies.votes import Track
    from gradwatch_daemon.rules import Rule

ANYTHING = "*"


def find_root(
    finding: Finding, track: Track, open_anomalies: Iterable[OpenAnomaly], rules: Mapping[str, Rule]
) -> OpenAnomaly | None:
    """The first opened anomaly that can explain a finding with this track, or None.

    An info anomaly explains only info: a warning must not hide in the timeline's small print. Two heads explain each
    other only by way of something that is about neither.
    """
    kind, subject = finding
    for root in open_anomalies:
        if not explains(rules[root.kind], kind) or (root.rank == INFO and track.rank > INFO):
            continue
        if root.subject and subject and root.subject != subject:
            continue
        if root.onset <= track.onset <= root.root_last + rules[root.kind].keep_firing:
            return root
    return None


def explains(rule: Rule, kind: str) -> bool:
    """Whether a finding of this rule may be the cause of one of another `kind`."""
    return kind != rule.kind and (ANYTHING in rule.explains or kind in rule.explains)
