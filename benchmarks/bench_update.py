"""What all our calls of one update cost: ms, and per cent of the update of a small PPO trainer, at NORMAL and DEBUG.

CartPole, 4 environments x 128 steps, 4 epochs of 4 minibatches of 128, two 64-64 networks: 16 minibatches. Three trainers of
one process take turns update by update: unwatched, NORMAL, DEBUG; a daemon is there. Our time is taken in place, around
every call of ours (rollout, ppo, step) and inside torch's own calls around what our hooks do. That is all on the trainer's
thread. What the sender thread takes to make the row is a line of its own; what it takes besides is in bench_ppo.py. So is what
calls cost in the same places that do nothing: the stopwatch, and handing arguments over.
"""

from __future__ import annotations

import itertools
import os
import time
from typing import TYPE_CHECKING, Any

import torch

from gradwatch_agent import watch
from gradwatch_agent.collect.gradients import GradientCollector
from gradwatch_agent.demo.ppo_cartpole import Agent, Rollout, learn, parse_args
from gradwatch_agent.demo.sabotage import SABOTAGE
from gradwatch_agent.device.clip import ClipWatch
from service import Service
from table import Figure, arguments, median, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradwatch_agent.monitor import Monitor

SHAPE = ["--num-envs", "4", "--num-steps", "128", "--num-minibatches", "4", "--update-epochs", "4"]
PARTS = ("rollout", "ppo", "step", "hooks")
HOOKS = ((ClipWatch, "tell"), (GradientCollector, "_before_step"), (GradientCollector, "_after_step"))
"""Where torch's clipping and its optimizers come to us. What the total norm takes is torch's own work, done for it."""


class Stopwatch:
    """Adds up the seconds of each part of the running update."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def around(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, timed."""

        now = time.perf_counter

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = now()
            try:
                return call(*args, **kwargs)
            finally:
                end = now()  # before the sum, which is not the call's
                self.seconds[part] += end - start

        return timed

    def take(self) -> dict[str, float]:
        """Milliseconds of this update by part; starts again at 0."""
        found = {part: seconds * 1e3 for part, seconds in self.seconds.items()}
        self.seconds = dict.fromkeys(PARTS, 0.0)
        return found


class TimedMonitor:
    """A monitor whose calls are timed; `None` inside is a trainer without gradwatch, whose calls do nothing."""

    def __init__(self, mon: Monitor | None, watch_: Stopwatch) -> None:
        self.rollout = watch_.around("rollout", _nothing if mon is None else mon.rollout)
        self.ppo = watch_.around("ppo", _nothing if mon is None else mon.ppo)
        self.step = watch_.around("step", _nothing if mon is None else mon.step)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """What a call costs that is only made and timed."""


class Trainer:
    """One PPO trainer that does an update at a time."""

    def __init__(self, name: str, stopwatch: Stopwatch) -> None:
        self.args = parse_args([*SHAPE, "--seed", "1"])
        torch.manual_seed(1)
        self.roll = Rollout(self.args, SABOTAGE["none"](0))
        self.model = Agent(4, 2)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2.5e-4, eps=1e-5)
        self.mon: Monitor | None = None
        if name != "unwatched":
            space = self.roll.envs.single_action_space
            self.mon = watch(self.model, self.optimizer, run=f"bench-{name}", level=name, action_space=space)
        self.timed = TimedMonitor(self.mon, stopwatch)
        self.number = 0
        self.made: list[float] = []
        """CPU ms that the sender thread has taken to make rows until each update's end."""

    def update(self) -> float:
        """Rollout, learning and our calls; ms."""
        start = time.perf_counter()
        roll = self.roll
        roll.collect(self.model)
        self.timed.rollout(
            rewards=roll.rewards, values=roll.values, returns=roll.returns, advantages=roll.advantages, observations=roll.obs
        )
        learn(self.model, self.optimizer, roll, self.timed)  # type: ignore[arg-type]  # the calls of a monitor
        self.timed.step(env_steps=roll.total_steps, episode_returns=roll.episode_returns)
        self.number += 1
        self.made.append(0.0 if self.mon is None else self.mon._outbox.made_ns / 1e6)
        return (time.perf_counter() - start) * 1e3


def main() -> None:
    """Print the table."""
    args = arguments(__doc__).parse_args()
    updates = 12 if args.quick else 100
    torch.set_num_threads(1)
    stopwatch = Stopwatch()
    for owner, hook in HOOKS:  # before `watch`, which hands them to torch
        setattr(owner, hook, stopwatch.around("hooks", getattr(owner, hook)))
    whole: dict[str, list[float]] = {}
    ours: dict[str, list[dict[str, float]]] = {}
    with Service() as service:
        os.environ.update({key: value for key, value in service.environment.items() if key.startswith("GRADWATCH_")})
        trainers = {name: Trainer(name, stopwatch) for name in ("unwatched", "normal", "debug")}
        for number in range(updates + 3):
            for name, trainer in trainers.items():
                taken, parts = trainer.update(), stopwatch.take()
                if number >= 3:
                    whole.setdefault(name, []).append(taken)
                    ours.setdefault(name, []).append(parts)
        for trainer in trainers.values():
            if trainer.mon is not None:
                trainer.mon.close()
    update_ms = median(whole["unwatched"])
    nothing_ms = median([sum(parts.values()) for parts in ours["unwatched"]])
    figures = [Figure("calls that do nothing, timed in the same places", nothing_ms, "ms")]
    for name, share_max in (("normal", 1.0), ("debug", 5.0)):
        total = median([sum(parts.values()) for parts in ours[name]])
        limit = 1.0 if name == "normal" else None
        baseline = ("the unwatched update", update_ms)
        figures.append(Figure(f"{name.upper()}: all our calls, an update", total, "ms", limit, baseline=baseline))
        figures.append(Figure(f"{name.upper()}: share of the update", total / update_ms * 100, "%", share_max))
        for part in PARTS:
            figures.append(Figure(f"  of it {part}, {name.upper()}", median([parts[part] for parts in ours[name]]), "ms"))
        each = [later - sooner for sooner, later in itertools.pairwise(trainers[name].made[3:])]
        figures.append(Figure(f"  besides, CPU of the sender thread for the row, {name.upper()}", median(each), "ms"))
        paired = [mine / base for mine, base in zip(whole[name], whole["unwatched"], strict=True)]
        figures.append(Figure(f"  whole updates against unwatched, {name.upper()} (noisy)", (median(paired) - 1) * 100, "%"))
    notes = [f"{updates} updates of each trainer, in turns, one torch thread; the median update"]
    print_table("all our calls in one update", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
