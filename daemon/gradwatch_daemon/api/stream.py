"""GET stream: committed events as server-sent events."""

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gradwatch_daemon.api.anomalies import anomaly_document, sent_to
from gradwatch_daemon.api.commands import command_item
from gradwatch_daemon.api.context import ApiContext, context_of
from gradwatch_daemon.api.coverage import of_views
from gradwatch_daemon.api.escalations import escalation_item
from gradwatch_daemon.api.events import Event, frame
from gradwatch_daemon.api.hub import EVIDENCE, TOPICS, Client, Cut, Holder, Resume
from gradwatch_daemon.api.parameters import split_words
from gradwatch_daemon.api.problems import ApiError
from gradwatch_daemon.api.runs import run_summary
from gradwatch_daemon.api.silences import silence_item
from gradwatch_daemon.records import Anomaly, Escalation, RunView
from gradwatch_daemon.records.attention import Silence
from gradwatch_daemon.records.commands import CommandRecord

HEARTBEAT_S = 15.0
"""Below the 30 to 60 s after which proxies close an idle connection."""

RETRY_MS = 2000

BYE_S = 1.0
"""Longest time the last words of a stream may take."""

EXAMPLE = """\
retry: 2000
id: 6b1d9c02-41
event: hello
data: {"version":"0.1.0","epoch":"6b1d9c02","topics":["rows"],"runs":null,"replayed":0,"heartbeat_s":15.0}

id: 6b1d9c02-42
event: rows
data: {"run":"ant-ppo","attempt":1,"rank":0,"update_first":118,"update_last":120,"n":3,\
"coverage":{"received":118,"lost":2,"share":0.9833333333333333,"thinned":0}}
"""

router = APIRouter(tags=["stream"])


def describe(context: ApiContext, event: Event) -> Mapping[str, Any]:
    """What an event says: the same document that GET answers."""
    payload = event.payload
    if isinstance(payload, Anomaly):
        views, now_ns = context.snapshots(), time.time_ns()
        return anomaly_document(payload, context.catalogue, views, event.attention, now_ns=now_ns, sent=sent_to(context))
    if isinstance(payload, Escalation):
        return escalation_item(payload).model_dump()
    if isinstance(payload, CommandRecord):
        return command_item(payload).model_dump()
    if isinstance(payload, RunView):
        return run_summary(payload).model_dump()
    if isinstance(payload, Silence):
        return silence_item(payload, time.time_ns()).model_dump()
    view = context.snapshots().get(event.run)
    return {**payload, "coverage": of_views([view]) if view else None}


class EventStream(Response):
    """A response that lasts: hello, what was missed, then events until the client leaves, is too slow, or we shut down."""

    media_type = "text/event-stream"

    def __init__(self, context: ApiContext, client: Client, resume: Resume) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._context = context
        self._client = client
        self._resume = resume

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client; whatever ends it, the client is forgotten."""
        parts = (self._serve(send), self._watch(receive), self._client.over.wait())
        serving, *_ = tasks = [asyncio.create_task(part) for part in (*parts, self._beat())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # A client that reads nothing blocks the write for ever; shutdown must not wait for it.
            await asyncio.wait([serving], timeout=BYE_S)
            if serving.done():
                serving.result()
        except OSError:
            # The peer closed the connection while we wrote: how most streams end.
            return
        finally:
            self._context.hub.unsubscribe(self._client)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._client.end("disconnected")

    async def _beat(self) -> None:
        """Also the end of a stream whose token or session ends. A wait without a timeout of its own costs the stream half as
        much."""
        while (left_s := self._client.end_if_over(time.time_ns())) > 0:
            # A little more than what is left: the two clocks differ.
            await asyncio.sleep(min(HEARTBEAT_S, left_s + 1e-3))
            if self._client.end_if_over(time.time_ns()) > 0:
                self._client.wake.set()

    async def _serve(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._opening():
            await _write(send, part)
        while not self._client.ended:
            items = [item for item in await self._client.drain() if isinstance(item, Cut) or not item.stale]
            if items:
                await _write(send, b"".join(map(self._told, items)))
            elif not self._client.ended:
                await _write(send, b": still here\n\n")
        if self._client.ended != "disconnected":
            await _write(send, frame("bye", {"reason": self._client.ended}))
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _opening(self) -> list[bytes]:
        hub, start = self._context.hub, self._resume
        hello = {
            "version": self._context.version,
            "epoch": hub.epoch,
            "topics": sorted(self._client.topics),
            "runs": None if self._client.runs is None else sorted(self._client.runs),
            "replayed": len(start.replay),
            "heartbeat_s": HEARTBEAT_S,
        }
        opening = [f"retry: {RETRY_MS}\n".encode() + frame("hello", hello, f"{hub.epoch}-{start.cursor}")]
        if start.gap:
            opening.append(_gap(start.gap, None))
        return opening + [self._frame(event) for event in start.replay]

    def _told(self, item: Event | Cut) -> bytes:
        return self._frame(item) if isinstance(item, Event) else _gap("this client was too slow", item.events)

    def _frame(self, event: Event) -> bytes:
        if not event.frame:
            document = describe(self._context, event)
            event.frame = frame(event.topic, document, f"{self._context.hub.epoch}-{event.n}")
        return event.frame


def _gap(reason: str, events: int | None) -> bytes:
    """Tells the client to ask the API anew. Without an id: it must not move the client's place."""
    topics = sorted(TOPICS if events is None else TOPICS - EVIDENCE)
    return frame("gap", {"reason": reason, "events": events, "topics": topics})


async def _write(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})


@router.get(
    "/stream",
    response_class=Response,
    operation_id="stream",
    summary="Events as they are committed (server-sent events)",
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}, "example": EXAMPLE}}}},
)
async def stream(
    request: Request,
    topics: Annotated[
        str | None, Query(description="rows, run, anomaly, escalation, command, silence, with commas; all when not given")
    ] = None,
    runs: Annotated[str | None, Query(description="Names of runs, with commas; all when not given")] = None,
    last_event_id: Annotated[str | None, Header(description="Id of the last event seen: what came since is sent first")] = None,
) -> Response:
    """`hello`, then events of the topics; `gap` where some are missing, `bye` at the end, which comes with the end of the token
    or the browser session at the latest."""
    context = context_of(request)
    wanted = split_words("topics", topics, sorted(TOPICS)) or TOPICS
    of_runs = split_words("runs", runs)
    if context.hub.closed:
        raise ApiError("not-ready", where="stream", expected="a running daemon", got="one that shuts down")
    holder = Holder(request.scope["gradwatch.principal"].token, request.scope["gradwatch.ends_ns"])
    client = context.hub.subscribe(wanted, of_runs, holder)
    return EventStream(context, client, context.hub.resume(last_event_id, client))
