"""An anomaly, and what is attached to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradwatch_contracts.control import Severity


@dataclass(frozen=True, slots=True)
class Attached:
    """A finding explained by an anomaly's root, kept with its own numbers."""

    kind: str
    subject: str
    severity: Severity
    update_onset: int
    update_fired: int
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Findings of one cause in one run. `state` is pending, firing or resolved; `id` is a hash of its content.

    `value`, `limit` and `baseline` are those of the update that fired (`baseline` None where the rule has none).
    """

    id: str
    run: str
    attempt: int
    rank: int
    kind: str
    subject: str
    severity: Severity
    state: str
    update_onset: int
    update_fired: int
    update_last: int
    update_resolved: int | None
    count: int
    value: float
    limit: float
    baseline: float | None
    minibatch: int
    stage: str
    sentence: str
    attached: tuple[Attached, ...]
    tries: tuple[str, ...]
    rules_hash: str
    t_ns: int
