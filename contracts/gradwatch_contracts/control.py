"""Levels, escalations and the desired state that travels to the agent.

The daemon sends what should hold (`Desired`), never a change: repeats and reordering are then harmless, and an agent
that reconnects is right after one message. The agent owns the countdowns and reports what became of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable


class Level(IntEnum):
    """A named set of collectors. The next one up contains the one below."""

    OFF = 0
    MINIMAL = 1
    NORMAL = 2
    DEBUG = 3


class Severity(str, Enum):
    """How bad. `info` is for the record only and never escalates."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0, 1, 2: for comparing."""
        return list(Severity).index(self)


class ControlState(str, Enum):
    """Life of an escalation or a command. Only a RESULT of the agent makes it applied, ended or rejected.

    `rejected`: refused or failed, with the reason. `expired`: not begun before its deadline. `superseded`: another took its
    place. `lost`: the trainer was gone before it could answer.
    """

    REQUESTED = "requested"
    DELIVERED = "delivered"
    APPLIED = "applied"
    ENDED = "ended"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def open(self) -> bool:
        """Whether anything may still become of it."""
        return self in (ControlState.REQUESTED, ControlState.DELIVERED, ControlState.APPLIED)


class Verb(str, Enum):
    """What every run may be asked for, where its agent declares it. A trainer may declare words of its own besides."""

    STOP = "stop"
    CHECKPOINT = "checkpoint"
    DUMP = "dump"
    PROFILE = "profile"


CANCEL = "cancel"
"""The verb that takes the command of the same id back. Never declared: every agent knows it."""


@dataclass(frozen=True, slots=True)
class RankState:
    """How one rank stands to an escalation or a command; `update` is that of its last word, None before any, and `applied` that
    at which it began."""

    rank: int
    state: ControlState
    update: int | None = None
    reason: str = ""
    applied: int | None = None


@dataclass(frozen=True, slots=True)
class Active:
    """One open escalation as the agent is told it: raise to `level` for `updates` updates from when it applies, which is not
    before update `not_before`: so all ranks of a run can begin at the same one."""

    id: str
    level: Level
    updates: int
    not_before: int = 0


@dataclass(frozen=True, slots=True)
class Desired:
    """What should hold for a run. `revision` grows with every change; the agent ignores an older one. Base and pin hold from
    update `not_before` on, so that all ranks change at the same one; until then what held before."""

    revision: int
    base: Level = Level.NORMAL
    pin: Level | None = None
    active: tuple[Active, ...] = ()
    not_before: int = 0


def effective_level(base: Level, pin: Level | None, active: Iterable[Level]) -> Level:
    """The level that holds: the pin if there is one, else the highest of base and the active escalations."""
    return pin if pin is not None else max((base, *active))


def parse_level(value: object, where: str = "level", least: Level = Level.OFF) -> Level:
    """Read a level of `least` or above from its name in any case or from its number.

    Raises:
        GradwatchError: `invalid-argument`, naming the levels that would do and the nearest of them.
    """
    takes = [level.name for level in Level if level >= least]
    got = repr(value)[:40]
    if isinstance(value, str):
        if value.upper() in takes:
            return Level[value.upper()]
        hint = nearest(value.upper(), takes)
        got = f"{value[:40]!r} (did you mean {hint.lower()}?)" if hint else repr(value[:40])
    elif isinstance(value, int) and not isinstance(value, bool) and least <= value <= max(Level):
        return Level(value)
    expected = f"{', '.join(takes[:-1])} or {takes[-1]}".lower()
    raise GradwatchError("invalid-argument", where=where, expected=expected, got=got, next_step="Use one of these words.")
