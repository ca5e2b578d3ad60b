"""From a failure of ours to the columns it spoiled: what a failed call should have measured is missing by our fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_agent.guard import own_errors
from gradwatch_contracts.columns import Status

if TYPE_CHECKING:
    from gradwatch_agent.collect.measurement import Measurement

CALL_OF = {
    "Monitor.ppo": "ppo",
    "Monitor.rollout": "rollout",
    "Monitor.recurrent": "recurrent",
    "GradientCollector.on_clip": "clip",
    "GradientCollector._before_step": "clip",
    "GradientCollector._see_closed": "clip",
    "GradientCollector.follow": "clip",
}
"""Where an own error is noted → the call whose columns it spoils."""


class Blame:
    """Which own errors were already told in a row."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def refuse_failed(self, monitor: object, measurement: Measurement) -> None:
        """Say of each call of ours that failed since the last row that its columns are missing by our fault."""
        counts = {**own_errors(monitor), **own_errors(measurement.gradients)}
        if counts != self._seen:
            for place, count in counts.items():
                if count != self._seen.get(place, 0):
                    measurement.refuse(CALL_OF.get(place, ""), Status.OUR_ERROR)
            self._seen = counts
