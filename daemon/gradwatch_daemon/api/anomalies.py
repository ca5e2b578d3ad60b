"""Anomalies: what was found, over all runs."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request

from gradwatch_contracts.control import Severity
from gradwatch_contracts.needs import STAND_INS, judged
from gradwatch_daemon.api import models
from gradwatch_daemon.api.attention_models import AnomalyBody
from gradwatch_daemon.api.context import ApiContext, DetectorInfo, context_of
from gradwatch_daemon.api.coverage import covered, of_views
from gradwatch_daemon.api.cursors import Key, cut_page, read_cursor
from gradwatch_daemon.api.evidence import evidence_document
from gradwatch_daemon.api.evidence_models import AnomalyDetail
from gradwatch_daemon.api.numbers import Answer, encode, number, parse_time, time_text
from gradwatch_daemon.api.parameters import LIMIT, Cursor, Limit, check_word, find_run
from gradwatch_daemon.api.problems import ApiError
from gradwatch_daemon.api.submission import submit
from gradwatch_daemon.api.tokens import principal_of
from gradwatch_daemon.records import ALL_RANKS, Anomaly, DetectorState, RunView, Stream
from gradwatch_daemon.records.attention import Acknowledge, Attention
from gradwatch_daemon.records.run import is_over
from gradwatch_daemon.store.protocol import AnomalyFilter

STATES = ("pending", "firing", "ended", "resolved")
ENDED = "ended"
"""What stood when its run ended: nobody is told of it any more. The record stays as detection left it."""
EVIDENCE_BEFORE = 50
"""Updates before the onset that the evidence links show: the normal that the fault broke."""

WRITTEN_ITEMS = 1024
"""Items kept as JSON: one answer of the largest size, about 2 MB. Few of them change between two answers."""

NOTHING: frozenset[str] = frozenset()

router = APIRouter(tags=["anomalies"])


Sent = Callable[[Anomaly], frozenset[str]]
"""The signals that the stream of an anomaly sent: what stood in for another is linked by its own name."""


def sent_to(context: ApiContext) -> Sent:
    """As the store has it, which is read now and then."""

    def sent(anomaly: Anomaly) -> frozenset[str]:
        stream, view = Stream(anomaly.run, anomaly.attempt, anomaly.rank), context.snapshots().get(anomaly.run)

        def read() -> frozenset[str]:
            return frozenset(summary.key.name for summary in context.reader.signals(*stream))

        return context.kept.sent(stream, view.rows if view else 0, read)

    return sent


def sent_unknown(anomaly: Anomaly) -> frozenset[str]:
    """Of an export or a replay: the catalogue's signals are linked."""
    return NOTHING


def is_stood_in(info: DetectorInfo) -> bool:
    """Whether a detector may have judged another signal in place of one that was not sent."""
    return any(need.signal in STAND_INS for need in info.needs)


def _evidence(anomaly: Anomaly, catalogue: Iterable[DetectorInfo], sent: Sent) -> dict[str, Any]:
    """Where the data behind it is."""
    base = f"/api/v1/runs/{quote(anomaly.run, safe='')}"
    info = next((info for info in catalogue if info.kind == anomaly.kind), None)
    window = (
        f"subject={quote(anomaly.subject, safe='')}&from={max(0, anomaly.update_onset - EVIDENCE_BEFORE)}"
        f"&to={anomaly.update_last}&attempt={anomaly.attempt}{'' if anomaly.rank == ALL_RANKS else f'&rank={anomaly.rank}'}"
    )
    names = [need.signal for need in info.needs] if info else []
    known = sent(anomaly) if info and is_stood_in(info) else NOTHING
    signals = dict.fromkeys(judged(name, known) for name in names)
    return {
        "series": [f"{base}/series?signal={quote(name, safe='')}&{window}" for name in signals],
        "events": f"{base}/events",
        "rules_hash": anomaly.rules_hash,
        "playbook": f"/playbook/{quote(anomaly.kind, safe='')}" if info else None,
    }


def _limit(value: float | None) -> float | None:
    """A limit or baseline is never measured as NaN: NaN stands for a rule without one."""
    return None if value is None or math.isnan(value) else value


def _state(anomaly: Anomaly, view: RunView | None, now_ns: int) -> str:
    """The record's own, but for what stood when the run ended. Nothing is known of the run of an export or a replay."""
    over = anomaly.state != "resolved" and view is not None and is_over(view, now_ns)
    return ENDED if over else anomaly.state


