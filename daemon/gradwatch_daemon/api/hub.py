"""Fan-out of committed events to live streams. Pure of HTTP; lives in one event loop and needs no lock.

Every event has an id "<epoch>-<n>": n grows by one from 1 per event of this daemon process, the epoch changes with the process.
Two bounded rings keep recent events for clients that come back: a flood of rows must not push out the anomalies, so
evidence (anomaly, escalation, command, silence) and the rest (rows, run) have one each.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api.numbers import encode
from gradwatch_daemon.records import Anomaly, Escalation, Published, RunView, SignalBlock
from gradwatch_daemon.records.attention import Attention, Silence
from gradwatch_daemon.records.commands import CommandRecord

EVIDENCE = frozenset({"anomaly", "escalation", "command", "silence"})
TOPICS = frozenset({"rows", "run"}) | EVIDENCE

RING_EVENTS = 4096
"""Per ring: a dashboard that lost its network for a minute at 60 events a second misses nothing."""

QUEUE_DROPPABLE = 256
"""Events waiting for one client beyond which rows and run events are cut: 5 s at the sender's 50 batches a second."""

QUEUE_MAX = 1024
"""Events waiting for one client beyond which it is disconnected. It comes back with its last id and reads the ring."""

CLIENTS_MAX = 256
"""Streams at once: each holds a connection and up to `QUEUE_MAX` references."""


@dataclass(slots=True)
class Event:
    """One event, `run` '' where of no run; its frame is made when first needed, then shared by all clients and replays."""

    n: int
    topic: str
    run: str
    payload: Anomaly | Escalation | CommandRecord | RunView | Silence | Mapping[str, Any]
    attention: Attention | None = None
    frame: bytes = b""


def frame(name: str, data: Any, id_: str = "") -> bytes:
    """The bytes of one server-sent event. `data` is one line of JSON, so it needs one data field."""
    head = f"id: {id_}\nevent: {name}\n" if id_ else f"event: {name}\n"
    return head.encode() + b"data: " + encode(data) + b"\n\n"


@dataclass(slots=True)
class Cut:
    """Stands in a queue where events were cut; counts on until it is sent, so a client hears of it before anything later."""

    events: int = 0


