"""An API over memory: a reader that holds records, a pipeline that answers at once, and a client that reads streams."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import ControlState, Level, RankState, Severity
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.anomalies.overlay import Overlay
from gradwatch_daemon.api.access import TokenBook
from gradwatch_daemon.api.app import create_api
from gradwatch_daemon.api.context import ApiContext, DaemonHealth, DetectorInfo, NeedInfo, ThresholdInfo, VoteInfo
from gradwatch_daemon.api.hub import Hub
from gradwatch_daemon.attention import Acknowledge, Attention, CreateSilence, EndSilence, Silence
from gradwatch_daemon.commands import Calm, CancelCommand, CancelEscalation, CommandRecord, RequestCommand, SetLevel
from gradwatch_daemon.records import (
    Anomaly,
    Attached,
    DetectorState,
    Escalation,
    EventRecord,
    LossRecord,
    Newest,
    Published,
    Run,
    RunView,
    SignalBlock,
    SignalKey,
    Stream,
    TableRecord,
)
from gradwatch_daemon.store.protocol import Point, Series, SignalSummary, Stretch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from fastapi import FastAPI

    from gradwatch_daemon.attention import AttentionRequest
    from gradwatch_daemon.commands import ControlRequest
    from gradwatch_daemon.notices import Delivery
    from gradwatch_daemon.store.protocol import AnomalyFilter

TOKEN = "correct-horse"
HOST = "127.0.0.1:9470"
T0_NS = 1_769_860_800_123_456_789
T0_TEXT = "2026-01-31T12:00:00.123Z"


def make_run(run: str = "ant-ppo", **changes: Any) -> Run:
    """A live run of two ranks in its second attempt."""
    made = Run(
        run=run,
        attempt=2,
        launch_id="launch-7",
        group="ants",
        tags={"team": "locomotion"},
        labels={"env": "Ant-v5"},
        config={"lr": 3e-4, "clip": float("inf"), "anneal": True},
        updates_total=500,
        world=2,
        state="live",
        base=Level.NORMAL,
        pin=None,
        revision=3,
        first_seen_ns=T0_NS,
        last_seen_ns=T0_NS + 9_000_000_000,
    )
    return replace(made, **changes)


def make_view(run: Run | None = None, **changes: Any) -> RunView:
    """A run at update 120 with 3 of 8 detectors blind and 2 of 98 records lost."""
    states = ["armed"] * 4 + ["firing"] + ["blind"] * 3
    made = RunView(
        run=run or make_run(),
        live=True,
        sessions=2,
        update_last=120,
        effective=Level.DEBUG,
        rows=96,
        lost=2,
        detectors=tuple(DetectorState(f"kind-{i}", "", state, f"reason {i}") for i, state in enumerate(states)),
    )
    return replace(made, **changes)


def make_anomaly(**changes: Any) -> Anomaly:
    """A critical NaN of the gradient norm with one attached finding."""
    made = Anomaly(
        id="a1",
        run="ant-ppo",
        attempt=2,
        rank=1,
        kind="nonfinite",
        subject="actor",
        severity=Severity.CRITICAL,
        state="firing",
        update_onset=118,
        update_fired=119,
        update_last=120,
        update_resolved=None,
        count=3,
        value=float("nan"),
        limit=0.5,
        baseline=None,
        minibatch=4,
        stage="grad",
        sentence="Gradient norm is NaN at update 119.",
        attached=(Attached("kl-spike", "", Severity.WARNING, 119, 120, float("inf"), 0.1),),
        tries=("Lower the learning rate.",),
        rules_hash="beef",
        t_ns=T0_NS,
    )
    return replace(made, **changes)


def make_escalation(**changes: Any) -> Escalation:
    """An operator's escalation that nobody has told the trainer of."""
    made = Escalation(
        id="e1",
        run="ant-ppo",
        level=Level.DEBUG,
        updates=50,
        origin="operator",
        reason="watching",
        state=ControlState.REQUESTED,
        requested_ns=T0_NS,
        ranks=(RankState(1, ControlState.REQUESTED),),
        expires_ns=T0_NS + 60_000_000_000,
    )
    return replace(made, **changes)


