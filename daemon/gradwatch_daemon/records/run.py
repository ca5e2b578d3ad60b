"""A run, its sessions, how its detectors stand, and the picture of it that HTTP is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradwatch_contracts.control import Level
    from gradwatch_contracts.messages import Scalar
    from gradwatch_daemon.records.anomaly import Anomaly
    from gradwatch_daemon.records.blocks import F32, U8, SignalBlock, SignalKey, Stream
    from gradwatch_daemon.records.commands import Allowance


@dataclass(frozen=True, slots=True)
class Run:
    """A run: its newest attempt's HELLO and its life. `state`: live, lost, finished, stopped, crashed or imported."""

    run: str
    attempt: int
    launch_id: str
    group: str
    tags: Mapping[str, str]
    labels: Mapping[str, str]
    config: Mapping[str, Scalar]
    updates_total: int | None
    world: int
    state: str
    base: Level
    pin: Level | None
    revision: int
    first_seen_ns: int
    last_seen_ns: int
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """One connected process and the last of its records that is committed or covered by a LOSS (-1 for none)."""

    session: str
    stream: Stream
    launch_id: str
    last_seq: int
    host: str
    pid: int
    verbs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DetectorState:
    """How one detector stands in a run: `state` is armed, learning, blind or firing; `reason` says why, and what to add."""

    kind: str
    subject: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Newest:
    """The newest judged row: `values` f32[signals] and `status` u8[signals] as in `SignalBlock`, the trainer's time of the
    row and ours when it came, both unix ns. Not kept over a restart."""

    signals: tuple[SignalKey, ...]
    values: F32
    status: U8
    t_ns: int
    received_ns: int

    @classmethod
    def of(cls, block: SignalBlock, received_ns: int) -> Newest:
        """The last row of a block, copied: a view would keep the whole block in memory."""
        return cls(block.signals, block.values[:, -1].copy(), block.status[:, -1].copy(), int(block.t_ns[-1]), received_ns)


@dataclass(frozen=True, slots=True)
class RunView:
    """The immutable picture of a run for HTTP. `effective` is what the agent last confirmed, `state` may be slow or stalled; of
    `thinned` of its `rows` only roll-ups are left; `beside` are older attempts whose trainers live all the same; `raised` are
    the levels that open escalations ask for, and base and pin hold from update `level_from` on."""

    run: Run
    live: bool
    sessions: int
    update_last: int | None
    effective: Level | None
    rows: int
    lost: int
    detectors: tuple[DetectorState, ...] = ()
    open_anomalies: tuple[Anomaly, ...] = ()
    agent_version: str = ""
    verbs: tuple[str, ...] = ()
    allowance: Allowance | None = None
    thinned: int = 0
    state: str = ""
    evidence: str = ""
    newest: Newest | None = field(default=None, compare=False)
    beside: tuple[int, ...] = ()
    raised: frozenset[Level] = frozenset()
    level_from: int = 0


AWAY_S = 60.0
"""How long the trainer of a lost run may be away before the run is over. After a start as well: then a run that was live and
whose trainer does not come back is told of as lost."""

FINAL = ("crashed", "finished", "stopped", "imported")
"""States in which a run is over: what its channels were told of then is resolved."""


def is_over(view: RunView, now_ns: int) -> bool:
    """Whether nothing more is to be expected of a run, at `now_ns` (unix): what stood at its end is not going on."""
    return has_ended(view.state or view.run.state, view.run.last_seen_ns, now_ns)


def has_ended(state: str, last_seen_ns: int, now_ns: int) -> bool:
    """`is_over` of a run in this state that was last seen at `last_seen_ns` (unix)."""
    return state in FINAL or (state == "lost" and now_ns - last_seen_ns >= AWAY_S * 1e9)


OWN_NAME = "give each trainer its own: gradwatch run --run NAME, or GRADWATCH_RUN_ID"


def describe_beside(attempts: tuple[int, ...], newest: int) -> str:
    """What a person has to know of older `attempts` whose trainers live beside the newest; '' for none."""
    if not attempts:
        return ""
    words = ", ".join(map(str, attempts))
    subject = f"Attempt {words} still trains" if len(attempts) == 1 else f"Attempts {words} still train"
    return f"{subject} beside attempt {newest} under this name; {OWN_NAME}."
