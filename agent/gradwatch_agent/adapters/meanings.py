"""What a script logs as what it is: a tag that a known program gives to a number becomes our signal, where the number is it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gradwatch_contracts.dialects import UNKNOWN, dialect_of
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from gradwatch_contracts.dialects import Dialect, Meaning

TAGS_MAX = 1024
"""Tags remembered while it is not known whose they are."""


class Meanings:
    """The scalars of an update by their tags. Whose they are is known once all marks of a program have been logged."""

    def __init__(self) -> None:
        self.dialect: Dialect = UNKNOWN
        self._tags: set[str] = set()
        self._values: dict[str, float] = {}
        self._read: dict[str, str] = {}

    def see(self, tag: str, value: float) -> None:
        """A number was logged; the last one of an update counts."""
        self._values[tag] = value
        if self.dialect is UNKNOWN and tag not in self._tags and len(self._tags) < TAGS_MAX:
            self._tags.add(tag)
            self.dialect = dialect_of(self._tags)

    def take(self) -> dict[str, float]:
        """Signals and counts of the update that ends."""
        values, self._values = self._values, {}
        found: dict[str, float] = {}
        for tag, value in values.items():
            meaning = self.dialect.keys.get(tag)
            late = self.dialect.late and tag.startswith(self.dialect.late)  # written with the next update's
            if meaning is None or late or tag == self.dialect.episode:
                continue
            if meaning.signal:
                self._read[tag] = meaning.signal
                if not math.isnan(value) or meaning.signal in COLUMNS:
                    found[meaning.signal] = meaning.sign * value
            if _proves_fault(meaning, value):
                found[meaning.nonfinite] = found.get(meaning.nonfinite, 0.0) + 1.0
        return found

    @property
    def sentence(self) -> str:
        """Which tags were read as what, '' where none was."""
        pairs = ", ".join(f"{tag} is {signal}" for tag, signal in self._read.items())
        return f"scalars of {self.dialect.name}: {pairs}" if pairs else ""


def _proves_fault(meaning: Meaning, value: float) -> bool:
    """One non-finite number is the least there were; of the others the script says nothing, and nor do we."""
    return bool(meaning.nonfinite) and (math.isnan(value) or (meaning.infinite and math.isinf(value)))