def make_command(**changes: Any) -> CommandRecord:
    """An operator's command that nobody has told the trainer of."""
    made = CommandRecord(
        id="c1",
        run="ant-ppo",
        verb="stop",
        args={},
        origin="operator",
        reason="enough",
        state=ControlState.REQUESTED,
        requested_ns=T0_NS,
        expires_ns=T0_NS + 60_000_000_000,
        ranks=(RankState(0, ControlState.REQUESTED), RankState(1, ControlState.REQUESTED)),
    )
    return replace(made, **changes)


def make_event(seq: int, **changes: Any) -> EventRecord:
    """An exception with a NaN in its detail."""
    made = EventRecord(
        Stream("ant-ppo", 2, 1), "s1", seq, 118, T0_NS + seq, "exception", "ValueError: nan", {"x": float("nan"), "n": 3}
    )
    return replace(made, **changes)


def make_series(values: Sequence[float], status: Sequence[int] | None = None, *, bucket: int = 1, **changes: Any) -> Series:
    """Raw points (or buckets whose low, high and last are the same) of `policy.kl.k3` from update 100 on."""
    array = np.array(values, dtype=np.float64)
    code = np.array(status if status is not None else [0] * len(values), dtype=np.uint8)
    measured = (code == Status.MEASURED).astype(np.int64)
    made = Series(
        key=SignalKey("policy.kl.k3"),
        bucket=bucket,
        update=100 + bucket * np.arange(len(values), dtype=np.int64),
        t_ns=T0_NS + 1_000_000_000 * np.arange(len(values), dtype=np.int64),
        env_steps=np.arange(len(values), dtype=np.int64) - 1,
        low=array,
        high=array,
        last=array,
        measured=measured,
        nonfinite=(measured.astype(bool) & ~np.isfinite(array)).astype(np.int64),
        status=code,
        rows=len(values),
    )
    if len(values):
        made = replace(made, end=Point(int(made.update[-1]), int(made.t_ns[-1]), 7, float(array[-1]), int(code[-1])))
    return replace(made, **changes)


def make_table(update: int, layers: Mapping[str, Sequence[float]], **changes: Any) -> TableRecord:
    """A table of layers of rank 0: name → grad_norm, weight_norm, grad_nonfinite, weight_nonfinite."""
    values = np.array(list(layers.values()), "<f8").tobytes()
    names = ("grad_norm", "weight_norm", "grad_nonfinite", "weight_nonfinite")
    return replace(TableRecord(Stream("ant-ppo", 2, 0), "s1", 7, "layers", update, tuple(layers), names, values), **changes)


def make_summary(name: str = "policy.kl.k3", **changes: Any) -> SignalSummary:
    """A signal measured 90 times."""
    made = SignalSummary(SignalKey(name), update_last=120, status_last=0, value_last=0.01, measured=90, nonfinite=1)
    return replace(made, **changes)


CATALOGUE = (
    DetectorInfo(
        kind="nonfinite",
        title="NaN or Inf",
        meaning="Something is no number.",
        severity=Severity.CRITICAL,
        needs=(NeedInfo("grad.norm.mean", "step", "mon.step()", optional=True, undefined="take a step"),),
        thresholds=(
            ThresholdInfo(
                "count", 1.0, 0.0, ">", "count", "elements that are not finite", "grad.norm.nonfinite", Severity.CRITICAL
            ),
        ),
        votes=(VoteInfo(Severity.WARNING, 1, 2, Severity.CRITICAL),),
        formula="count > 0",
        warm_up="none",
        fails_when="never called",
        source="by definition",
        tries=("Lower the learning rate.",),
        origin="pkg 2.0",
    ),
    DetectorInfo(
        kind="kl-spike",
        title="KL spike",
        meaning="The policy moved far.",
        severity=Severity.WARNING,
        needs=(NeedInfo("policy.kl.k3", "ppo", "mon.ppo(...)"),),
        thresholds=(),
        votes=(),
        formula="kl > 0.1",
        warm_up="20 updates",
        fails_when="the policy is not stochastic",
        source="Schulman 2020",
        tries=(),
    ),
)


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


