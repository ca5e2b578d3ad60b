"""Two lists of anomalies of one run side by side: what is new, lost, moved or changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_daemon.records.replayed import Difference, Pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_daemon.records import Anomaly


def compare(against: str, before: Sequence[Anomaly], after: Sequence[Anomaly]) -> Difference:
    """`after` beside `before`, in the order of `after`, then of `before`.

    Anomalies with the same id (same run, attempt, kind, subject and onset) are the same or changed. Of the others, those of
    one stream, kind and subject are paired in order of onset, nearest first: they moved.
    """
    left = {anomaly.id: anomaly for anomaly in before}
    shared = [(left.pop(anomaly.id), anomaly) for anomaly in after if anomaly.id in left]
    known = {anomaly.id for _, anomaly in shared}
    fresh = {anomaly.id: anomaly for anomaly in after if anomaly.id not in known}
    distances = sorted(
        (abs(old.update_onset - new.update_onset), old.update_onset, new.update_onset, old.id, new.id)
        for old in left.values()
        for new in fresh.values()
        if _who(old) == _who(new)
    )
    moved = []
    for _, _, _, old_id, new_id in distances:
        if old_id in left and new_id in fresh:
            moved.append(Pair(left.pop(old_id), fresh.pop(new_id)))
    changed = tuple(Pair(old, new) for old, new in shared if not alike(old, new))
    return Difference(against, tuple(fresh.values()), tuple(left.values()), tuple(moved), changed, len(shared) - len(changed))


def alike(one: Anomaly, other: Anomaly) -> bool:
    """Whether two anomalies say the same: every number bit for bit (NaN is NaN), but not under which rules."""
    return repr(replace(one, rules_hash="")) == repr(replace(other, rules_hash=""))


def _who(anomaly: Anomaly) -> tuple[int, int, str, str]:
    return anomaly.attempt, anomaly.rank, anomaly.kind, anomaly.subject
