"""What the daemon wants of this process, and what of it holds: levels, escalations and their countdowns.

The link thread stores what should hold; the trainer thread makes it hold, only at update boundaries. Pure; no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gradwatch_contracts import limits
from gradwatch_contracts.control import Active, Desired, Level, effective_level

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDED_MAX = 4096
"""Ids of ended and refused escalations remembered, newest kept: 64 can be open at once, so none comes back by then."""

TOO_MANY = f"more than {limits.ESCALATIONS_ACTIVE_MAX} escalations at once"


@dataclass(frozen=True, slots=True)
class ResultNote:
    """What became of escalation `id` at `update`, for `Outbox.put_result`: `applied`, `ended` or `rejected`, and the reason."""

    id: str
    state: str
    update: int
    reason: str = ""


class DesiredState:
    """The level of this process.

    `receive` belongs to the link thread, `boundary` to the trainer thread; they meet in attributes, each assigned whole.
    An id is applied at most once in the life of this object and lasts exactly `Active.updates` boundaries, whatever
    the daemon does meanwhile, unless it vanishes from what the daemon wants.
    """

    __slots__ = ("_base", "_ended", "_held", "_left", "_level", "_running", "_too_many", "settled", "wanted")

    def __init__(self, base: Level) -> None:
        self._base = base
        self._level = base
        self.wanted = Desired(revision=0, base=base)
        """What the daemon wants, as it was last told."""
        self._too_many: tuple[str, ...] = ()
        self._held: tuple[Level, Level | None] = base, None
        self._running: dict[str, Active] = {}
        self._left: dict[str, int] = {}
        self._ended: dict[str, None] = {}
        self.settled: Desired | None = None
        """What was wanted at the last boundary, while that asks for no escalation and none runs. As long as it is what is
        wanted now, nothing can change, and `boundary` need not be called."""

    @property
    def level(self) -> Level:
        """The level of the update that is running."""
        return self._level

    def receive(self, desired: Desired, *, welcome: bool = False) -> None:
        """Take over what should hold, if it is newer; that of a WELCOME always, since a new store counts from 0 again.

        Escalations beyond `limits.ESCALATIONS_ACTIVE_MAX`, which no honest daemon has, are refused, as many of them at a time.
        """
        if welcome or desired.revision > self.wanted.revision:
            most = limits.ESCALATIONS_ACTIVE_MAX
            self._too_many = tuple(active.id for active in desired.active[most : 2 * most])
            self.wanted = replace(desired, active=desired.active[:most])

    def boundary(self, update: int) -> tuple[Level, list[ResultNote]]:
        """Return the level that `update`, about to begin, is collected at, and what changed with it.

        `applied` at U says that U is the first update collected wholly at the level; `ended` at V that V is the first
        one without, so V - U is `Active.updates` when the reason is `done`. `cancelled`: the daemon wants it no longer.
        One waits for its `not_before`, so that all ranks begin with it alike; a rank that is past that begins at once. So do
        base and pin. One above a pin waits for the pin to go, since it could not hold; one that runs already counts on.
        A revision of 0 says nothing of the base: then the one given at the start holds.
        """
        wanted = self.wanted
        if wanted is self.settled:
            return self._level, []
        if update >= wanted.not_before:
            self._held = wanted.base if wanted.revision > 0 else self._base, wanted.pin
        base, pin = self._held
        listed = {active.id: active for active in wanted.active}
        notes = [ResultNote(id_, "ended", update, why) for id_, why in self._finish(listed).items()]
        notes += self._refuse(update)
        for id_, active in listed.items():
            if id_ in self._running or id_ in self._ended or update < active.not_before:
                continue
            if pin is not None and pin < active.level:
                continue
            self._running[id_], self._left[id_] = active, active.updates
            notes.append(ResultNote(id_, "applied", update))
        self._level = effective_level(base, pin, [active.level for active in self._running.values()])
        quiet = update >= wanted.not_before and not (wanted.active or self._running)
        self.settled = wanted if quiet else None
        return self._level, notes

    def _finish(self, listed: Mapping[str, Active]) -> dict[str, str]:
        """Count one update down and take out what is over: id → why."""
        over = {}
        for id_ in self._running:
            self._left[id_] -= 1
            if self._left[id_] <= 0:
                over[id_] = "done"
            elif id_ not in listed:
                over[id_] = "cancelled"
        for id_ in over:
            del self._running[id_], self._left[id_]
            self._remember(id_)
        return over

    def _refuse(self, update: int) -> list[ResultNote]:
        """Answer for what is too many, each once."""
        if not self._too_many:
            return []
        refused = [id_ for id_ in dict.fromkeys(self._too_many) if id_ not in self._running and id_ not in self._ended]
        self._too_many = ()
        for id_ in refused:
            self._remember(id_)
        return [ResultNote(id_, "rejected", update, TOO_MANY) for id_ in refused]

    def _remember(self, id_: str) -> None:
        self._ended[id_] = None
        if len(self._ended) > ENDED_MAX:
            del self._ended[next(iter(self._ended))]
