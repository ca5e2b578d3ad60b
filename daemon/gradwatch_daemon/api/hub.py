"""Fan-out of committed events to live streams. Pure of HTTP; lives in one event loop and needs no lock.

Evidence (anomaly, escalation, command, silence) goes out at once. Rows and runs are news that grow stale: those that come close
together are merged (`Recent`), then go out together, and after each such round there is a rest in proportion to what it cost.
So a run with one reader is told of every update, and 1,000 runs or 100 readers cost no more than a share of a core.

Every event has an id "<epoch>-<n>": n grows by one from 1 per event of this daemon process, the epoch changes with the process.
It gets its number when it goes out, so what is merged is one event to all who listen or come back. Two bounded rings keep
recent events for clients that come back: a flood of rows must not push out the anomalies, so evidence and the rest have one
each.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api.access import NEVER_NS, OWNER
from gradwatch_daemon.api.events import Event, Recent, event_of
from gradwatch_daemon.records import Published

EVIDENCE = frozenset({"anomaly", "escalation", "command", "silence"})
TOPICS = frozenset({"rows", "run"}) | EVIDENCE

RING_EVENTS = 4096
"""Per ring: a dashboard that lost its network for a minute at 60 events a second misses nothing."""

QUEUE_DROPPABLE = 256
"""Events left waiting for one client, when more come, beyond which rows and run events are cut: 2.5 s of one run at 50 rounds a
second. What comes at once is never too much by itself: a round has two events for every run there is."""

QUEUE_MAX = 1024
"""Events left waiting for one client beyond which it is disconnected. It comes back with its last id and reads the ring."""

CLIENTS_MAX = 256
"""Streams at once: each holds a connection and some more than `QUEUE_MAX` references."""

STREAMS_OF_OTHERS_MAX = 192
"""Streams at once of all tokens but the owner's, so that the owner always gets one."""

STREAMS_OF_TOKEN_MAX = 64
"""Streams at once of one token that is not the owner's: a screen on the wall of each room, and no token starves another."""

OVER = "token over"
"""Why a stream ended whose token or browser session was revoked, closed or expired."""

REST_S = 0.02
REST_S_A_CLIENT = 1e-3
REST_S_AN_EVENT = 5e-4
REST_S_MAX = 1.0
"""After a round of rows and runs, the rest before the next: ten times what a write to a client and a document cost (0.1 and
0.05 ms). 100 clients hear of rows 8 times a second, 1,000 runs once a second."""