def _facts(anomaly: Anomaly, state: str, catalogue: Iterable[DetectorInfo], sent: Sent) -> dict[str, Any]:
    """An anomaly's document but for its end, what people did and `coverage`: all that stays the same while record and state
    do."""
    limit, baseline = _limit(anomaly.limit), _limit(anomaly.baseline)
    absent = {"limit": limit, "baseline": baseline}
    return {
        "id": anomaly.id,
        "run": anomaly.run,
        "attempt": anomaly.attempt,
        "rank": None if anomaly.rank == ALL_RANKS else anomaly.rank,
        "kind": anomaly.kind,
        "subject": anomaly.subject,
        "severity": anomaly.severity.value,
        "state": state,
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
        "evidence": _evidence(anomaly, catalogue, sent),
    }


def _attended(attention: Attention | None) -> dict[str, Any]:
    """What people did about an anomaly: changes while its record stays the same."""
    seen = attention.acknowledged if attention else None
    return {
        "acknowledged": {"by": seen.by, "at": time_text(seen.at_ns), "note": seen.note} if seen else None,
        "silenced": (attention.silence or None) if attention else None,
    }


def anomaly_document(
    anomaly: Anomaly,
    catalogue: Iterable[DetectorInfo],
    views: Mapping[str, RunView],
    attention: Attention | None = None,
    *,
    now_ns: int = 0,
    sent: Sent = sent_unknown,
) -> dict[str, Any]:
    """The plain document of `models.AnomalyItem`, as GET and the stream show it at `now_ns`, unix (a model would take thrice
    the time)."""
    view = views.get(anomaly.run)
    return {
        **_facts(anomaly, _state(anomaly, view, now_ns), catalogue, sent),
        **_attended(attention),
        "coverage": of_views([view]) if view else None,
    }


_UNATTENDED = encode(_attended(None))[1:-1]