def make_health(**changes: Any) -> DaemonHealth:
    """A daemon a minute old that refused some frames."""
    made = DaemonHealth(
        pid=4242,
        started_ns=T0_NS,
        now_ns=T0_NS + 60_000_000_000,
        sqlite="3.40.1",
        data_dir="/data/gradwatch",
        data_free_bytes=3_000_000_000,
        data_size_bytes=9_000_000_000,
        frames=77,
        rows=66,
        refused={"frame-crc": 3, "secret-wrong": 1},
        quarantines=2,
        commits=55,
        commit_failures=4,
        ack="synced",
    )
    return replace(made, **changes)


def make_newest(values: Mapping[str, float], missing: Sequence[str] = ()) -> Newest:
    """A newest row: `name` or `name/subject` → value; what is `missing` is there and not measured."""
    keys = tuple(SignalKey(*name.split("/", 1)) for name in (*values, *missing))
    status = np.array([0] * len(values) + [int(Status.NOT_CALLED)] * len(missing), np.uint8)
    numbers = np.array([*values.values(), *(0.0 for _ in missing)], np.float32)
    return Newest(keys, numbers, status, T0_NS, T0_NS + 20_000_000)


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


@dataclass(frozen=True)
class ServerEvent:
    """One event as a browser would see it."""

    name: str
    id: str
    data: Any


class StreamClient:
    """Reads GET stream straight from the ASGI application (httpx collects a whole body before it hands out any)."""

    def __init__(self, daemon: FakeDaemon, query: str = "", last_event_id: str | None = None) -> None:
        self._daemon = daemon
        self._query = query
        self._last = last_event_id
        self._parts: asyncio.Queue[bytes] = asyncio.Queue()
        self._leaving = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self.text = ""
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> StreamClient:
        headers = [(b"host", HOST.encode()), (b"authorization", f"Bearer {TOKEN}".encode())]
        if self._last is not None:
            headers.append((b"last-event-id", self._last.encode()))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/api/v1/stream",
            "raw_path": b"/api/v1/stream",
            "query_string": self._query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 9470),
        }
        self.task = asyncio.create_task(self._daemon.app(scope, self._receive(), self._send))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self._leaving.set()
        self.reading.set()
        await asyncio.wait_for(self.task, 5)

    def leave(self) -> None:
        """Close the connection."""
        self._leaving.set()

    def _receive(self) -> Callable[[], Any]:
        asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> dict[str, Any]:
            first = next(asked, None)
            if first is not None:
                return first
            await self._leaving.wait()
            return {"type": "http.disconnect"}

        return receive

    async def _send(self, message: Any) -> None:
        await self.reading.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            return
        self.complete = self.complete or not message.get("more_body", False)
        self.text += message["body"].decode()
        self._parts.put_nowait(message["body"])

    async def raw(self) -> str:
        """The next part of the body."""
        return (await asyncio.wait_for(self._parts.get(), 5)).decode()

    async def next(self) -> ServerEvent:
        """The next event."""
        fields = dict(line.split(": ", 1) for line in (await self.raw()).strip().splitlines())
        return ServerEvent(fields["event"], fields.get("id", ""), json.loads(fields["data"]))

    async def rest(self) -> AsyncIterator[ServerEvent]:
        """Events until the end of the stream."""
        assert self.task is not None
        await asyncio.wait_for(asyncio.shield(self.task), 5)
        while not self._parts.empty():
            part = self._parts.get_nowait()
            if part:
                fields = dict(line.split(": ", 1) for line in part.decode().strip().splitlines())
                yield ServerEvent(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
