"""Anomalies: what was found, over all runs."""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request

from gradwatch_contracts.control import Severity
from gradwatch_daemon.api import models
from gradwatch_daemon.api.context import DetectorInfo, context_of
from gradwatch_daemon.api.cursors import Key, cut_page, read_cursor
from gradwatch_daemon.api.numbers import Answer, number, parse_time, time_text
from gradwatch_daemon.api.parameters import LIMIT, Cursor, Limit, check_word, find_run
from gradwatch_daemon.api.problems import ApiError
from gradwatch_daemon.api.runs import coverage, detector_counts
from gradwatch_daemon.records import Anomaly, RunView
from gradwatch_daemon.store.protocol import AnomalyFilter

STATES = ("pending", "firing", "resolved")
EVIDENCE_BEFORE = 50
"""Updates before the onset that the evidence links show: the normal that the fault broke."""

router = APIRouter(tags=["anomalies"])


def _evidence(anomaly: Anomaly, catalogue: Iterable[DetectorInfo]) -> dict[str, Any]:
    base = f"/api/v1/runs/{quote(anomaly.run, safe='')}"
    info = next((info for info in catalogue if info.kind == anomaly.kind), None)
    window = (
        f"subject={quote(anomaly.subject, safe='')}&from={max(0, anomaly.update_onset - EVIDENCE_BEFORE)}"
        f"&to={anomaly.update_last}&attempt={anomaly.attempt}&rank={anomaly.rank}"
    )
    signals = [need.signal for need in info.needs] if info else []
    return {
        "series": [f"{base}/series?signal={quote(name, safe='')}&{window}" for name in signals],
        "events": f"{base}/events",
        "rules_hash": anomaly.rules_hash,
    }


def _limit(value: float | None) -> float | None:
    """A limit or baseline is never measured as NaN: NaN stands for a rule without one."""
    return None if value is None or math.isnan(value) else value


def anomaly_document(anomaly: Anomaly, catalogue: Iterable[DetectorInfo], views: Mapping[str, RunView]) -> dict[str, Any]:
    """The plain document of `models.AnomalyItem`, as GET and the stream show it (a model would take thrice the time)."""
    limit, baseline = _limit(anomaly.limit), _limit(anomaly.baseline)
    absent = {"limit": limit, "baseline": baseline}
    view = views.get(anomaly.run)
    return {
        "id": anomaly.id,
        "run": anomaly.run,
        "attempt": anomaly.attempt,
        "rank": anomaly.rank,
        "kind": anomaly.kind,
        "subject": anomaly.subject,
        "severity": anomaly.severity.value,
        "state": anomaly.state,
        "update_onset": anomaly.update_onset,
        "update_fired": anomaly.update_fired,
        "update_last": anomaly.update_last,
        "update_resolved": anomaly.update_resolved,
        "fired_at": time_text(anomaly.t_ns),
        "count": anomaly.count,
        "value": number(anomaly.value),
        "limit": number(limit),
        "baseline": number(baseline),
        "status": {name: "the rule has none" for name, value in absent.items() if value is None},
        "sentence": anomaly.sentence,
        "root": {
            "update": anomaly.update_onset,
            "minibatch": anomaly.minibatch if anomaly.minibatch >= 0 else None,
            "stage": anomaly.stage,
        },
        "attached": [
            {
                "kind": finding.kind,
                "subject": finding.subject,
                "severity": finding.severity.value,
                "update_onset": finding.update_onset,
                "update_fired": finding.update_fired,
                "value": number(finding.value),
                "limit": number(_limit(finding.limit)),
            }
            for finding in anomaly.attached
        ],
        "try": list(anomaly.tries),
        "evidence": _evidence(anomaly, catalogue),
        "coverage": coverage([view]).model_dump() if view else None,
    }


def _key(anomaly: Anomaly) -> Key:
    return anomaly.t_ns, anomaly.id


@router.get("/anomalies", response_model=models.AnomalyList, operation_id="list_anomalies", summary="Anomalies, newest first")
async def list_anomalies(
    request: Request,
    *,
    run: Annotated[str | None, Query(description="Only of this run")] = None,
    kind: Annotated[str | None, Query(description="Only of this kind; GET detectors lists them")] = None,
    severity: Annotated[str | None, Query(description="info, warning or critical")] = None,
    state: Annotated[str | None, Query(description="pending, firing or resolved")] = None,
    since: Annotated[str | None, Query(description="Only fired at or after this time (RFC 3339)")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Answer:
    """What was found. Words are checked: a mistyped kind would answer an empty list, which reads as all clear."""
    context = context_of(request)
    views = context.snapshots()
    concerned = [find_run(request, run)[1]] if run is not None else list(views.values())
    check_word("kind", kind, (info.kind for info in context.catalogue))
    check_word("severity", severity, (s.value for s in Severity))
    check_word("state", state, STATES)
    wanted = AnomalyFilter(
        run=run,
        kind=kind,
        severity=severity,
        state=state,
        since_ns=None if since is None else parse_time(since, "since"),
        limit=limit + 1,
        cursor=None if cursor is None else read_cursor(cursor),
    )
    found = await anyio.to_thread.run_sync(context.reader.anomalies, wanted)
    shown, following = cut_page(found, _key, limit)
    answer = {
        "items": [anomaly_document(anomaly, context.catalogue, views) for anomaly in shown],
        "next": following,
        "coverage": coverage(concerned).model_dump(),
        "detectors": detector_counts(state for view in concerned for state in view.detectors).model_dump(),
    }
    return Answer(answer)


@router.get("/anomalies/{id}", response_model=models.AnomalyItem, operation_id="get_anomaly", summary="One anomaly")
async def get_anomaly(request: Request, id_: Annotated[str, Path(alias="id", description="Id of the anomaly")]) -> Answer:
    """One anomaly by its id."""
    context = context_of(request)
    anomaly = await anyio.to_thread.run_sync(context.reader.anomaly, id_)
    if anomaly is None:
        raise ApiError("anomaly-not-found", where="id", expected="the id of an anomaly", got=repr(id_[:80]))
    return Answer(anomaly_document(anomaly, context.catalogue, context.snapshots()))
