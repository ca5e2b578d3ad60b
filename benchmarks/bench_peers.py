"""What watching adds to an update, beside other loggers: per cent of an unwatched update, with 95 % interval.

Each contestant is a process of its own that stays alive; all of them, and one that nobody watches, train the same thing
update by update in an order that changes, so that update k is compared with the unwatched update k. gradwatch at NORMAL sees
gradients, weights and, where it is PPO, every minibatch; the others are handed 40 ready numbers an update, and `wandb.watch`
the gradients of every step. Stable-Baselines3 trains by its own `learn`, watched by our callback. CPU is that of the trainer's
process with its threads, without children. Needs the extra `bench`; what is not installed is said and left out. `--large` adds
100M parameters; `--few` takes a third of the updates, where a machine is quiet for minutes only.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from bench_ppo import interval
from service import Service
from table import Figure, arguments, median, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

CONTESTANTS = {
    "gradwatch": "gradwatch_agent",
    "wandb offline": "wandb",
    "wandb.watch each step": "wandb",
    "trackio": "trackio",
    "TensorBoard": "tensorboard",
}
"""Name → the module it needs."""

SB3 = "SB3 PPO"
SHAPES = {"PPO 64-64": 0, SB3: 0, "64-64 MLP": 16, "CNN-LSTM 5M": 2, "100M": 1}
"""Trainer → optimizer steps in an update (PPO: 16 minibatches of 128; of Stable-Baselines3 32)."""

SCALARS = 40


def make_model(shape: str) -> tuple[Any, Callable[[], Any]]:
    """A network and what makes its loss."""
    import torch  # noqa: PLC0415 - the parent must not load it
    from torch import nn  # noqa: PLC0415

    if shape == "64-64 MLP":
        small = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))
        return small, lambda: small(torch.randn(128, 4)).square().mean()
    if shape == "100M":
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


def logger(name: str, model: Any, optimizer: Any, folder: str) -> Callable[[dict[str, float]], None]:
    """What is called once an update with the scalars."""
    if name == "gradwatch":
        from gradwatch_agent import watch  # noqa: PLC0415 - the others must not pay for it

        mon = watch(model, optimizer, run=f"peers-{os.getpid()}")
        return lambda scalars: mon.step(**scalars)
    if name.startswith("wandb"):
        import wandb  # noqa: PLC0415

        run = wandb.init(project="peers", dir=folder, mode="offline", settings=wandb.Settings(silent=True))
        if name != "wandb offline":
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


def make_update(name: str, shape: str, folder: str) -> Callable[[int], None]:
    """One update of one contestant."""
    import torch  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.manual_seed(1)
    if shape == "PPO 64-64":
        from bench_update import Stopwatch, Trainer  # noqa: PLC0415

        if name == "gradwatch":
            watched = Trainer("normal", Stopwatch())
            return lambda number: float(watched.update()) and None
        trainer = Trainer("unwatched", Stopwatch())
        log = logger(name, trainer.model, trainer.optimizer, folder)

        def learn(number: int) -> None:
            trainer.update()
            log({f"loss/{key}": number * 0.1 + key for key in range(SCALARS)})

        return learn
    model, make_loss = make_model(shape)
    optimizer = torch.optim.Adam(model.parameters())
    log = logger(name, model, optimizer, folder)

    def update(number: int) -> None:
        for _ in range(SHAPES[shape]):
            loss = make_loss()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        log({f"loss/{key}": number * 0.1 + key for key in range(SCALARS)})

    return update


class Turns:
    """One update for every line on stdin; its seconds, wall and CPU, on stdout. Ends the process where stdin ends."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # what a logger prints is no answer
        self._begun = (0.0, 0.0)

    def begin(self) -> None:
        """Wait for the turn."""
        if not sys.stdin.readline():
            os._exit(0)  # the loggers' own ends are not measured
        self._begun = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """Say what it took."""
        wall, cpu = self._begun
        self._answers.write(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]) + "\n")


