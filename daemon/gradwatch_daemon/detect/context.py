"""What a run changes about itself, so that what was usual is no longer: then everything relative begins again, muted.

Only what makes the old usual wrong without being a fault counts: another number of samples in an update, another size of the
minibatches, a learning rate that fell by half or more at once. A learning rate that rose is how runs break, and is found by
its effects. Invariants and backstops stay armed throughout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import F64, I64

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

    def calm(self, updates: I64, env_steps: I64, rates: F64) -> bool:
        """`step` for many rows at once, if none of them changes anything: sizes as before, no rate that falls."""
        if not 0 <= self._env_steps < env_steps[0] or updates[0] <= self.update:
            return False
        taken, more = np.diff(updates, prepend=self.update), np.diff(env_steps, prepend=self._env_steps)
        if not (more > 0).all():
            return False
        sizes = more / taken
        before = np.concatenate(((self._size,), sizes[:-1]))
        if not ((before < sizes * SAME) & (sizes < before * SAME)).all():
            return False
        known = rates[~np.isnan(rates)]
        if (known[1:] * FALL <= known[:-1]).any() or (len(known) and known[0] * FALL <= self._rate):
            return False
        self._rate = float(known[-1]) if len(known) else self._rate
        self._size, self._steady = float(sizes[-1]), self._steady + len(sizes)
        self._count += len(sizes)
        self.update, self._env_steps = int(updates[-1]), int(env_steps[-1])
        return True

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
    env_steps = view.block.env_steps
    if view.single:
        changed = context.step(int(view.update), int(env_steps[0]), float(rate.values) if rate.readable else float("nan"))
        return [0] if changed else []
    rates = view.math.where(rate.readable, rate.values, float("nan"))
    if context.calm(view.update, env_steps, rates):
        return []
    rows = zip(view.update.tolist(), env_steps.tolist(), rates.tolist(), strict=True)
    return [row for row, (update, env_steps, lr) in enumerate(rows) if context.step(update, env_steps, lr)]


def muted_words(view: View) -> str:
    """Why relative rules are silent for the moment, where a change of regime is the reason."""
    context = view.state.memory(Context, "")
    return f"muted, for {context.reason} at update {context.changed}; " if context.changed >= 0 else ""
