"""An API over memory: a reader that holds records and a pipeline that answers at once."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import httpx

from gradwatch_contracts.control import ControlState, Level
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.anomalies.overlay import Overlay
from gradwatch_daemon.api.access import TokenBook
from gradwatch_daemon.api.app import create_api
from gradwatch_daemon.api.context import ApiContext
from gradwatch_daemon.api.hub import Hub
from gradwatch_daemon.records import (
    Anomaly,
    Escalation,
    EventRecord,
    LossRecord,
    Published,
    RunView,
    SignalBlock,
    SignalKey,
    Stream,
    TableRecord,
)
from gradwatch_daemon.records.attention import Acknowledge, Attention, CreateSilence, EndSilence, Silence
from gradwatch_daemon.records.commands import Calm, CancelCommand, CancelEscalation, CommandRecord, RequestCommand, SetLevel
from harness.fake_records import CATALOGUE, T0_NS, make_command, make_escalation, make_health, make_run, make_series, make_view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI

    from gradwatch_daemon.records.attention import AttentionRequest
    from gradwatch_daemon.records.commands import ControlRequest
    from gradwatch_daemon.records.notices import Delivery
    from gradwatch_daemon.store.protocol import AnomalyFilter, Series, SignalSummary, Stretch

TOKEN = "correct-horse"


HOST = "127.0.0.1:9470"


@dataclass
class FakeReader:
    """A StoreReader over lists. `calls` is what was asked; `broken` is raised by every call."""

    summaries: list[SignalSummary] = field(default_factory=list)
    stored: Series | None = None
    found: list[Anomaly] = field(default_factory=list)
    attended: dict[str, Attention] = field(default_factory=dict)
    silenced: list[Silence] = field(default_factory=list)
    log: list[Delivery] = field(default_factory=list)
    raised: list[Escalation] = field(default_factory=list)
    asked: list[CommandRecord] = field(default_factory=list)
    happened: list[EventRecord] = field(default_factory=list)
    lost: list[LossRecord] = field(default_factory=list)
    sent: list[TableRecord] = field(default_factory=list)
    blocks: list[SignalBlock] = field(default_factory=list)
    course: list[Stretch] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    broken: Exception | None = None
    threads_seen: set[str] = field(default_factory=set)

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        self.threads_seen.add(threading.current_thread().name)
        if self.broken:
            raise self.broken

    def signals(self, run: str, attempt: int, rank: int) -> list[SignalSummary]:
        self._note("signals", run, attempt, rank)
        return self.summaries

    def series(self, stream: Stream, key: SignalKey, first: int | None, last: int | None, points: int) -> Series:
        self._note("series", stream, key, first, last, points)
        return replace(self.stored, key=key) if self.stored is not None else make_series([], key=key)

    def anomalies(self, wanted: AnomalyFilter) -> list[Anomaly]:
        self._note("anomalies", wanted)
        matching = [
            a
            for a in self.found
            if wanted.run in (None, a.run)
            and wanted.kind in (None, a.kind, *(finding.kind for finding in a.attached))
            and wanted.severity in (None, a.severity.value)
            and wanted.state in (None, a.state)
            and (wanted.among is None or a.run in wanted.among)
            and (wanted.apart is None or a.run not in wanted.apart)
            and (wanted.since_ns is None or a.t_ns >= wanted.since_ns)
            and (wanted.cursor is None or (a.t_ns, a.id) < wanted.cursor)
        ]
        return sorted(matching, key=lambda a: (a.t_ns, a.id), reverse=True)[: wanted.limit]

    def anomaly(self, id_: str) -> Anomaly | None:
        self._note("anomaly", id_)
        return next((a for a in self.found if a.id == id_), None)

    def attention(self, anomalies: Sequence[str]) -> dict[str, Attention]:
        self._note("attention", *anomalies)
        return {id_: self.attended[id_] for id_ in anomalies if id_ in self.attended}

    def delivery_counts(self) -> dict[tuple[str, str], int]:
        self._note("delivery_counts")
        return dict(Counter((delivery.channel, delivery.state) for delivery in self.log))

    def deliveries(self) -> list[Delivery]:
        self._note("deliveries")
        return self.log

    def silences(self) -> list[Silence]:
        self._note("silences")
        return self.silenced

    def escalations(self, run: str) -> list[Escalation]:
        self._note("escalations", run)
        return [e for e in self.raised if e.run == run]

    def commands(self, run: str) -> list[CommandRecord]:
        self._note("commands", run)
        return [c for c in self.asked if c.run == run]

    def escalation(self, run: str, id_: str) -> Escalation | None:
        self._note("escalation", run, id_)
        return next((e for e in self.raised if (e.run, e.id) == (run, id_)), None)

    def command(self, run: str, id_: str) -> CommandRecord | None:
        self._note("command", run, id_)
        return next((c for c in self.asked if (c.run, c.id) == (run, id_)), None)

    def shadows(self, run: str) -> dict[str, int]:
        self._note("shadows", run)
        return dict(Counter(str(e.detail["verb"]) for e in self.happened if e.stream.run == run and e.kind == "shadow"))

    def events(self, run: str, limit: int) -> list[EventRecord]:
        self._note("events", run, limit)
        return self.happened[:limit]

    def losses(self, run: str) -> list[LossRecord]:
        self._note("losses", run)
        return self.lost

    def tables(self, run: str, limit: int) -> list[TableRecord]:
        self._note("tables", run, limit)
        return self.sent[::-1][:limit]

    def table_updates(self, stream: Stream, kind: str) -> list[int]:
        self._note("table_updates", stream, kind)
        return sorted({table.update for table in self.sent if table.stream == stream and table.kind == kind})

    def tables_between(self, stream: Stream, kind: str, first: int, last: int, limit: int) -> list[TableRecord]:
        self._note("tables_between", stream, kind, first, last, limit)
        return [t for t in self.sent if t.stream == stream and t.kind == kind and first <= t.update <= last][-limit:]

    def tables_at(self, stream: Stream, kind: str, updates: Sequence[int]) -> list[TableRecord]:
        self._note("tables_at", stream, kind, list(updates))
        return [t for t in self.sent if t.stream == stream and t.kind == kind and t.update in updates]

    def blocks_between(self, stream: Stream, first: int, last: int, limit: int) -> list[SignalBlock]:
        self._note("blocks_between", stream, first, last, limit)
        return self.blocks

    def stretches(self, stream: Stream) -> list[Stretch]:
        self._note("stretches", stream)
        return self.course

    def close(self) -> None:
        self.calls.append(("close",))


@dataclass
class FakePipeline:
    """Answers requests as the pipeline would; `refuse` is raised instead; `silent` never answers."""

    reader: FakeReader
    refuse: GradwatchError | None = None
    silent: bool = False
    requests: list[ControlRequest | AttentionRequest] = field(default_factory=list)
    futures: list[Future[Any]] = field(default_factory=list)

    def submit(self, request: ControlRequest | AttentionRequest) -> Future[Any]:
        answer: Future[Any] = Future()
        self.requests.append(request)
        self.futures.append(answer)
        if self.refuse is not None:
            answer.set_exception(self.refuse)
        elif isinstance(request, (Acknowledge, CreateSilence, EndSilence)):
            self._attend(request, answer)
        elif not self.silent:
            self._carry_out(request, answer)
        return answer

    def _attend(self, request: AttentionRequest, answer: Future[Any]) -> None:
        """By the real overlay, over what the reader holds."""
        reader = self.reader
        overlay = Overlay(reader.silenced, reader.attended.values())
        if isinstance(request, Acknowledge):
            reader.attended[request.anomaly] = overlay.acknowledge(request, T0_NS)
            answer.set_result(reader.attended[request.anomaly])
        elif isinstance(request, CreateSilence):
            made = overlay.create(request, T0_NS, None)
            reader.silenced = [made, *(silence for silence in reader.silenced if silence.id != made.id)]
            answer.set_result(made)
        else:
            ended = overlay.end(request.id, T0_NS + 1)
            answer.set_result(ended) if ended else answer.set_exception(GradwatchError("silence-not-found"))

    def _carry_out(self, request: Any, answer: Future[Any]) -> None:
        if isinstance(request, (SetLevel, Calm)):
            answer.set_result(make_view(make_run(request.run, pin=None, base=Level.MINIMAL)))
        elif isinstance(request, (RequestCommand, CancelCommand)):
            self._command(request, answer)
        else:
            self._escalate(request, answer)

    def _command(self, request: RequestCommand | CancelCommand, answer: Future[Any]) -> None:
        known = next((c for c in self.reader.asked if c.id == request.id), None)
        if isinstance(request, CancelCommand):
            if known is None:
                answer.set_exception(GradwatchError("command-not-found", where="id", got=repr(request.id)))
                return
            answer.set_result(replace(known, state=ControlState.CANCELLED, ended_why="by an operator"))
            return
        if known is None:
            known = make_command(
                id=request.id,
                run=request.run,
                verb=request.verb,
                args=request.args,
                reason=request.reason,
                rank=request.rank,
                expires_ns=T0_NS + int(request.expires_s * 1e9),
            )
            self.reader.asked.append(known)
        answer.set_result(known)

    def _escalate(self, request: Any, answer: Future[Any]) -> None:
        known = next((e for e in self.reader.raised if e.id == request.id), None)
        if isinstance(request, CancelEscalation):
            if known is None:
                answer.set_exception(GradwatchError("escalation-not-found", where="id", got=repr(request.id)))
                return
            answer.set_result(replace(known, state=ControlState.CANCELLED, ended_why="by an operator"))
            return
        if known is None:
            known = make_escalation(
                id=request.id, run=request.run, level=request.level, updates=request.updates, reason=request.reason
            )
            self.reader.raised.append(known)
        answer.set_result(known)


@dataclass
class FakeDaemon:
    """Everything behind an API under test."""

    reader: FakeReader
    pipeline: FakePipeline
    hub: Hub
    views: dict[str, RunView]
    reasons: list[str]
    app: FastAPI

    def client(self, **headers: str) -> httpx.AsyncClient:
        """A client with the right token and Host; an app exception would surface as a failure of the test."""
        sent = {"Authorization": f"Bearer {TOKEN}", "Host": HOST, **headers}
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url=f"http://{HOST}", headers=sent)

    async def get(self, path: str) -> httpx.Response:
        """GET under /api/v1."""
        async with self.client() as client:
            return await client.get(f"/api/v1{path}")

    def publish(self, *payloads: Any) -> None:
        """Publish records as the pipeline would."""
        topics = {RunView: "run", CommandRecord: "command", SignalBlock: "rows"}
        batch = []
        for payload in payloads:
            owner = payload.run if isinstance(payload, RunView) else getattr(payload, "stream", payload)
            topic = topics.get(type(payload)) or type(payload).__name__.lower()
            batch.append(Published(topic, owner.run or "", payload))
        self.hub.publish(batch)


class FakeAudit:
    """An audit in memory; with `full` set the disk takes no more."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.full = False

    def write(self, entry: dict[str, Any]) -> None:
        """Append one entry."""
        if self.full:
            raise OSError("No space left on device")
        self.entries.append(entry)

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """The last entries, newest first."""
        return self.entries[::-1][:limit]