def train_library(name: str, folder: str, turns: Turns) -> None:
    """Stable-Baselines3's `learn`, whose updates begin and end where its rollouts begin."""
    import torch  # noqa: PLC0415
    from stable_baselines3 import PPO  # noqa: PLC0415
    from stable_baselines3.common.callbacks import BaseCallback  # noqa: PLC0415
    from stable_baselines3.common.env_util import make_vec_env  # noqa: PLC0415

    from gradwatch_agent.adapters.sb3 import GradwatchCallback  # noqa: PLC0415

    torch.set_num_threads(1)
    env = make_vec_env("CartPole-v1", 4, seed=1)
    model = PPO("MlpPolicy", env, n_steps=256, batch_size=128, n_epochs=4, seed=1, device="cpu")
    ours = name == "gradwatch"
    log = logger("unwatched" if ours else name, model.policy, model.policy.optimizer, folder)

    class Pace(BaseCallback):
        def _on_rollout_start(self) -> None:
            if self.num_timesteps:
                log({f"loss/{key}": self.num_timesteps * 0.1 + key for key in range(SCALARS)})
                turns.end()
            turns.begin()

        def _on_step(self) -> bool:
            return True

    # Ours is asked first, so that the end of its update is within the update.
    model.learn(2**40, [*([GradwatchCallback(f"peers-{os.getpid()}", updates_total=None)] if ours else []), Pace()])


def contestant(name: str, shape: str) -> None:
    """Train in turns."""
    turns = Turns()
    with tempfile.TemporaryDirectory(prefix="gradwatch-bench-") as folder:
        os.environ |= {"TRACKIO_DIR": folder, "WANDB_DIR": folder}
        if shape == SB3:
            train_library(name, folder, turns)
        update = make_update(name, shape, folder)
        for number in itertools.count():
            turns.begin()
            update(number)
            turns.end()


def race(shape: str, names: list[str], updates: int, service: Service) -> dict[str, list[list[float]]]:
    """Seconds of every update of every contestant, wall and CPU; the first three are dropped."""
    processes = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--contestant", name, shape],
            env=service.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for name in names
    }
    taken: dict[str, list[list[float]]] = {name: [] for name in names}
    order = list(names)
    for number in range(updates + 3):
        random.Random(number).shuffle(order)
        for name in order:
            stdin, stdout = processes[name].stdin, processes[name].stdout
            if stdin is None or stdout is None:
                raise RuntimeError("a contestant has no pipes")
            stdin.write("\n")
            stdin.flush()
            answer = stdout.readline()
            if not answer:
                raise RuntimeError(f"{name} ended early")
            if number >= 3:
                taken[name].append(json.loads(answer))
    for process in processes.values():
        process.communicate()
    return taken


def main() -> None:
    """Print the table, or be a contestant."""
    if sys.argv[1:2] == ["--contestant"]:
        contestant(sys.argv[2], sys.argv[3])
        return
    large, few = "add a model of 100M parameters (2.5 GB for each contestant)", "a third of the updates"
    args = arguments(__doc__, large=large, few=few).parse_args()
    there = [name for name, module in CONTESTANTS.items() if importlib.util.find_spec(module) is not None]
    absent = [name for name in CONTESTANTS if name not in there]
    updates = 5 if args.quick else 10 if args.few else 30
    figures, notes = [], [f"{updates} updates of each in turns, one torch thread; not installed: {', '.join(absent) or 'none'}"]
    with Service() as service:
        for shape in [shape for shape in SHAPES if args.large or shape != "100M"]:
            taken = race(shape, ["unwatched", *there], updates, service)
            for name in there:
                for at, clock in enumerate(("wall", "CPU")):
                    pairs = zip(taken[name], taken["unwatched"], strict=True)
                    middle, low, high = interval([[math.log(mine[at] / base[at])] for mine, base in pairs])
                    limit = 1.0 if name == "gradwatch" and clock == "wall" else None
                    figures.append(Figure(f"{shape}: {name}, {clock} ({low:+.1f} to {high:+.1f})", middle, "% added", limit))
            whole_ms = median([wall for wall, _ in taken["unwatched"]]) * 1e3
            notes.append(f"{shape}: an unwatched update takes {whole_ms:.0f} ms")
    print_table("beside other loggers", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
