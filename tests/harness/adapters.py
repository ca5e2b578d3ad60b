"""What the adapters of libraries are tested with: `watch` into a record, and environments that can be spoilt."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from torch.optim import optimizer as optimizers

from gradwatch_agent import arguments
from gradwatch_agent.adapters import script
from gradwatch_agent.adapters.script import ScriptWatch
from gradwatch_agent.collect.host import Hints
from gradwatch_agent.device.clip import CLIP_WATCH
from harness.recording import Record, open_monitor, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from gradwatch_agent.monitor import Monitor


class Watching:
    """Stands for `watch`: the arguments are checked as it checks them, and what the monitors put out stays here."""

    def __init__(self) -> None:
        self.monitors: list[Monitor] = []
        self.records: list[Record] = []
        self.given: list[dict[str, Any]] = []

    def __call__(self, model: Any = None, optimizer: Any = None, **given: Any) -> Monitor:
        """See `watch`."""
        self.given.append(given)
        hints = Hints()
        known = {name: given[name] for name in ("updates_total", "update_start", "action_space") if name in given}
        monitor, record = open_monitor(
            run=arguments.check_run(given.get("run") or "test", {}, ""),
            modules=arguments.check_modules(model),
            optimizers=arguments.check_optimizers(optimizer),
            config=arguments.check_config(given.get("config"), hints),
            **known,
        )
        self.monitors.append(monitor)
        self.records.append(record)
        return monitor

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every row of the newest monitor, readable."""
        return [read(row) for row in self.records[-1].rows]

    @property
    def updates(self) -> list[int]:
        """Their numbers."""
        return [row.update for row in self.records[-1].rows]


@contextmanager
def armed_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ScriptWatch, Watching]]:
    """Optimizers, clips and steps of this process are those of a script that `gradwatch run` watches, without entropies."""
    monkeypatch.setattr(optimizers.Optimizer, "__init__", optimizers.Optimizer.__init__)
    for hooks in ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks"):
        monkeypatch.setattr(optimizers, hooks, OrderedDict())
    watching, watch = Watching(), ScriptWatch()
    monkeypatch.setattr(script, "watch", watching)
    monkeypatch.setattr(script.atexit, "register", lambda _: None)
    watch.arm(("gradients", "scalars", "exceptions"))
    try:
        yield watch, watching
    finally:
        for monitor in watching.monitors:
            monitor.close()
        CLIP_WATCH.forget(watch)


class Walk(gym.Env[Any, Any]):
    """Episodes of `length` steps, cut by a time limit if `truncates`; the reward is 1 but for steps in `spoilt`.

    `continuous`: one action in [-1, 1]; else one of two.
    """

    def __init__(self, length: int = 5, *, continuous: bool = False, truncates: bool = False, spoilt: Any = None) -> None:
        self.observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32) if continuous else gym.spaces.Discrete(2)
        self._length, self._truncates, self._spoilt = length, truncates, spoilt or {}
        self._total = self._at = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """See gymnasium."""
        super().reset(seed=seed)
        self._at = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """See gymnasium."""
        reward = self._spoilt.get(self._total, 1.0)
        self._at += 1
        self._total += 1
        over = self._at >= self._length
        return self._observe(), reward, over and not self._truncates, over and self._truncates, {}

    def _observe(self) -> Any:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)
