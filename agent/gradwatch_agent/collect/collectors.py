"""Which collectors run in an update: those not switched off, and not resting to stay within the budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gradwatch_contracts.collectors import COLLECTORS
from gradwatch_contracts.columns import Status
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from gradwatch_agent.collect.host import Tally
    from gradwatch_contracts.control import Level


@dataclass(slots=True)
class Switches:
    """Which collectors run: not those that are `off` for good, nor those that rest in this update to stay within the budget.

    A collector that asks `on` in every update and says by `charge` what it took may be told to rest. `periods`: of those that
    run by themselves in every so many-th update only, or when that is possible again.
    """

    off: frozenset[str] = frozenset()
    resting: frozenset[str] = frozenset()
    spent_ns: dict[str, int] = field(default_factory=dict)
    periods: dict[str, int] = field(default_factory=dict)

    def on(self, name: str) -> bool:
        """Whether a collector runs in this update."""
        return name not in self.off and name not in self.resting

    def charge(self, name: str, ns: int, period: int = 1) -> None:
        """Say what a collector took of the trainer's thread, and in how many updates it takes that once."""
        self.spent_ns[name] = self.spent_ns.get(name, 0) + ns
        if period > 1:
            self.periods[name] = period

    def take_spent_ns(self) -> dict[str, int]:
        """What each took since the last call."""
        spent, self.spent_ns = self.spent_ns, {}
        return spent

    def refuse(self, tally: Tally, level: Level) -> None:
        """Say of each column without a subject why it is missing, in an update at `level`."""
        for name in self.off:
            for column in COLLECTORS[name].columns:
                if COLUMNS[column].level <= level and not COLUMNS[column].per:
                    tally.refuse(column, Status.SWITCHED_OFF)
