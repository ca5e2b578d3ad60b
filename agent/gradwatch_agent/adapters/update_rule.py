"""When an update of a script ends that does not say so: guessed from its optimizer steps and the global_step it logs with.

A script in the manner of CleanRL collects, takes its steps, and logs once behind them; while it collects it may log episodes,
each with a global_step of its own. So an update ends when, after steps and something logged behind them, either something is
logged with another global_step or the next gradient is there.
"""

from __future__ import annotations

from dataclasses import dataclass

BY_GLOBAL_STEP = "when global_step changes"


@dataclass(frozen=True, slots=True)
class Ended:
    """An update is over: the global_step it logged with, None where there is none, and the rule that says so."""

    at: float | None
    rule: str


class UpdateRule:
    """Told what the script does, in its order; each call answers with the update that is over by it, if one is.

    `every`: optimizer steps that make an update as long as nothing was ever logged with a global_step.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._steps = 0
        self._tags: set[str] = set()
        self._logged_at: float | None = None
        self._ended_at: float | None = None
        self._logs_global_step = self._logs_inside = False

    def gradient(self) -> Ended | None:
        """A gradient is clipped or about to be used: it belongs to the next update if this one has logged."""
        return None if self._logs_inside else self.finish()

    def step(self) -> None:
        """An optimizer takes a step."""
        self._steps += 1

    def stepped(self) -> Ended | None:
        """It has taken it."""
        if self._logs_global_step or self._steps < self._every:
            return None
        return self._end(f"every {self._every} optimizer steps, as the script logs no global_step")

    def scalar(self, tag: str, at: float, *, trains: bool) -> Ended | None:
        """Something is logged with a global_step. A script in which no optimizer is seen (`trains` is False) is taken to end
        an update when a tag comes again with another one."""
        self._logs_global_step = True
        if trains and not self._steps:
            self._logged_at = None  # an episode, while collecting
            return None
        again = trains or tag in self._tags
        ended = self._end(BY_GLOBAL_STEP) if again and self._logged_at not in {None, at} else None
        if ended is None and self._logged_at is None and trains:
            self._logs_inside |= at == self._ended_at  # more steps at the same global_step: it logs within an update
        if ended is None or not trains:
            self._logged_at = at
            self._tags.add(tag)
        return ended

    def finish(self) -> Ended | None:
        """The update that has logged is over, whatever comes."""
        return None if self._logged_at is None else self._end(BY_GLOBAL_STEP)

    def cut(self) -> None:
        """What there is of the running update belongs to none."""
        self._ended_at, self._logged_at, self._steps = self._logged_at, None, 0
        self._tags.clear()

    def _end(self, rule: str) -> Ended:
        ended = Ended(self._logged_at, rule)
        self.cut()
        return ended
