"""Stable-Baselines3 PPO on CartPole with and without the callback, in turns in one process: time added to an update.

Both train from one seed, so update k of one is update k of the other: time from the beginning of one rollout to that of the
next, by the clock and of this process's CPU, with our sender thread. `--quick` shows that it runs; its figures mean nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import time
from typing import Any

from paired import added_percent, quietest, rounds
from service import Service
from table import Figure, arguments, median, print_table

BUDGET_PERCENT = 1.0
ROUNDS_S, UPDATES = 150.0, 10
"""So long do they take turns, and so many updates are a run."""


def train(updates: int, watched: bool) -> tuple[dict[str, list[float]], str]:
    """Seconds of each update but the first, by clock, and a digest of the final parameters."""
    import torch  # noqa: PLC0415
    from stable_baselines3 import PPO  # noqa: PLC0415 - the table is printed without
    from stable_baselines3.common.callbacks import BaseCallback  # noqa: PLC0415
    from stable_baselines3.common.env_util import make_vec_env  # noqa: PLC0415

    from gradwatch_agent.adapters.sb3 import GradwatchCallback  # noqa: PLC0415

    marks: list[tuple[float, float]] = []

    class Marks(BaseCallback):
        def _on_rollout_start(self) -> None:
            marks.append((time.perf_counter(), time.process_time()))

        def _on_step(self) -> bool:
            return True

    torch.set_num_threads(1)
    model = PPO(
        "MlpPolicy", make_vec_env("CartPole-v1", 4, seed=1), n_steps=256, batch_size=128, n_epochs=4, seed=1, device="cpu"
    )
    callbacks: list[Any] = [Marks(), *([GradwatchCallback("bench-sb3")] if watched else [])]
    model.learn(updates * 4 * 256, callbacks)
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in model.policy.state_dict().values())).hexdigest()
    spent = [(end[0] - begin[0], end[1] - begin[1]) for begin, end in itertools.pairwise(marks)][1:]
    return {"wall": [wall for wall, _ in spent], "cpu": [cpu for _, cpu in spent]}, digest


def main() -> None:
    """Print the table."""
    args = arguments(__doc__).parse_args()
    seconds, updates = (0.0, 4) if args.quick else (ROUNDS_S, UPDATES)
    found: dict[bool, list[dict[str, list[float]]]] = {True: [], False: []}
    digests = set()
    logging.getLogger("gradwatch").setLevel(logging.WARNING)  # what is watched is told by each run
    with Service() as service:
        os.environ.update(service.environment)
        for number in rounds(seconds, 3):
            for watched in ((True, False), (False, True))[number % 2]:
                taken, digest = train(updates, watched)
                digests.add(digest)
                if number:
                    found[watched].append(taken)
    figures = []
    for clock, budget in (("wall", BUDGET_PERCENT), ("cpu", None)):
        mine, off = ([run[clock] for run in found[watched]] for watched in (True, False))
        figures.append(added_percent(mine, off).figure(f"{clock} time added to an update", "%", budget))
        figures.append(Figure(f"  fastest of all rounds, {clock}", quietest(mine, off), "%"))
    figures.append(Figure("different final parameters over all runs", len(digests), "", 1))
    update_s = median([seconds for run in found[False] for seconds in run["wall"]])
    said = f"{len(found[True])} rounds of {updates - 2} updates of {update_s * 1e3:.0f} ms each, 32 minibatches of 128"
    notes = [f"{said}, level NORMAL; intervals are of 95 %, whole rounds resampled"]
    print_table("Stable-Baselines3 PPO, paired with no callback", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