def make_daemon(views: Mapping[str, RunView] | None = None, **changes: Any) -> FakeDaemon:
    """An API over one run, `ant-ppo`; `changes` go to the ApiContext."""
    reader = FakeReader()
    pipeline = FakePipeline(reader)
    hub = Hub("cafe")
    shown = dict(views) if views is not None else {"ant-ppo": make_view()}
    reasons: list[str] = []
    settings: dict[str, Any] = {
        "snapshots": lambda: shown,
        "reader": reader,
        "submit": pipeline.submit,
        "hub": hub,
        "book": TokenBook(TOKEN),
        "audit": FakeAudit(),
        "keyring": None,
        "allowed_hosts": ("127.0.0.1", "::1", "localhost"),
        "ready": lambda: reasons,
        "health": make_health,
        "catalogue": CATALOGUE,
        "version": "1.2.3",
        "new_id": lambda: "made-by-server",
    }
    context = ApiContext(**{**settings, **changes})
    return FakeDaemon(reader, pipeline, hub, shown, reasons, create_api(context))


def problem_of(answer: httpx.Response) -> dict[str, Any]:
    """The problem document of an answer, checked to be one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document: dict[str, Any] = answer.json()
    assert document["status"] == answer.status_code
    assert document["type"] == f"urn:gradwatch:problem:{document['code']}"
    return document
