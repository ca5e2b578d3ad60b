"""What is asked of a run: escalations and commands as the pipeline, the store and the API know them, and the requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

from gradwatch_contracts.limits import CONTROL_EXPIRES_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradwatch_contracts.control import ControlState, Level, RankState
    from gradwatch_contracts.messages import Scalar


@dataclass(frozen=True, slots=True)
class ArtifactRecord:
    """A file that came for a command: its name, and its size in bytes."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """One command and what became of it. `origin` is `anomaly:ID` or `operator`; times are unix ns.

    `rank` is the one it is for, None for all; `ranks` are those that were asked, each with its own word. `state` sums them up:
    applied when all have begun, ended when all have done it. `not_before` is the update from which on it may be done.
    """

    id: str
    run: str
    verb: str
    args: Mapping[str, Scalar]
    origin: str
    reason: str
    state: ControlState
    requested_ns: int
    expires_ns: int
    rank: int | None = None
    not_before: int = 0
    update_applied: int | None = None
    update_ended: int | None = None
    ended_why: str = ""
    ranks: tuple[RankState, ...] = ()
    artifact: ArtifactRecord | None = None


@dataclass(frozen=True, slots=True)
class Escalation:
    """A time-boxed raise of the level. `origin` is `anomaly:ID` or `operator`; times are unix ns.

    `state` sums up `ranks`, the word of each that was told; `expires_ns` is when it is given up unless it was begun, 0 never.
    `kind` is that of the anomaly in whose name it was asked for, '' for an operator's.
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
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What rules have `spent` of the updates they `may` hold the level for in the last `window`; `refill` is the update from
    which on there is room for what was refused last, None where nothing was, or there never is."""

    spent: int
    may: int
    window: int
    refill: int | None


OPERATOR = "operator"

ANOMALY_ORIGIN = "anomaly:"
"""What the origin of an escalation in an anomaly's name begins with; the anomaly's id follows."""

"""Origin of what a person, or a program of theirs, asked for over HTTP."""


@dataclass(frozen=True, slots=True)
class RequestCommand:
    """Ask a run, or one rank of it, for something. The same id with the same content again is the same request."""

    run: str
    id: str
    verb: str
    args: Mapping[str, Scalar] = field(default_factory=dict)
    reason: str = ""
    rank: int | None = None
    expires_s: float = CONTROL_EXPIRES_S


@dataclass(frozen=True, slots=True)
class CancelCommand:
    """Take a command back."""

    run: str
    id: str


@dataclass(frozen=True, slots=True)
class RequestEscalation:
    """HTTP → pipeline: raise a run. The same id with the same content again is the same request."""

    run: str
    id: str
    level: Level
    updates: int
    reason: str
    expires_s: float = CONTROL_EXPIRES_S
    origin: str = "operator"


@dataclass(frozen=True, slots=True)
class CancelEscalation:
    """HTTP → pipeline: end an escalation early."""

    run: str
    id: str


@dataclass(frozen=True, slots=True)
class Calm:
    """Take back every escalation of a run and let go of its pin."""

    run: str


@dataclass(frozen=True, slots=True)
class SetLevel:
    """Change the level that holds without escalations, and the pin. None leaves one as it is; `unpin` lets go of the pin.

    `revision` is that of the level as whoever asks has seen it: with another in force the request is refused. None: any.
    """

    run: str
    base: Level | None = None
    pin: Level | None = None
    unpin: bool = False
    revision: int | None = None


CommandRequest = Union[RequestCommand, CancelCommand]
LevelRequest = Union[RequestEscalation, CancelEscalation, Calm, SetLevel]
ControlRequest = Union[CommandRequest, LevelRequest]
