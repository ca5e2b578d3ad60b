"""Every message between agent and daemon, as frozen records. How they become bytes: `codec`.

Evolution is append-only: a new field has a default, unknown keys of a map are skipped, a field is never retyped.
`seq` numbers records (a row, a table, an event, a result), not messages, so a resend may batch differently.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

from gradwatch_contracts import limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradwatch_contracts.columns import Column
    from gradwatch_contracts.control import Desired

Scalar = Union[None, bool, int, float, str]
"""What `config`, `args` and `detail` may hold."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Agent → daemon, first on every connection. The same `session` again means the same process reconnected."""

    run: str
    launch_id: str
    session: str
    rank: int
    world: int
    host: str
    pid: int
    started_unix_ns: int
    group: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Scalar] = field(default_factory=dict)
    updates_total: int | None = None
    update_next: int = 0
    level: int = 2
    verbs: tuple[str, ...] = ()
    agent_version: str = ""
    secret: str = ""
    replay: bool = False


@dataclass(frozen=True, slots=True)
class Welcome:
    """Daemon → agent. `last_seq` is the last committed record of this session, -1 for none. `window_records` and
    `window_bytes` are the credit: what may be unacked at once."""

    attempt: int
    window_records: int
    last_seq: int
    desired: Desired
    daemon_version: str = ""
    window_bytes: int = limits.WINDOW_BYTES


@dataclass(frozen=True, slots=True)
class Refuse:
    """Daemon → agent: refused. `code` is a slug of the error table; when not `final`, it was about one frame only."""

    code: str
    detail: str = ""
    supported: tuple[int, ...] = ()
    final: bool = True


@dataclass(frozen=True, slots=True)
class Rehello:
    """Daemon → agent: I do not know you (I may have restarted); say HELLO again."""


@dataclass(frozen=True, slots=True)
class SchemaMessage:
    """Agent → daemon: the columns of the rows that will name this schema's id."""

    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """Agent → daemon: `n` consecutive rows of one schema; arrays are raw little-endian bytes.

    `update`, `t_ns`, `env_steps` (-1 = not given): i64[n]; `level`, `flags`: u8[n]; `values`: f64[n x slots] row-major;
    `status`: u8[n x columns], or None when every value was measured. `schema` is `Schema.id`.
    """

    first_seq: int
    n: int
    schema: str
    update: bytes
    t_ns: bytes
    env_steps: bytes
    level: bytes
    flags: bytes
    values: bytes
    status: bytes | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Agent → daemon: one small table of an update. `values` is f64[len(index) x len(names)] row-major."""

    seq: int
    kind: str
    update: int
    index: tuple[str, ...]
    names: tuple[str, ...]
    values: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """Agent → daemon: something that happened at `update`: exception, agent_error, checkpoint, note, phase, overhead."""

    seq: int
    kind: str
    update: int
    t_ns: int
    text: str = ""
    detail: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """Agent → daemon: what became of an escalation or command. `state`: applied, ended or rejected, at `update`."""

    seq: int
    id: str
    state: str
    update: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Loss:
    """Agent → daemon: records `first_seq` to `last_seq` will never come. The only thing that closes a gap."""

    first_seq: int
    last_seq: int
    reason: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """Agent → daemon: chunk `index` of `count` of a file."""

    seq: int
    id: str
    name: str
    index: int
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Bye:
    """Agent → daemon: this session ends. `last_seq` is the last record it made, -1 for none."""

    last_seq: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ack:
    """Daemon → agent: everything up to `seq` is committed or covered by a LOSS."""

    seq: int


@dataclass(frozen=True, slots=True)
class LevelMessage:
    """Daemon → agent: the desired state."""

    desired: Desired


@dataclass(frozen=True, slots=True)
class Command:
    """Daemon → agent: do `verb` once, at the first boundary after `not_before_update`, unless `expires_unix_ns` passed."""

    id: str
    verb: str
    args: Mapping[str, Scalar] = field(default_factory=dict)
    not_before_update: int = 0
    expires_unix_ns: int = 0


@dataclass(frozen=True, slots=True)
class Ping:
    """Either way, when idle. `t_ns` is the sender's own clock; PONG returns it."""

    t_ns: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to PING."""

    t_ns: int


Message = Union[
    Hello,
    Welcome,
    Refuse,
    Rehello,
    SchemaMessage,
    Samples,
    Table,
    Event,
    Result,
    Loss,
    Artifact,
    Bye,
    Ack,
    LevelMessage,
    Command,
    Ping,
    Pong,
]
