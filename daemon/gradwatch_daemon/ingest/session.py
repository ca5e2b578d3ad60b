"""Who is connected, and which of their records count. Pure: the clock is an argument, sockets are elsewhere.

A session is one process; a peer is one connection of it. Records carry consecutive sequence numbers, so the next one
expected is all the state that exactly-once needs: smaller is a duplicate, larger a gap.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gradwatch_contracts import limits
from gradwatch_daemon.records import Session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gradwatch_contracts.columns import Schema
    from gradwatch_contracts.messages import Hello
    from gradwatch_daemon.records import Stream


@dataclass(slots=True)
class LiveSession:
    """One connected process. `last_seq` is accepted, `acked_seq` was told to the agent after its commit (-1: none)."""

    id: str
    peer: bytes
    stream: Stream
    hello: Hello
    last_seq: int
    acked_seq: int
    heard_s: float
    schemas: dict[str, Schema] = field(default_factory=dict)
    asked_to_resend: bool = False
    gone: bool = False
    """Whether its process is known to have ended; what it sent before may still come."""

    @property
    def record(self) -> Session:
        """What is stored of it."""
        hello = self.hello
        return Session(self.id, self.stream, hello.launch_id, self.last_seq, hello.host, hello.pid, hello.verbs)

    def learn(self, schema: Schema) -> None:
        """Remember a schema that rows will name."""
        self.schemas[schema.id] = schema
        if len(self.schemas) > SCHEMAS_MAX:
            del self.schemas[next(iter(self.schemas))]

    def accept(self, first_seq: int, count: int) -> int | None:
        """How many of `count` records from `first_seq` are duplicates to skip; None for a gap before them.

        Moves `last_seq` over the rest.
        """
        if first_seq > self.last_seq + 1:
            return None
        skip = min(count, self.last_seq + 1 - first_seq)
        self.last_seq = max(self.last_seq, first_seq + count - 1)
        self.asked_to_resend = False
        return skip


@dataclass(slots=True)
class Misconduct:
    """Bad frames of one peer: `errors` at `last_s`, one forgiven every `FORGIVE_S`, and until when it is ignored."""

    errors: float = 0.0
    last_s: float = 0.0
    until_s: float = 0.0


class Sessions:
    """The live sessions, by id and by peer, and the peers that misbehave."""

    def __init__(self) -> None:
        self.by_id: dict[str, LiveSession] = {}
        self._by_peer: dict[bytes, LiveSession] = {}
        self._by_attempt: dict[tuple[str, int], dict[str, LiveSession]] = {}
        self._held: dict[bytes, int] = {}
        self._misconduct: dict[bytes, Misconduct] = {}

    def of_peer(self, peer: bytes) -> LiveSession | None:
        """The session this connection greeted with, if any."""
        return self._by_peer.get(peer)

    def open(self, session: LiveSession) -> None:
        """Register; a reconnect of the same process replaces its old connection."""
        old = self.by_id.get(session.id)
        if old is not None:
            self._by_peer.pop(old.peer, None)
            self._forget(old)
        self.by_id[session.id] = session
        self._by_peer[session.peer] = session
        self._by_attempt.setdefault((session.stream.run, session.stream.attempt), {})[session.id] = session
        self._held[session.peer] = self._held.get(session.peer, 0) + 1

    def close(self, session: LiveSession) -> None:
        """Forget a session that said BYE or fell silent; not the newer connection of the same process."""
        if self.by_id.get(session.id) is session:
            del self.by_id[session.id]
            self._forget(session)
        if self._by_peer.get(session.peer) is session:
            del self._by_peer[session.peer]

    def _forget(self, session: LiveSession) -> None:
        """Take a session out of the counts."""
        of_attempt = session.stream.run, session.stream.attempt
        others = self._by_attempt[of_attempt]
        del others[session.id]
        if not others:
            del self._by_attempt[of_attempt]
        self._held[session.peer] -= 1
        if not self._held[session.peer]:
            del self._held[session.peer]

    def is_full(self, peer: bytes, session: str) -> bool:
        """Whether a connection has opened as many sessions as it may, and this is yet another one."""
        known = self.by_id.get(session)
        return self._held.get(peer, 0) >= limits.SESSIONS_OF_PEER_MAX and (known is None or known.peer != peer)

    def of_attempt(self, run: str, attempt: int) -> list[LiveSession]:
        """The live sessions of one attempt: what a process of an older one says or hears no longer counts."""
        return list(self._by_attempt.get((run, attempt), {}).values())

    def count(self, run: str, attempt: int) -> int:
        """How many live sessions one attempt has."""
        return len(self._by_attempt.get((run, attempt), {}))

    def silent(self, now_s: float) -> list[LiveSession]:
        """Sessions not heard for `HEARTBEATS_MISSED_MAX` heartbeats, or `GONE_S` after their process ended."""
        limit_s = limits.HEARTBEAT_S * limits.HEARTBEATS_MISSED_MAX
        return [s for s in self.by_id.values() if now_s - s.heard_s > (GONE_S if s.gone else limit_s)]

    def hear(self, peers: Iterable[bytes], now_s: float) -> None:
        """Something of these has arrived and waits: whom we have not read yet is not silent."""
        for peer in peers:
            session = self._by_peer.get(peer)
            if session is not None:
                session.heard_s = now_s

    def quarantined(self, peer: bytes, now_s: float) -> bool:
        """Whether frames of this peer are to be ignored now."""
        record = self._misconduct.get(peer)
        return record is not None and record.until_s > now_s

    def blame(self, peer: bytes, now_s: float) -> bool:
        """Count a bad frame; returns whether the peer is quarantined by it."""
        if len(self._misconduct) >= _MISCONDUCT_MAX:
            self._misconduct.pop(next(iter(self._misconduct)))
        record = self._misconduct.setdefault(peer, Misconduct(last_s=now_s))
        # By time and not by good frames in between: a PING costs a vandal nothing.
        record.errors = max(0.0, record.errors - (now_s - record.last_s) / FORGIVE_S) + 1
        record.last_s = now_s
        if record.errors >= limits.PROTOCOL_ERRORS_MAX:
            record.errors, record.until_s = 0.0, now_s + limits.QUARANTINE_S
            return True
        return False


GONE_S = 0.25
"""What a process that ended has sent is read within milliseconds; a flood of others may be before it."""

FORGIVE_S = 10.0
"""Time after which one bad frame of a peer is forgiven: an honest agent behind a bad cable stays welcome."""

SCHEMAS_MAX = 64
"""Schemas remembered per connection, oldest forgotten first. An agent has a handful; one that comes back to a forgotten
one is told and sends it again."""

_MISCONDUCT_MAX = 4096
"""Peers remembered for bad frames: each new connection has a new id, so the list needs a bound."""
