"""What each collector that can be switched off takes of an update: microseconds of CPU, NORMAL and DEBUG.

The calls of an update of 4 environments x 128 steps and 16 minibatches of 128, with a recurrent state of 16 x 64, two 64-64
networks and Adam. One monitor has everything on, one has all collectors off, and one for each collector has it off; they
take turns update by update, in a new order each time, and the tenth percentile of each decides, as whatever else the machine
does only adds. CPU time of this thread. On a busy machine a difference below a twentieth of the whole is noise.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gradwatch_agent import watch
from gradwatch_contracts.collectors import COLLECTORS
from table import Figure, arguments, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

ALL = "all of them"
SAMPLES = ("new_logp", "old_logp", "entropy", "values", "returns", "advantages")
MINIBATCHES, WARM_UP = 16, 10


class Trainer:
    """One monitor and what it is given; `off` are collectors that it leaves out."""

    def __init__(self, name: str, off: Sequence[str], level: str) -> None:
        torch.manual_seed(1)
        parts = [nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, n)) for n in (2, 1)]
        self.model = nn.ModuleList(parts)
        self.model.register_parameter("log_std", nn.Parameter(torch.zeros(2)))
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.roll = {key: torch.randn(128, 4) for key in ("rewards", "values", "returns", "advantages")}
        self.roll |= {"observations": torch.randn(128, 4, 4), "actions": torch.randint(2, (128, 4))}
        self.minibatches = [{key: torch.randn(128) / 10 for key in SAMPLES} for _ in range(MINIBATCHES)]
        self.states = [torch.rand(1, 16, 64) for _ in range(MINIBATCHES)]
        space = SimpleNamespace(n=2)
        run = f"bench-{level}-{name.replace('_', '-').replace(' ', '-')}"
        self.mon = watch(
            self.model, self.optimizer, run=run, level=level, action_space=space, overhead=None, probe=parts[0],
            collect=dict.fromkeys(off, False),
        )  # fmt: skip
        for parameter in self.model.parameters():
            parameter.grad = torch.randn_like(parameter)

    def update(self) -> float:
        """CPU of our calls and of our hook in one step of the optimizer, in microseconds; the step itself is in it."""
        begin = time.thread_time_ns()
        self.mon.rollout(**self.roll)
        for minibatch, state in zip(self.minibatches, self.states, strict=True):
            self.mon.ppo(**minibatch, clip=0.2)
            self.mon.recurrent(state)
        self.optimizer.step()
        self.mon.step(env_steps=512, episode_returns=[1.0, 2.0])
        return (time.thread_time_ns() - begin) / 1e3


def measure(level: str, updates: int) -> list[Figure]:
    """The figures of one level."""
    trainers: dict[str, Any] = {"": Trainer("on", (), level), ALL: Trainer(ALL, tuple(COLLECTORS), level)}
    trainers |= {name: Trainer(name, (name,), level) for name in COLLECTORS}
    taken: dict[str, list[float]] = {name: [] for name in trainers}
    order, shuffle = list(trainers), random.Random(1).shuffle
    for number in range(updates + WARM_UP):
        shuffle(order)  # who comes first pays for a cold cache
        for name in order:
            spent = trainers[name].update()
            if number >= WARM_UP:
                taken[name].append(spent)
    for trainer in trainers.values():
        trainer.mon.close()
    low = {name: statistics.quantiles(values, n=10)[0] for name, values in taken.items()}
    baseline = ("all our calls", low[""])
    return [
        Figure(f"{level.upper()}: {name}", low[""] - low[name], "us", baseline=baseline)
        for name in (ALL, *(name for name in COLLECTORS if level == "debug" or COLLECTORS[name].level.name != "DEBUG"))
    ]


def main() -> None:
    """Print the table."""
    args = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as home:
        os.environ["GRADWATCH_ENDPOINT"] = f"ipc://{Path(home) / 'nobody'}"
        figures = [figure for level in ("normal", "debug") for figure in measure(level, 20 if args.quick else 100)]
    notes = ["no daemon; a collector's figure is all on less it off, so small ones may come out below 0"]
    print_table("what each collector takes", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
