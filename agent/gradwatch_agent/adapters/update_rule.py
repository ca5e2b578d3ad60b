"""When an update of a script ends that does not say so: guessed from its optimizer steps and the global_step it logs with.

A script in the manner of CleanRL collects, takes its steps, and logs once behind them; while it collects it may log episodes,
each with a global_step of its own. So an update ends when, after steps and something logged behind them, either something is
logged that belongs to the next one or the next gradient is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwatch_contracts import limits

if TYPE_CHECKING:
    from collections.abc import Collection

BY_GLOBAL_STEP = "when global_step changes"


@dataclass(frozen=True, slots=True)
class Ended:
    """An update is over: the global_step it logged with, None where there is none, and the rule that says so."""

    at: float | None
    rule: str


class UpdateRule:
    """Told what the script does, in its order; each call answers with the update that is over by it, if one is.

    `every`: optimizer steps that make an update as long as nothing was ever logged with a global_step. `collecting`: tags that
    are logged while a script collects; others of this kind are learned. Tags may have clocks of their own, such as an
    evaluation that counts iterations, so a global_step is compared with that of the same tag.
    """

    def __init__(self, every: int, collecting: Collection[str] = ()) -> None:
        self._every = every
        self._steps = 0
        self._collecting, self._training = set(collecting), set[str]()
        self._logged: dict[str, float] = {}
        """Of the running update behind its steps: tag → global_step."""
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
            self._logged.clear()  # an episode, while collecting
            if tag not in self._training and len(self._collecting) < limits.USER_KEYS_MAX:
                self._collecting.add(tag)
            return None
        ended = self._end(BY_GLOBAL_STEP) if self._logged and self._is_of_the_next(tag, at, trains) else None
        if ended is None and not self._logged and trains:
            self._logs_inside |= at == self._ended_at  # more steps at the same global_step: it logs within an update
        if ended is None or not trains:
            self._note(tag, at)
        return ended

    def _is_of_the_next(self, tag: str, at: float, trains: bool) -> bool:
        """Whether what is logged belongs to the next update, when this one has logged."""
        if self._logged.get(tag, at) != at or not trains:
            return self._logged.get(tag, at) != at
        never = tag not in self._training and self._ended_at is not None
        return tag in self._collecting or (never and at > max(self._logged.values()))

    def _note(self, tag: str, at: float) -> None:
        if tag in self._logged or len(self._logged) < limits.USER_KEYS_MAX:
            self._logged[tag] = at
        if len(self._training) < limits.USER_KEYS_MAX and tag not in self._collecting:
            self._training.add(tag)

    def finish(self) -> Ended | None:
        """The update that has logged is over, whatever comes."""
        return self._end(BY_GLOBAL_STEP) if self._logged else None

    def cut(self) -> None:
        """What there is of the running update belongs to none."""
        self._ended_at, self._steps = max(self._logged.values(), default=None), 0
        self._logged.clear()

    def _end(self, rule: str) -> Ended:
        ended = Ended(max(self._logged.values(), default=None), rule)
        self.cut()
        return ended