@dataclass(slots=True, eq=False)
class Client:
    """One subscriber. `ended` is why its stream is over, '' while it is not; `over` is set with it."""

    topics: frozenset[str]
    runs: frozenset[str] | None
    waiting: deque[Event | Cut] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    ended: str = ""
    _cut: Cut | None = None

    def wants(self, event: Event) -> bool:
        """Whether topic and run were asked for. What is of no run concerns all."""
        return event.topic in self.topics and (self.runs is None or not event.run or event.run in self.runs)

    def offer(self, event: Event) -> None:
        """Queue an event. A full queue cuts what can be asked for again, and ends the stream rather than drop evidence."""
        if event.topic not in EVIDENCE and len(self.waiting) >= QUEUE_DROPPABLE:
            if self._cut is None:
                self._cut = Cut()
                self.waiting.append(self._cut)
            self._cut.events += 1
        elif len(self.waiting) >= QUEUE_MAX:
            self.end("too slow")
        else:
            self.waiting.append(event)
        self.wake.set()

    def end(self, why: str) -> None:
        """Finish the stream; what waits is not sent, a client that comes back gets it from the ring."""
        self.ended = self.ended or why
        self.over.set()
        self.wake.set()

    async def take(self, timeout_s: float) -> Event | Cut | None:
        """The next event or cut; None after `timeout_s` without one, or at the end of the stream."""
        if not self.waiting and not self.ended:
            self.wake.clear()
            try:
                await asyncio.wait_for(self.wake.wait(), timeout_s)
            except asyncio.TimeoutError:
                return None
        if self.ended or not self.waiting:
            return None
        first = self.waiting.popleft()
        if first is self._cut:
            self._cut = None
        return first


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a stream starts: `cursor` is the id before its first event; `gap` says why events are missing, '' if none."""

    cursor: int
    replay: tuple[Event, ...] = ()
    gap: str = ""


class Ring:
    """The newest events of some topics. `evicted` is the number of the newest one that is gone, 0 for none."""

    def __init__(self, size: int) -> None:
        self.events: deque[Event] = deque()
        self.evicted = 0
        self._size = size

    def add(self, event: Event) -> None:
        """Keep an event, forgetting the oldest beyond the size."""
        self.events.append(event)
        if len(self.events) > self._size:
            self.evicted = self.events.popleft().n


class Hub:
    """The fan-out. Every method is called in the event loop's thread.

    `epoch` is a word of letters and digits, new for every process: ids of another one are answered with a gap.
    """

    def __init__(self, epoch: str) -> None:
        if not epoch.isalnum():
            raise GradwatchError("invalid-argument", where="epoch", expected="letters and digits", got=repr(epoch))
        self.epoch = epoch
        self.closed = False
        self.last = 0
        self._evidence = Ring(RING_EVENTS)
        self._others = Ring(RING_EVENTS)
        self._clients: set[Client] = set()

    @property
    def clients(self) -> frozenset[Client]:
        """Who listens now: streams, and requests that wait for an escalation or a command."""
        return frozenset(self._clients)

    def publish(self, batch: Iterable[Published]) -> None:
        """Number, keep and hand out a batch that was committed."""
        for published in batch:
            self.last += 1
            # Rows are described at once: a ring must not keep their arrays alive.
            payload = published.payload
            kept = _rows(payload) if isinstance(payload, SignalBlock) else payload
            event = Event(self.last, published.topic, published.run, kept, published.attention)
            (self._evidence if event.topic in EVIDENCE else self._others).add(event)
            for client in self._clients:
                if client.wants(event):
                    client.offer(event)

    def subscribe(self, topics: Collection[str], runs: Collection[str] | None = None, limit: int | None = None) -> Client:
        """A new client; `runs` None means all. Give it back with `unsubscribe`.

        Raises:
            GradwatchError: `overloaded` when `limit` clients are there already.
        """
        if limit is not None and len(self._clients) >= limit:
            raise GradwatchError("overloaded", where="streams", expected=f"at most {limit}", got="one more")
        client = Client(frozenset(topics), None if runs is None else frozenset(runs))
        if self.closed:
            client.end("shutdown")
        self._clients.add(client)
        return client

    def unsubscribe(self, client: Client) -> None:
        """Forget a client; harmless when it is forgotten already."""
        self._clients.discard(client)

    def resume(self, last_event_id: str | None, client: Client) -> Resume:
        """Where `client`, which last saw `last_event_id`, goes on. Call it in the step that subscribed it: no await between."""
        if last_event_id is None:
            return Resume(self.last)
        epoch, _, digits = last_event_id.rpartition("-")
        seen = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None
        if epoch != self.epoch or seen is None or seen > self.last:
            return Resume(self.last, gap="the daemon was restarted, or the id is not one of its own")
        rings = [
            ring for ring, names in ((self._evidence, EVIDENCE), (self._others, TOPICS - EVIDENCE)) if names & client.topics
        ]
        missed = sorted(
            (event for ring in rings for event in ring.events if event.n > seen and client.wants(event)), key=lambda e: e.n
        )
        gone = any(seen < ring.evicted for ring in rings)
        return Resume(seen, tuple(missed), "events after the last id are no longer kept" if gone else "")

    def close(self) -> None:
        """End every stream, and every wait for an escalation, now. Later streams end at once."""
        self.closed = True
        for client in self._clients:
            client.end("shutdown")


def _rows(block: SignalBlock) -> dict[str, Any]:
    stream = block.stream
    return {
        "run": stream.run,
        "attempt": stream.attempt,
        "rank": stream.rank_shown,
        "update_first": int(block.update[0]),
        "update_last": int(block.update[-1]),
        "n": len(block),
    }
