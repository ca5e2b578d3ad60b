"""The trainers of bench_peers.py: the same training in processes of their own, each with another logger, told when to go on.

`python contestants.py LOGGER TRAINER` reads orders on stdin, one line each, and answers each with a line of JSON on stdout:
`time N` and `count N` train N updates, which are timed, or whose reads of single values are counted; `end` tells what the
parameters have become. For the trainer `CALLS` there is nothing to train: `time N` makes N calls with 40 scalars.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

UNWATCHED, WATCH_EACH = "unwatched", "wandb.watch each step"
LEVELS = {"gradwatch NORMAL": "normal", "gradwatch DEBUG": "debug"}
LOGGERS = {
    **dict.fromkeys(LEVELS, "gradwatch_agent"),
    "wandb offline": "wandb",
    WATCH_EACH: "wandb",
    "trackio": "trackio",
    "TensorBoard": "tensorboard",
}
"""Name → the module it needs."""

CALLS, PPO, SB3, MLP, CNN, LARGE = "40 scalars", "PPO 64-64", "SB3 PPO", "64-64 MLP", "CNN-LSTM 5M", "100M"
STEPS = {MLP: 16, CNN: 2, LARGE: 1}
"""Network → optimizer steps in an update (PPO: 16 minibatches of 128; of Stable-Baselines3 32)."""

SCALARS = 40
BUSY_S = 0.002
"""Pure Python before each call with nothing but scalars: other threads wait for the interpreter, as in a trainer."""

COLD = 10
"""Calls at the beginning of a turn that are not counted: the process has slept until now."""

SETTLE_S = 0.03
"""So long after its last update does a turn last, for the CPU that other threads still take for it."""


class Stopwatch:
    """Seconds within the calls of a logger."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begun

        return timed


