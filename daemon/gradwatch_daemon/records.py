"""The frozen records that stages hand to each other, and the mailbox from HTTP to the pipeline thread.

Blocks are column-major: one array per field over `n` consecutive updates of one stream, never one object per sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradwatch_contracts.columns import Schema
    from gradwatch_contracts.control import ControlState, Level, RankState, Severity
    from gradwatch_contracts.messages import Scalar
    from gradwatch_daemon.attention import Attention, Silence
    from gradwatch_daemon.commands import Allowance, CommandRecord
    from gradwatch_daemon.notices import Delivery

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


class Stream(NamedTuple):
    """What a row belongs to, besides its update."""

    run: str
    attempt: int
    rank: int

    @property
    def rank_shown(self) -> int | None:
        """The rank for people and programs; None where it stands for all ranks together."""
        return None if self.rank == ALL_RANKS else self.rank


ALL_RANKS = -1
"""The rank of rows that are combined over the ranks of a run; detection runs on these where there is more than one."""


class SignalKey(NamedTuple):
    """A signal of the registry and the head, layer or key it is about ('' for none)."""

    name: str
    subject: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class RowBlock:
    """Rows of one session as they came: `values` f64[n, slots], `status` u8[n, columns]; `seqs` of the first and last row."""

    stream: Stream
    session: str
    seqs: tuple[int, int]
    schema: Schema
    update: I64
    t_ns: I64
    env_steps: I64
    level: U8
    flags: U8
    values: F64
    status: U8


@dataclass(frozen=True, slots=True, eq=False)
class SignalBlock:
    """Derived signals of n updates: `values` f32[signals, n] and `status` u8[signals, n] (a `columns.Status`).

    Where `status` is not 0, `values` holds 0 and must not be read. A finite f64 beyond the f32 range is stored as the
    largest finite f32 of its sign, so that storage never makes an infinity.
    """

    stream: Stream
    update: I64
    t_ns: I64
    env_steps: I64
    level: U8
    flags: U8
    signals: tuple[SignalKey, ...]
    values: F32
    status: U8

    def __len__(self) -> int:
        return len(self.update)

    def select(self, part: slice) -> SignalBlock:
        """The same signals over a part of the updates."""
        return SignalBlock(
            self.stream,
            self.update[part],
            self.t_ns[part],
            self.env_steps[part],
            self.level[part],
            self.flags[part],
            self.signals,
            self.values[:, part],
            self.status[:, part],
        )


class Verdict(IntEnum):
    """What a detector says of one update. HOLD is between the clear level and the limit."""

    CLEAR = 0
    HOLD = 1
    BREACH = 2
    LEARNING = 3
    BLIND = 4


Numbers = Union[NDArray[Any], tuple[float, ...]]
"""One number for each row of a block: an array, or a tuple of one where the block is one row (an array costs more to make
than all there is to do with it)."""


class Verdicts(NamedTuple):
    """One detector on one subject over the n rows of a block.

    `code` is n bytes of `Verdict`. The rest says something only where that is BREACH: `severity` is the rank of the severity;
    `value`, `limit`, `baseline` are the numbers behind it (NaN where there is none); `minibatch` is where in the update,
    -1 for before the first; `stage` the causal order of the stage. `reason` says why the last row is blind or how far
    learning is. `about` is the place of the rule's threshold whose words the sentence uses, () where its limit tells.
    """

    kind: str
    subject: str
    code: bytes
    severity: Numbers
    value: Numbers
    limit: Numbers
    baseline: Numbers
    minibatch: Numbers
    stage: Numbers
    reason: str = ""
    about: Numbers = ()


@dataclass(frozen=True, slots=True)
class Attached:
    """A finding explained by an anomaly's root, kept with its own numbers."""

    kind: str
    subject: str
    severity: Severity
    update_onset: int
    update_fired: int
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Findings of one cause in one run. `state` is pending, firing or resolved; `id` is a hash of its content.

    `value`, `limit` and `baseline` are those of the update that fired (`baseline` None where the rule has none).
    """

    id: str
    run: str
    attempt: int
    rank: int
    kind: str
    subject: str
    severity: Severity
    state: str
    update_onset: int
    update_fired: int
    update_last: int
    update_resolved: int | None
    count: int
    value: float
    limit: float
    baseline: float | None
    minibatch: int
    stage: str
    sentence: str
    attached: tuple[Attached, ...]
    tries: tuple[str, ...]
    rules_hash: str
    t_ns: int


@dataclass(frozen=True, slots=True)
class Escalation:
    """A time-boxed raise of the level. `origin` is `anomaly:ID` or `operator`; times are unix ns.

    `state` sums up `ranks`, the word of each that was told; `expires_ns` is when it is given up unless it was begun, 0 never.
    """

    id: str
    run: str
    level: Level
    updates: int
    origin: str
    reason: str
    state: ControlState
    requested_ns: int
    update_applied: int | None = None
    update_ended: int | None = None
    ended_why: str = ""
    ranks: tuple[RankState, ...] = ()
    expires_ns: int = 0


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
class EventRecord:
    """Something that happened in a run at an update: exception, agent_error, checkpoint, note, phase, level.

    The daemon makes two kinds itself, with seq -1, so that a replay detects on them again: `gap` (records that never
    came) and `tick` (a deadline that passed without an update). Their `detail` says behind which row of the stream. `ranks`
    is of the daemon too, for people: some rank is missing from the combined updates, or differs, from here on.
    """

    stream: Stream
    session: str
    seq: int
    update: int
    t_ns: int
    kind: str
    text: str
    detail: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class LossRecord:
    """Records that never came: `first_seq` to `last_seq` of a session, and why."""

    stream: Stream
    session: str
    first_seq: int
    last_seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class TableRecord:
    """One small table of an update: f64 bytes of len(index) x len(names), row-major."""

    stream: Stream
    session: str
    seq: int
    kind: str
    update: int
    index: tuple[str, ...]
    names: tuple[str, ...]
    values: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of detection and lifecycle of one stream after `update`, as opaque bytes of `format`."""

    stream: Stream
    update: int
    rules_hash: str
    state: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything one transaction writes. Anomalies, escalations, runs, sessions, attention and silences are upserts by key, and
    so is `waiting`: rows of ranks not combined yet, by the stream of the combined ones; empty bytes stand for none."""

    blocks: tuple[SignalBlock, ...] = ()
    runs: tuple[Run, ...] = ()
    sessions: tuple[Session, ...] = ()
    anomalies: tuple[Anomaly, ...] = ()
    escalations: tuple[Escalation, ...] = ()
    events: tuple[EventRecord, ...] = ()
    losses: tuple[LossRecord, ...] = ()
    tables: tuple[TableRecord, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    waiting: tuple[tuple[Stream, bytes], ...] = ()
    attention: tuple[Attention, ...] = ()
    silences: tuple[Silence, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    commands: tuple[CommandRecord, ...] = ()


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
    `thinned` of its `rows` only roll-ups are left."""

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


@dataclass(frozen=True, slots=True)
class Published:
    """Something to tell the streams of one topic (see `api.hub.TOPICS`), after it was committed; with an anomaly, what people
    did about it."""

    topic: str
    run: str
    payload: Union[Anomaly, Escalation, CommandRecord, RunView, SignalBlock, Silence]
    attention: Attention | None = None


@dataclass(slots=True)
class Counters:
    """What the daemon counts about itself since it started."""

    frames: int = 0
    rows: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    quarantines: int = 0
    commits: int = 0
    commit_failures: int = 0
