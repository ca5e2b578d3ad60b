"""Figures of one method at one tier, over all runs it judged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.scorecard.intervals import rate_interval, share_interval
from gradwatch_contracts.control import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.corpus.replay import Alert
    from benchmarks.scorecard.runs import Judged, Run

ABRUPT_UPDATES, GRADUAL_UPDATES = 20, 60
"""In time: from injection for an abrupt fault, from its first sign for a gradual or natural one, and before it is fatal."""

LEAD_UPDATES = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """One fault run: `found` at this update or None, `delay` in updates (inf for a miss), `rooted` whether the first alert
    named the cause, `alerts` from the injection on, `lead` before it was fatal (None where it was not)."""

    run: Run
    found: int | None
    delay: float
    rooted: bool
    alerts: int
    lead: int | None


@dataclass(frozen=True, slots=True)
class Score:
    """Figures of one method at one tier; intervals are exact, of 95 %."""

    method: str
    tier: str
    faults: int
    found: int
    recall: tuple[float, float, float]
    macro: float
    worst: tuple[str, float]
    per_case: dict[str, tuple[int, int]]
    healthy_updates: int
    false_alarms: int
    false_rate: tuple[float, float, float]
    critical: int
    tricky_critical: int
    by_healthy_case: dict[str, tuple[int, int]]
    delay_abrupt: tuple[float, float]
    delay_gradual: tuple[float, float]
    lead_share: tuple[int, int]
    rooted: tuple[int, int]
    alerts_per_fault: float


def score(method: str, tier: str, judged: Sequence[Judged], *, any_kind: bool = False) -> Score:
    """Figures of a method. `any_kind`: any alert counts as having found a fault."""
    faults = [verdict(item, any_kind) for item in judged if item.run.label.manifest is not None]
    found = [fault for fault in faults if fault.found is not None]
    per_case: dict[str, tuple[int, int]] = {}
    for fault in faults:
        hits, count = per_case.get(fault.run.case.id, (0, 0))
        per_case[fault.run.case.id] = (hits + (fault.found is not None), count + 1)
    shares = {id: hits / count for id, (hits, count) in per_case.items()}
    quiet = [(item, *_healthy_part(item)) for item in judged]
    healthy_updates = sum(updates for _, updates, _ in quiet)
    alarms = [alert for _, _, alerts in quiet for alert in alerts]
    by_case: dict[str, tuple[int, int]] = {}
    for item, updates, alerts in quiet:
        if item.run.case.healthy:
            known = by_case.get(item.run.case.id, (0, 0))
            by_case[item.run.case.id] = (known[0] + len(alerts), known[1] + updates)
    tricky = [alert for item, _, alerts in quiet if item.run.case.id.startswith("T") for alert in alerts]
    ends = [fault for fault in faults if fault.lead is not None]
    return Score(
        method,
        tier,
        len(faults),
        len(found),
        (_share(len(found), len(faults)), *share_interval(len(found), len(faults))),
        _mean(list(shares.values())),
        min(shares.items(), key=lambda item: item[1], default=("", math.nan)),
        per_case,
        healthy_updates,
        len(alarms),
        tuple(1000.0 * x for x in (_rate(len(alarms), healthy_updates), *rate_interval(len(alarms), healthy_updates))),  # type: ignore[arg-type]
        sum(alert.severity is Severity.CRITICAL for alert in alarms),
        sum(alert.severity is Severity.CRITICAL for alert in tricky),
        by_case,
        _quantiles([fault.delay for fault in faults if fault.run.case.nature == "abrupt"]),
        _quantiles([fault.delay for fault in faults if fault.run.case.nature != "abrupt"]),
        (sum(fault.lead is not None and fault.lead >= LEAD_UPDATES for fault in ends), len(ends)),
        (sum(fault.rooted for fault in found), len(found)),
        _mean([float(fault.alerts) for fault in faults]),
    )


def verdict(judged: Judged, any_kind: bool = False) -> Verdict:
    """What a method made of one fault run whose fault showed."""
    run, case, inject = judged.run, judged.run.case, judged.run.case.inject
    assert run.label.manifest is not None
    last = inject + ABRUPT_UPDATES if case.nature == "abrupt" else run.label.manifest + GRADUAL_UPDATES
    if run.label.fatal is not None:
        last = min(last, max(run.label.fatal, inject))
    times = [
        update
        for alert in judged.alerts
        for kind, update in alert.kinds
        if inject <= update <= last and (any_kind or kind in case.accepts)
    ]
    found = min(times, default=None)
    reference = inject if case.nature == "abrupt" else run.label.manifest
    delay = math.inf if found is None else float(max(found - reference, 0))
    after = [alert for alert in judged.alerts if alert.update >= inject]
    rooted = bool(after) and after[0].kind in case.roots
    fatal = run.label.fatal
    instant = fatal is not None and fatal <= run.label.manifest
    lead = None if fatal is None or instant else (fatal - found if found is not None else -1)
    return Verdict(run, found, delay, rooted, len(after), lead)


def _healthy_part(judged: Judged) -> tuple[int, list[Alert]]:
    """Updates in which nothing was wrong, and their alerts; a natural failure is left out from a little before it shows."""
    run, case = judged.run, judged.run.case
    if not case.healthy:
        end = min(case.inject, run.recording.updates)
        return end, [alert for alert in judged.alerts if alert.update < end]
    if run.label.fatal is not None:
        end = max(run.label.fatal - 2 * ABRUPT_UPDATES, 0)
        return end, [alert for alert in judged.alerts if alert.update < end]
    return run.recording.updates, list(judged.alerts)


def _quantiles(delays: list[float]) -> tuple[float, float]:
    """Median and 90th percentile, a miss being later than anything (its delay is censored at infinity)."""
    if not delays:
        return math.nan, math.nan
    ordered = sorted(delays)
    return tuple(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] for share in (0.5, 0.9))  # type: ignore[return-value]


def _share(hits: int, count: int) -> float:
    return hits / count if count else math.nan


def _rate(count: int, exposure: int) -> float:
    return count / exposure if exposure else math.nan


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
