"""What every log is made of: numbers under a key at a step, in the order they were written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gradwatch_contracts.errors import GradwatchError

if TYPE_CHECKING:
    from pathlib import Path


class Point(NamedTuple):
    """One number. `value` may be NaN or infinite: then that was written. `wall_s` is unix seconds."""

    key: str
    step: int
    wall_s: float
    value: float


@dataclass(slots=True)
class Damage:
    """What could not be read, counted. `words` says it, one line each; `cut_short` is whether a file ended within a record,
    which is how every file ends whose writer was killed."""

    counts: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)
    cut_short: bool = False

    def __bool__(self) -> bool:
        return bool(self.counts or self.words)

    def lines(self) -> list[str]:
        """Everything, for a person."""
        return [*self.words, *(f"{count} {what}" for what, count in self.counts.items())]


@dataclass(slots=True)
class Log:
    """What one program wrote: for each attempt its points. `skipped` are keys that hold no numbers."""

    path: Path
    attempts: list[list[Point]]
    damage: Damage
    skipped: Counter[str] = field(default_factory=Counter)


def unreadable(path: Path, expected: str, got: str) -> GradwatchError:
    """The refusal of what is no log."""
    return GradwatchError("recording-unreadable", where=str(path), expected=expected, got=got)