@dataclass(slots=True)
class Cut:
    """Stands in a queue where events were cut; counts on until it is sent, so a client hears of it before anything later."""

    events: int = 0


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose stream it is: the id of the token, and when what it came in with ends (unix ns, 0 once it was taken back)."""

    token: str
    ends_ns: Callable[[], int]


@dataclass(slots=True, eq=False)
class Client:
    """One subscriber. `holder` is whose stream it is, None for a request that waits. `ended` is why its stream is over, ''
    while it is not; `over` is set with it."""

    topics: frozenset[str]
    runs: frozenset[str] | None
    holder: Holder | None = None
    waiting: deque[Event | Cut] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    ended: str = ""
    _cut: Cut | None = None

    def wants(self, event: Event) -> bool:
        """Whether topic and run were asked for. What is of no run concerns all."""
        return event.topic in self.topics and (self.runs is None or not event.run or event.run in self.runs)

    def offer(self, events: Sequence[Event]) -> None:
        """Queue events that go out together. Who is behind loses what can be asked for again; its stream ends rather than drop
        evidence."""
        behind = len(self.waiting)
        if behind < QUEUE_DROPPABLE:
            self.waiting.extend(events)
        else:
            for event in events:
                if event.topic not in EVIDENCE:
                    if self._cut is None:
                        self._cut = Cut()
                        self.waiting.append(self._cut)
                    self._cut.events += 1
                elif behind >= QUEUE_MAX:
                    self.end("too slow")
                else:
                    self.waiting.append(event)
        self.wake.set()

    def end_if_over(self, now_ns: int) -> float:
        """Finish the stream of a token or session that has ended; else the seconds until it does."""
        left_ns = self.holder.ends_ns() - now_ns if self.holder is not None else NEVER_NS
        if left_ns <= 0:
            self.end(OVER)
        return left_ns / 1e9

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

    async def drain(self) -> list[Event | Cut]:
        """All that waits, once something does; nothing after a `wake` for another reason, or at the end of the stream."""
        if not self.waiting and not self.ended:
            self.wake.clear()
            await self.wake.wait()
        taken, self._cut = list(self.waiting), None
        self.waiting.clear()
        return [] if self.ended else taken


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
        self._recent = Recent()
        self._rested_s = -math.inf
        self._round: asyncio.TimerHandle | None = None
        self._evidence = Ring(RING_EVENTS)
        self._others = Ring(RING_EVENTS)
        self._newest: dict[str, Event] = {}
        self._clients: set[Client] = set()

    @property
    def clients(self) -> frozenset[Client]:
        """Who listens now: streams, and requests that wait for an escalation or a command."""
        return frozenset(self._clients)

    def publish(self, batch: Iterable[Published]) -> None:
        """Hand out what was committed: evidence now, rows and runs now or after the rest."""
        evidence = []
        for published in batch:
            if published.topic in EVIDENCE:
                evidence.append(event_of(published))
            else:
                self._recent.put(published)
        loop = asyncio.get_running_loop()
        if self._recent and self._round is None:
            if loop.time() >= self._rested_s:
                evidence = [*self._recent.take(), *evidence]
                self._rest(len(evidence), loop)
            else:
                self._round = loop.call_at(self._rested_s, self._go_round)
        self._hand_out(evidence)

    def _go_round(self) -> None:
        """The rest is over."""
        self._round = None
        recent = self._recent.take()
        self._rest(len(recent), asyncio.get_running_loop())
        self._hand_out(recent)

    def _rest(self, events: int, loop: asyncio.AbstractEventLoop) -> None:
        cost_s = REST_S_A_CLIENT * len(self._clients) + REST_S_AN_EVENT * events if self._clients else 0.0
        self._rested_s = loop.time() + min(REST_S + cost_s, REST_S_MAX)

    def _hand_out(self, events: Sequence[Event]) -> None:
        """Number, keep, and queue for those who asked."""
        for event in events:
            self.last = event.n = self.last + 1
            (self._evidence if event.topic in EVIDENCE else self._others).add(event)
            if event.topic == "run":
                before = self._newest.get(event.run)
                self._newest[event.run] = event
                if before is not None:
                    before.replace()
        # Most clients ask for the same: what each kind of them wants is picked once.
        picked: dict[tuple[frozenset[str], frozenset[str] | None], list[Event]] = {}
        for client in self._clients:
            asked = (client.topics, client.runs)
            wanted = picked.get(asked)
            if wanted is None:
                wanted = picked[asked] = [event for event in events if client.wants(event)]
            if wanted:
                client.offer(wanted)

    def subscribe(self, topics: Collection[str], runs: Collection[str] | None = None, holder: Holder | None = None) -> Client:
        """A new client; `runs` None means all. With a `holder` it is a stream and counts as one. Give it back with
        `unsubscribe`.

        Raises:
            GradwatchError: `overloaded` when there are as many streams as there may be, of this token or of all.
        """
        if holder is not None:
            self._check_room(holder)
        client = Client(frozenset(topics), None if runs is None else frozenset(runs), holder)
        if self.closed:
            client.end("shutdown")
        self._clients.add(client)
        return client

    def _check_room(self, holder: Holder) -> None:
        tokens = [client.holder.token for client in self._clients if client.holder is not None]
        bounds = [("streams", len(tokens), CLIENTS_MAX)]
        if holder.token != OWNER:
            others = sum(token != OWNER for token in tokens)
            bounds.append(("streams of all tokens but the owner's", others, STREAMS_OF_OTHERS_MAX))
            bounds.append(("streams of this token", tokens.count(holder.token), STREAMS_OF_TOKEN_MAX))
        for where, count, most in bounds:
            if count >= most:
                raise GradwatchError("overloaded", where=where, expected=f"at most {most}", got="one more")

    def end_over(self, now_ns: int) -> None:
        """End every stream whose token or session has ended: one was just taken back."""
        for client in self._clients:
            client.end_if_over(now_ns)

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
            (event for ring in rings for event in ring.events if event.n > seen and not event.stale and client.wants(event)),
            key=lambda e: e.n,
        )
        gone = any(seen < ring.evicted for ring in rings)
        return Resume(seen, tuple(missed), "events after the last id are no longer kept" if gone else "")

    def close(self) -> None:
        """End every stream, and every wait for an escalation, now. Later streams end at once."""
        self.closed = True
        if self._round is not None:
            self._round.cancel()
        for client in self._clients:
            client.end("shutdown")
