"""What the agent costs, and what is done about it: the governor is told of each update, and the run of what it decides."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gradwatch_agent.collect.host import LOGGER
from gradwatch_agent.governor import Governor
from gradwatch_contracts.collectors import COST, COSTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gradwatch_agent.collect.collectors import Switches
    from gradwatch_agent.governor import Taken
    from gradwatch_agent.outbox import Outbox
    from gradwatch_contracts.control import Level
    from gradwatch_contracts.messages import Scalar


class Overhead:
    """The governor of one run, what it decides for and whom it tells. An update begins with `begin` and ends with `judge`."""

    __slots__ = ("_governor", "_outbox", "_switches", "rests")

    def __init__(self, shares: Mapping[Level, float], switches: Switches, outbox: Outbox) -> None:
        self._governor, self._switches, self._outbox = Governor(shares), switches, outbox
        self.rests = False
        """Whether it was ever decided that a collector rests: until then there is nothing to `begin`."""

    def begin(self, update: int, level: Level) -> None:
        """Let rest in `update` who has to."""
        self._switches.resting = self._governor.begin(update, level)

    def judge(self, update: int, level: Level, taken: Taken) -> None:
        """Take in a whole update at `level`, and tell the run of what is decided."""
        if not self._governor.end(level, taken):
            return
        thinning = self._governor.decide(level, self._switches.periods)
        if thinning is not None:
            self.rests = True
            LOGGER.info("gradwatch: %s", thinning.sentence)
            detail: dict[str, Scalar] = {"share": thinning.share, "was": thinning.was, "budget": thinning.budget}
            detail.update({f"every.{name}": every for name, every in thinning.every.items()})
            self._outbox.put_event("overhead", update, time.time_ns(), thinning.sentence, detail)
        told = self._governor.costs(level)
        if told is not None:
            self._tell_costs(update, level, *told)

    def _tell_costs(self, update: int, level: Level, updates: int, costs: Mapping[str, float]) -> None:
        said = ", ".join(f"{name} {share:.2%}" for name, share in costs.items())
        detail: dict[str, Scalar] = {"level": int(level), "updates": updates}
        detail.update({f"{COST}{name}": share for name, share in costs.items()})
        text = f"at {level.name.lower()}, of the trainer's own time: {said}"
        self._outbox.put_event(COSTS, update, time.time_ns(), text, detail)
