"""What is told to people who are not looking, as plain records: one delivery for each notification and channel."""

from __future__ import annotations

from dataclasses import dataclass

RUN_DOWN = "run_down"
"""Kind of what is told of a run. One for all of its states: what fires and what is resolved must have the same name."""


STORE_DOWN = "store_down"
"""Kind of what is told of the daemon's own store, past the store: it is in no log."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One notification to one channel, from its making to its end; `id` grows with time.

    `subject` is the id of an anomaly, or `RUN/ATTEMPT` for how a run is; `event` is `firing` or `resolved`; `body` the JSON
    document that is sent. `state`: pending, delivered, failed (given up), dropped (too many were pending) or muted, by
    `silence`. `answer` is what the receiver said last, or why nothing was sent. Times are unix ns.
    """

    id: str
    channel: str
    subject: str
    event: str
    severity: str
    run: str
    made_ns: int
    body: str
    state: str
    attempts: int = 0
    changed_ns: int = 0
    answer: str = ""
    silence: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Channel → pipeline: what became of an attempt to deliver. `state`: pending (it is tried again), delivered, failed."""

    id: str
    state: str
    attempts: int
    answer: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Tried:
    """What came back from a notification that was sent to try a channel."""

    channel: str
    kind: str
    ok: bool
    answer: str
    took_ms: float


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel as it is configured, with neither its secret nor what its address may hold of one."""

    name: str
    kind: str
    address: str
    severity: str
