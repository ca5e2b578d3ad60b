"""Replays: what detection would make of a stored run under other rules. Nothing is written, and ingest does not wait."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from gradwatch_contracts.control import Severity
from gradwatch_daemon.api import replay_models as models
from gradwatch_daemon.api.anomalies import anomaly_document
from gradwatch_daemon.api.context import DetectorInfo
from gradwatch_daemon.api.coverage import covered
from gradwatch_daemon.api.numbers import Answer
from gradwatch_daemon.api.parameters import find_run
from gradwatch_daemon.api.problems import ApiError, FieldFault
from gradwatch_daemon.api.runs import line_to_add
from gradwatch_daemon.records import Anomaly
from gradwatch_daemon.records.replayed import Difference, Pair, Replayed, ReplayOrder, StreamReplay, Window

router = APIRouter(tags=["replay"])


def replay_document(replayed: Replayed, catalogue: Sequence[DetectorInfo]) -> dict[str, Any]:
    """The plain document of `models.ReplayAnswer`."""
    counts = Counter(state.state for state in replayed.detectors)
    coverage = covered(replayed.received, replayed.lost, replayed.thinned)
    return {
        "run": replayed.run,
        "profile": replayed.profile,
        "rules_hash": replayed.rules_hash,
        "rows": replayed.rows,
        "lost": replayed.lost,
        "seconds": round(replayed.seconds, 6),
        "verdict": verdict(replayed),
        "inconclusive": list(replayed.inconclusive),
        "notes": list(replayed.notes),
        "coverage": coverage,
        "items": _items(replayed.anomalies, catalogue, coverage),
        "detectors": {state: counts[state] for state in ("armed", "learning", "blind", "firing")},
        "streams": [_stream(stream, catalogue) for stream in replayed.streams],
        "difference": None if replayed.difference is None else _difference(replayed.difference, catalogue, coverage),
    }


def verdict(replayed: Replayed) -> str:
    """`findings`, `inconclusive` or `clean`: clean is only what every detector saw the whole of."""
    if any(anomaly.severity.rank >= Severity.WARNING.rank for anomaly in replayed.anomalies):
        return "findings"
    blind = any(state.state in ("blind", "learning") for state in replayed.detectors)
    return "inconclusive" if blind or replayed.inconclusive or not replayed.detectors else "clean"


def _items(anomalies: Iterable[Anomaly], catalogue: Sequence[DetectorInfo], coverage: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**anomaly_document(anomaly, catalogue, {}), "coverage": coverage} for anomaly in anomalies]


def _stream(replayed: StreamReplay, catalogue: Sequence[DetectorInfo]) -> dict[str, Any]:
    return {
        "attempt": replayed.stream.attempt,
        "rank": replayed.stream.rank_shown,
        "rows": replayed.rows,
        "update_first": replayed.update_first,
        "update_last": replayed.update_last,
        "unseen": replayed.unseen,
        "backward": replayed.backward,
        "missing": replayed.missing,
        "trouble": replayed.trouble,
        "standings": [{**asdict(state), "add": line_to_add(state, catalogue)} for state in replayed.detectors],
    }


def _difference(difference: Difference, catalogue: Sequence[DetectorInfo], coverage: dict[str, Any]) -> dict[str, Any]:
    def listed(anomalies: Iterable[Anomaly]) -> list[dict[str, Any]]:
        return _items(anomalies, catalogue, coverage)

    def paired(pairs: Iterable[Pair]) -> list[dict[str, Any]]:
        both = [listed((pair.before, pair.after)) for pair in pairs]
        return [{"before": before, "after": after} for before, after in both]

    return {
        "against": difference.against,
        "new": listed(difference.new),
        "lost": listed(difference.lost),
        "moved": paired(difference.moved),
        "changed": paired(difference.changed),
        "same": difference.same,
    }


@router.post("/replay", response_model=models.ReplayAnswer, operation_id="replay", summary="What other rules would have found")
async def replay(request: Request, body: models.ReplayBody) -> Answer:
    """Replay the stored rows of a run under the rules given, in a process of its own: one at a time, with a limit of rows
    and time."""
    context, _ = find_run(request, body.run, "run")
    if body.first is not None and body.last is not None and body.first > body.last:
        raise ApiError(
            "invalid-body", where="from", expected=f"at most {body.last} (to)", got=str(body.first),
            faults=[FieldFault("body/from", f"is after to ({body.last})")],
        )  # fmt: skip
    order = ReplayOrder(body.run, body.profile, body.thresholds, Window(body.first, body.last), body.diff or "")
    return Answer(await context.replay(order))
