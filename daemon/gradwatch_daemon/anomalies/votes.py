"""One detector on one subject through time: votes, onset, clear streak. Pure; knows nothing of causes.

Intuition, after Prometheus: a single odd update is not yet a finding, and a finding is not over at the first quiet
update. The clock is the update number. An update the detector could not judge says nothing: it neither votes nor
counts as quiet, so a finding stays open while its detector is blind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.control import Severity
from gradwatch_daemon.records import Verdict

if TYPE_CHECKING:
    from gradwatch_daemon.records.rules import Rule

INFO = Severity.INFO.rank
_BREACH, _HOLD, _CLEAR = int(Verdict.BREACH), int(Verdict.HOLD), int(Verdict.CLEAR)


class Change(Enum):
    """What one update did to a finding. REPLACED: an info finding became a graver one, which may
    have another onset and another cause."""

    NONE = "none"
    FIRED = "fired"
    GREW = "grew"
    LIFTED = "lifted"
    REPLACED = "replaced"
    OVER = "over"


@dataclass(slots=True)
class Track:
    """State of one (kind, subject). `recent` are the breaches within the longest vote: (update, severity rank).

    While `rank` is not -1 a finding fires: `onset` its first breach, `last` the newest, `count` the updates in breach,
    `quiet` the clear updates in a row, `anomaly` the id of the anomaly it belongs to.
    """

    recent: list[tuple[int, int]] = field(default_factory=list)
    rank: int = -1
    onset: int = -1
    last: int = -1
    count: int = 0
    quiet: int = 0
    anomaly: str = ""

    @property
    def firing(self) -> bool:
        """Whether a finding is open."""
        return self.rank >= 0

    @property
    def idle(self) -> bool:
        """Whether rows without a breach cannot change it."""
        return self.rank < 0 and not self.recent

    def advance(self, update: int, code: int, rank: int, rule: Rule) -> Change:
        """Take one update's verdict."""
        longest = max(vote.n for vote in rule.votes)
        if self.recent:
            # After a trainer went back, votes of updates to come are of a past that did not happen.
            self.recent = [vote for vote in self.recent if update - longest < vote[0] <= update]
        if code == _BREACH:
            return self._breach(update, rank, rule)
        if self.firing and code == _HOLD:
            self.quiet = 0
        elif self.firing and code == _CLEAR:
            self.quiet += 1
            if self.quiet >= rule.keep_firing:
                self.reset()
                return Change.OVER
        return Change.NONE

    def reset(self) -> None:
        """The finding is over; what led to it cannot lead to the next."""
        self.recent = []
        self.rank = self.onset = self.last = -1
        self.count = self.quiet = 0
        self.anomaly = ""

    def _breach(self, update: int, rank: int, rule: Rule) -> Change:
        self.recent.append((update, rank))
        gives, onset, count = self._poll(update, rule)
        if not self.firing:
            if gives < 0:
                return Change.NONE
            self.rank, self.onset, self.count = gives, onset, count
            change = Change.FIRED
        elif gives > self.rank and self.rank == INFO:
            self.rank, self.onset, self.count = gives, onset, count
            change = Change.REPLACED
        else:
            self.count += 1
            change = Change.LIFTED if gives > self.rank else Change.GREW
            self.rank = max(self.rank, gives)
        self.last, self.quiet = update, 0
        return change

    def _poll(self, update: int, rule: Rule) -> tuple[int, int, int]:
        """Gravest severity the votes give now (-1 for none), the first breach that counted for it, and how many did."""
        best = (-1, -1, 0)
        for vote in rule.votes:
            counted = [u for u, rank in self.recent if rank >= vote.at.rank and u > update - vote.n]
            if len(counted) >= vote.k and vote.gives.rank > best[0]:
                best = (vote.gives.rank, counted[0], len(counted))
        return best

    def state(self) -> list[Any]:
        """Everything it remembers, as plain values."""
        recent = [list(vote) for vote in self.recent]
        return [recent, self.rank, self.onset, self.last, self.count, self.quiet, self.anomaly]

    @classmethod
    def restored(cls, state: list[Any]) -> Track:
        """The track that gave this `state`."""
        recent, *rest = state
        return cls([(update, rank) for update, rank in recent], *rest)