class _Same:
    """A record as a key by identity: the reader hands out the same object while its row stays the same.

    Comparing by content would cost more than it saves, and NaN is never equal to itself.
    """

    __slots__ = ("record",)

    def __init__(self, record: Anomaly) -> None:
        self.record = record

    def __hash__(self) -> int:
        return hash(self.record.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.record is self.record


class Writer:
    """Writes lists of anomalies as JSON, of `models.AnomalyList`'s shape. It belongs to one application; any thread may use it.

    Most of a list is what the last one had, so each item's JSON is kept, without its end: what people did, and coverage, which
    every row changes.
    """

    def __init__(self, catalogue: Iterable[DetectorInfo], sent: Sent) -> None:
        self._catalogue, self._sent = tuple(catalogue), sent
        self._stood_in = {info.kind for info in self._catalogue if is_stood_in(info)}
        self._item = lru_cache(WRITTEN_ITEMS)(self._write_item)
        self._covered = lru_cache(WRITTEN_ITEMS)(self._write_covered)
        self._counted: dict[str, tuple[tuple[DetectorState, ...], Counter[str]]] = {}

    def write(
        self,
        shown: Iterable[Anomaly],
        following: str | None,
        views: Mapping[str, RunView],
        concerned: Iterable[RunView],
        attention: Mapping[str, Attention],
        *,
        now_ns: int,
    ) -> bytes:
        """The whole answer: items, cursor of the next page, and the coverage and detectors of the runs concerned."""
        listed = list(concerned)
        items = []
        for anomaly in shown:
            view = views.get(anomaly.run)
            ends = (
                encode(_attended(attention[anomaly.id]))[1:-1] if anomaly.id in attention else _UNATTENDED,
                self._covered(view.rows, view.lost, view.thinned) if view else b"null",
            )
            sent = self._sent(anomaly) if anomaly.kind in self._stood_in else NOTHING
            items.append(self._item(_Same(anomaly), _state(anomaly, view, now_ns), sent) + b',"coverage":'.join(ends) + b"}")
        counts = self._count(listed, views)
        rest = {
            "next": following,
            "coverage": of_views(listed),
            "detectors": {state: counts[state] for state in models.DetectorCounts.model_fields},
        }
        return b'{"items":[' + b",".join(items) + b"]," + encode(rest)[1:]

    def _write_item(self, same: _Same, state: str, sent: frozenset[str]) -> bytes:
        return encode(_facts(same.record, state, self._catalogue, lambda _: sent))[:-1] + b","

    def _write_covered(self, received: int, lost: int, thinned: int) -> bytes:
        return encode(covered(received, lost, thinned))

    def _count(self, listed: list[RunView], views: Mapping[str, RunView]) -> Counter[str]:
        """Detectors by state, counted anew only for the runs where they changed."""
        total: Counter[str] = Counter()
        for view in listed:
            known = self._counted.get(view.run.run)
            if known is None or known[0] is not view.detectors:
                known = self._counted[view.run.run] = view.detectors, Counter(state.state for state in view.detectors)
            for state, count in known[1].items():
                total[state] += count
        if len(self._counted) > len(views):
            self._counted = {}
        return total


def _writer_of(request: Request, context: ApiContext) -> Writer:
    """The application's writer, made at its first list. Called in the event loop only."""
    state = request.app.state
    if not hasattr(state, "anomaly_writer"):
        state.anomaly_writer = Writer(context.catalogue, sent_to(context))
    writer: Writer = state.anomaly_writer
    return writer


def _key(anomaly: Anomaly) -> Key:
    return anomaly.t_ns, anomaly.id


@router.get("/anomalies", response_model=models.AnomalyList, operation_id="list_anomalies", summary="Anomalies, newest first")
async def list_anomalies(
    request: Request,
    *,
    run: Annotated[str | None, Query(description="Only of this run")] = None,
    kind: Annotated[str | None, Query(description="Only with a finding of this kind, as root or attached")] = None,
    severity: Annotated[str | None, Query(description="info, warning or critical")] = None,
    state: Annotated[str | None, Query(description="pending, firing, ended (stood when its run ended) or resolved")] = None,
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
    now_ns = time.time_ns()
    over = tuple(name for name, view in views.items() if is_over(view, now_ns)) if state in ("firing", ENDED) else None
    wanted = AnomalyFilter(
        run=run,
        kind=kind,
        severity=severity,
        state="firing" if state == ENDED else state,
        among=over if state == ENDED else None,
        apart=over if state == "firing" else None,
        since_ns=None if since is None else parse_time(since, "since"),
        limit=limit + 1,
        cursor=None if cursor is None else read_cursor(cursor),
    )
    writer = _writer_of(request, context)

    def read() -> Answer:
        # Also the writing: what changed is written anew, and the event loop must not spend that time.
        shown, following = cut_page(context.reader.anomalies(wanted), _key, limit)
        attention = context.reader.attention([anomaly.id for anomaly in shown])
        return Answer(writer.write(shown, following, views, concerned, attention, now_ns=now_ns))

    return await anyio.to_thread.run_sync(read)


AnomalyId = Annotated[str, Path(alias="id", description="Id of the anomaly")]


async def _answer(context: ApiContext, id_: str, *, detailed: bool = False) -> Answer:
    """One anomaly with what people did about it, as it is committed; `detailed` with what began it.

    Raises:
        ApiError: `anomaly-not-found`.
    """
    anomaly = await anyio.to_thread.run_sync(context.reader.anomaly, id_)
    if anomaly is None:
        raise ApiError("anomaly-not-found", where="id", expected="the id of an anomaly", got=repr(id_[:80]))
    attention = await anyio.to_thread.run_sync(context.reader.attention, [id_])
    views, seen, sent = context.snapshots(), attention.get(id_), sent_to(context)

    def describe() -> dict[str, Any]:
        return anomaly_document(anomaly, context.catalogue, views, seen, now_ns=time.time_ns(), sent=sent)

    document = await anyio.to_thread.run_sync(describe)
    if detailed:
        world = views[anomaly.run].run.world if anomaly.run in views else 1
        found = await anyio.to_thread.run_sync(evidence_document, anomaly, world, context.reader)
        document["evidence"] = {**document["evidence"], **found}
    return Answer(document)


@router.get("/anomalies/{id}", response_model=AnomalyDetail, operation_id="get_anomaly", summary="One anomaly")
async def get_anomaly(request: Request, id_: AnomalyId) -> Answer:
    """One anomaly by its id, with what deviated first around its onset."""
    return await _answer(context_of(request), id_, detailed=True)


@router.patch(
    "/anomalies/{id}", response_model=models.AnomalyItem, operation_id="change_anomaly", summary="Say that you have seen it"
)
async def change_anomaly(request: Request, id_: AnomalyId, body: AnomalyBody) -> Answer:
    """Acknowledge an anomaly, with a note, or take that back. Detection and delivery go on as before."""
    if body.acknowledged is None and body.note is None:
        raise ApiError("invalid-body", where="body", expected="acknowledged or note", got="neither")
    if body.acknowledged is False and body.note is not None:
        raise ApiError("invalid-body", where="body/note", expected="none beside acknowledged: false", got=repr(body.note[:80]))
    context = context_of(request)
    wanted = Acknowledge(id_, principal_of(request).name, body.acknowledged, body.note)
    await submit(context, wanted, Attention)
    return await _answer(context, id_)