class Turns:
    """Answers each order once its updates are done. `parameters`: what `end` is asked about."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # what a logger prints is no answer
        self._left, self._begun = 0, (0.0, 0.0, 0.0)
        self._reads: Any = None
        self.stopwatch = Stopwatch()
        self.parameters: Callable[[], Iterable[Any]] = tuple

    def begin(self) -> None:
        """An update begins; wait for the order if there is none. `end` ends the process."""
        if self._left:
            return
        order, number = self.order()
        if order == "count":
            from reads import Reads  # noqa: PLC0415 - it imports torch

            self._reads = Reads()
            self._reads.__enter__()
        self._left = number
        self._begun = time.perf_counter(), time.process_time(), self.stopwatch.seconds

    def order(self) -> tuple[str, int]:
        """The next order and its number."""
        words = sys.stdin.readline().split()
        if words == ["end"]:
            digest = hashlib.sha256()
            for parameter in self.parameters():
                digest.update(parameter.detach().numpy().tobytes())
            self.answer({"digest": digest.hexdigest()})
        if len(words) < 2:
            os._exit(0)  # what a logger does at its end is not measured
        return words[0], int(words[1])

    def end(self) -> None:
        """An update is done."""
        self._left -= 1
        if self._left:
            return
        wall, cpu, calls = self._begun
        took = {"wall": time.perf_counter() - wall, "calls": self.stopwatch.seconds - calls}
        if self._reads is not None:
            self._reads.__exit__(None, None, None)
            took["reads"], self._reads = self._reads.found, None
        time.sleep(SETTLE_S)
        self.answer({**took, "cpu": time.process_time() - cpu})

    def answer(self, found: object) -> None:
        """One line."""
        self._answers.write(json.dumps(found) + "\n")


def make_network(shape: str) -> tuple[Any, Callable[[], Any]]:
    """A network and what makes its loss."""
    import torch  # noqa: PLC0415 - the parent must not load it
    from torch import nn  # noqa: PLC0415

    if shape == MLP:
        small = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))
        return small, lambda: small(torch.randn(128, 4)).square().mean()
    if shape == LARGE:
        large = nn.Sequential(*[layer for _ in range(24) for layer in (nn.Linear(2048, 2048), nn.Tanh())])
        return large, lambda: large(torch.randn(16, 2048)).square().mean()

    class CnnLstm(nn.Module):
        """Pictures of 36 x 36 in sequences of 8: 5.2M parameters."""

        def __init__(self) -> None:
            super().__init__()
            self.cnn = nn.Sequential(nn.Conv2d(1, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Flatten())
            self.lstm = nn.LSTM(576, 512, 2)
            self.head = nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 7))

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            """[steps, batch, 1, 36, 36] → [steps, batch, 7]."""
            features = self.cnn(frames.flatten(0, 1)).reshape(*frames.shape[:2], -1)
            return self.head(self.lstm(features)[0])  # type: ignore[no-any-return]

    model = CnnLstm()
    return model, lambda: model(torch.randn(8, 8, 1, 36, 36)).square().mean()


def open_logger(name: str, model: Any, optimizer: Any, folder: str) -> Callable[[dict[str, float]], None]:
    """What is called once an update with the scalars."""
    if name in LEVELS:
        from gradwatch_agent import watch  # noqa: PLC0415 - the others must not pay for it

        mon = watch(model, optimizer, run=f"peers-{os.getpid()}")
        return lambda scalars: mon.step(**scalars)
    if name.startswith("wandb"):
        import wandb  # noqa: PLC0415

        run = wandb.init(project="peers", dir=folder, mode="offline", settings=wandb.Settings(silent=True))
        if name == WATCH_EACH:
            wandb.watch(model, log="gradients", log_freq=1)
        return run.log  # type: ignore[no-any-return]
    if name == "trackio":
        import trackio  # noqa: PLC0415

        trackio.init(project="peers", embed=False)
        return trackio.log  # type: ignore[no-any-return]
    if name == "TensorBoard":
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        writer, step = SummaryWriter(folder), iter(range(10**9))

        def write(scalars: dict[str, float]) -> None:
            at = next(step)
            for key, value in scalars.items():
                writer.add_scalar(key, value, at)

        return write
    return lambda scalars: None


def some_scalars(number: int) -> dict[str, float]:
    """What the others are handed: ready numbers, others each time."""
    return {f"loss/{key}": number * 0.1 + key for key in range(SCALARS)}


def train_network(name: str, shape: str, folder: str, turns: Turns) -> None:
    """Forward, backward, clip and step, as often as an update has it."""
    import torch  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    model, make_loss = make_network(shape)
    optimizer = torch.optim.Adam(model.parameters())
    log = open_logger(name, model, optimizer, folder)
    turns.parameters = model.parameters
    for number in itertools.count():
        turns.begin()
        for _ in range(STEPS[shape]):
            loss = make_loss()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        log(some_scalars(number))
        turns.end()


def train_ppo(name: str, folder: str, turns: Turns) -> None:
    """The PPO of the demo on CartPole. gradwatch is called as its manual says, the others with ready numbers."""
    import bench_update as ours  # noqa: PLC0415

    stopwatch = turns.stopwatch
    timed = ours.Stopwatch()
    if name in LEVELS:
        for owner, hook in ours.HOOKS:  # before `watch`, which hands them to torch
            setattr(owner, hook, stopwatch.around(getattr(owner, hook)))
    if name == WATCH_EACH:
        from wandb.integration.torch.wandb_torch import TorchHistory  # noqa: PLC0415

        TorchHistory.log_tensor_stats = stopwatch.around(TorchHistory.log_tensor_stats)
    trainer = ours.Trainer(LEVELS.get(name, UNWATCHED), timed)
    turns.parameters = trainer.model.parameters
    if trainer.mon is None:
        log = stopwatch.around(open_logger(name, trainer.model, trainer.optimizer, folder))
    else:
        for call in ("rollout", "ppo", "step"):
            setattr(trainer.timed, call, stopwatch.around(getattr(trainer.mon, call)))
        log = None
    for number in itertools.count():
        turns.begin()
        trainer.update()
        if log is not None:
            log(some_scalars(number))
        turns.end()


def train_library(name: str, folder: str, turns: Turns) -> None:
    """Stable-Baselines3's `learn`, whose updates begin and end where its rollouts begin."""
    from stable_baselines3 import PPO as Library  # noqa: PLC0415, N811
    from stable_baselines3.common.callbacks import BaseCallback  # noqa: PLC0415
    from stable_baselines3.common.env_util import make_vec_env  # noqa: PLC0415

    env = make_vec_env("CartPole-v1", 4, seed=1)
    model = Library("MlpPolicy", env, n_steps=256, batch_size=128, n_epochs=4, seed=1, device="cpu")
    callbacks: list[BaseCallback] = []
    if name in LEVELS:
        from gradwatch_agent.adapters.sb3 import GradwatchCallback  # noqa: PLC0415

        # First, so that the end of our update is within the update.
        callbacks.append(GradwatchCallback(f"peers-{os.getpid()}", updates_total=None))
    log = open_logger(UNWATCHED if callbacks else name, model.policy, model.policy.optimizer, folder)
    turns.parameters = model.policy.parameters

    class Pace(BaseCallback):
        def _on_rollout_start(self) -> None:
            if self.num_timesteps:
                log(some_scalars(self.num_timesteps))
                turns.end()
            turns.begin()

        def _on_step(self) -> bool:
            return True

    model.learn(2**40, [*callbacks, Pace()])


def call_only(name: str, folder: str, turns: Turns) -> None:
    """No training: 40 scalars after a while of Python, again and again."""
    import torch  # noqa: F401, PLC0415 - a trainer has it, and our calls look whether it is there

    log, number = open_logger(name, None, None, folder), 0
    while True:
        taken = []
        for _ in range(COLD + turns.order()[1]):
            busy_until = time.perf_counter() + BUSY_S
            while time.perf_counter() < busy_until:
                pass
            scalars = some_scalars(number)
            begun = time.perf_counter()
            log(scalars)
            taken.append((time.perf_counter() - begun) * 1e6)
            number += 1
        turns.answer({"calls_us": taken[COLD:]})


def main() -> None:
    """Be one of them."""
    name, shape = sys.argv[1:]
    turns = Turns()
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory(prefix="gradwatch-bench-") as folder:
        os.environ |= {"TRACKIO_DIR": folder, "WANDB_DIR": folder, "GRADWATCH_LEVEL": LEVELS.get(name, "normal")}
        if shape == CALLS:
            call_only(name, folder, turns)
        elif shape == PPO:
            train_ppo(name, folder, turns)
        elif shape == SB3:
            train_library(name, folder, turns)
        else:
            train_network(name, shape, folder, turns)


if __name__ == "__main__":
    main()
