"""What a run changes about itself, so that what was usual is no longer: then everything relative begins again, muted.

Only what makes the old usual wrong without being a fault counts: another number of samples in an update, another size of the
minibatches, a learning rate that fell by half or more at once. A learning rate that rose is how runs break, and is found by
its effects. Invariants and backstops stay armed throughout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import View

STEADY_LEAST = 8
"""Updates of one size before another size is a change: batches of whole episodes differ all the time."""

SAME = 1.05
"""Factor within which two sizes are the same."""

STEP = 1.5
"""Factor from which a size is another one."""

FALL = 2.0
"""Factor by which the learning rate falls at once in a change of regime; annealing and KL controllers (1.5) stay below."""

APART_LEAST = 64
"""Updates between two changes that count: a run that changes all the time would be muted for ever."""

SAMPLES, RATE = "the samples of an update changed", "the learning rate fell"


class Context:
    """The sizes of a run as they last were, and its last change of regime."""

    TAG: ClassVar[str] = "context"

    __slots__ = ("_count", "_env_steps", "_rate", "_size", "_steady", "changed", "reason", "update")

    def __init__(self) -> None:
        self.update = self._env_steps = -1
        self._size = self._rate = 0.0
        self._steady = 0
        self._count = APART_LEAST
        self.reason = ""
        self.changed = -1
        """Update of the last change of regime; -1 for none."""

    def step(self, update: int, env_steps: int, rate: float) -> bool:
        """Take a row; `rate` is NaN where not known. Whether the regime changed with it."""
        fell = 0.0 < rate <= self._rate / FALL
        if rate == rate:  # noqa: PLR0124 (NaN; half the cost of math.isnan)
            self._rate = rate
        resized = False
        taken = update - self.update
        if 0 <= self._env_steps < env_steps and taken > 0:
            size = (env_steps - self._env_steps) / taken
            known = self._size
            if known < size * SAME and size < known * SAME:
                self._steady += 1
            else:
                resized = self._steady >= STEADY_LEAST and (size >= STEP * known or known >= STEP * size)
                self._steady = 0
            self._size = size
        self.update, self._env_steps = update, env_steps
        self._count += 1
        if (fell or resized) and self._count >= APART_LEAST:
            self._count = 0
            self.reason, self.changed = (SAMPLES if resized else RATE), update
            return True
        return False

    def rewind(self, update: int) -> None:
        """The trainer went back: how many steps that took says nothing."""
        self.update = self._env_steps = -1

    def state(self) -> list[Any]:
        """Everything it remembers."""
        return [self.update, self._env_steps, self._size, self._rate, self._steady, self._count, self.reason, self.changed]

    @classmethod
    def restored(cls, state: list[Any]) -> Context:
        """The one that gave this `state`."""
        context = cls()
        (
            context.update,
            context._env_steps,
            context._size,
            context._rate,
            context._steady,
            context._count,
            context.reason,
            context.changed,
        ) = state
        return context


def regime_changes(view: View) -> list[int]:
    """Rows of the block at which the regime of the run changed."""
    context, rate = view.state.memory(Context, ""), view.input("opt.lr")
    steps = view.block.env_steps.tolist()
    if view.single:
        changed = context.step(int(view.update), steps[0], float(rate.values) if rate.readable else float("nan"))
        return [0] if changed else []
    rates = view.math.where(rate.readable, rate.values, float("nan")).tolist()
    rows = zip(view.update.tolist(), steps, rates, strict=True)
    return [row for row, (update, env_steps, lr) in enumerate(rows) if context.step(update, env_steps, lr)]


def muted_words(view: View) -> str:
    """Why relative rules are silent for the moment, where a change of regime is the reason."""
    context = view.state.memory(Context, "")
    return f"muted, for {context.reason} at update {context.changed}; " if context.changed >= 0 else ""
