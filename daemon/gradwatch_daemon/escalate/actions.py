"""What the daemon would do to a job by itself, and whether it may: every action is a shadow until somebody enables it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_contracts.control import Severity, Verb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gradwatch_daemon.records import Anomaly


@dataclass(frozen=True, slots=True)
class Action:
    """Ask for `verb` when an anomaly of one of `kinds` (any, where there are none) fires at `severity` or worse. Where it is
    not `enabled`, only what it would have done is written down."""

    verb: str
    severity: Severity = Severity.CRITICAL
    kinds: tuple[str, ...] = ()
    enabled: bool = False

    @property
    def when(self) -> str:
        """In words."""
        return f"{self.severity.value} {' or '.join(self.kinds) if self.kinds else 'anomaly of any kind'}"


SHADOWS = (Action(Verb.CHECKPOINT.value), Action(Verb.STOP.value, kinds=("nonfinite",)))
"""Watched from the start, so that who thinks of enabling one knows what it would have done: a run whose loss is NaN learns
nothing more, and before anything critical goes on the weights may be worth keeping."""


def due(actions: Iterable[Action], anomaly: Anomaly) -> Iterator[Action]:
    """Those that an anomaly asks for, while it fires."""
    if anomaly.state != "firing":
        return
    for action in actions:
        if anomaly.severity.rank >= action.severity.rank and (not action.kinds or anomaly.kind in action.kinds):
            yield action
