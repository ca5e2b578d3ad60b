"""Step times of a trainer whose daemon is absent, stopped, killed, slow or talks garbage, against the trainer without us.

One process per contestant stays alive; they take turns in an order that changes, a few dozen updates each, one torch thread.
The ratios of p50 and p99 are those of all updates of a contestant to all of the trainer without us, with a 95 % interval for
which whole rounds are resampled. A daemon that serves stands beside them: what a fault adds is the difference to it. Each
contestant ends by `close`, whose time is said, as well as the exit codes.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from service import Service
from table import ROOT, Figure, arguments, median, percentile, print_table

sys.path.append(str(ROOT / "tests"))

from harness.faulty_daemon import FaultyDaemon

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

OFF = "without us"
SERVED = "daemon serves"
FAULTS = (SERVED, "daemon absent", "daemon stopped", "daemon killed", "daemon slow", "daemon talks garbage")
OUTPUTS = (4, 1)
SAMPLES, MINIBATCHES, MINIBATCH = 512, 4, 128
WARM_UP = 20
"""Updates before the fault strikes: the session is live by then, and what is allocated once is allocated."""

RESAMPLES = 1000


def trainer() -> None:
    """Train as many updates as each line of stdin says; answer with their times in ms. At the end, the time of `close`."""
    import torch  # noqa: PLC0415 - the parent must not load torch
    from torch import nn  # noqa: PLC0415

    from gradwatch_agent import watch  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.manual_seed(1)
    policy, critic = (
        nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, n)) for n in (4, 1)
    )
    model = nn.ModuleList([policy, critic])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    mon = watch(model, optimizer, run=f"harmless-{random.getrandbits(32):x}")

    def update() -> None:
        obs, action, returns = torch.randn(SAMPLES, 8), torch.randint(4, (SAMPLES,)), torch.randn(SAMPLES)
        mon.rollout(rewards=returns, observations=obs)
        for rows in torch.randperm(SAMPLES).split(MINIBATCH)[:MINIBATCHES]:
            every = torch.log_softmax(policy(obs[rows]), -1)
            logp, value, target = every.gather(1, action[rows, None])[:, 0], critic(obs[rows])[:, 0], returns[rows]
            entropy = -(every * every.exp()).sum(-1)
            loss = -(logp * target).mean() + (value - target).square().mean() - 0.01 * entropy.mean()
            mon.ppo(new_logp=logp, old_logp=logp.detach(), entropy=entropy, values=value, returns=target, loss=loss, clip=0.2)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        mon.step(env_steps=SAMPLES)

    for line in sys.stdin:
        taken = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            update()
            taken.append((time.perf_counter() - begin) * 1e3)
        print(json.dumps(taken), flush=True)
    begin = time.perf_counter()
    mon.close()
    print(json.dumps([(time.perf_counter() - begin) * 1e3]), flush=True)


class Contestant:
    """One trainer process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        command = [sys.executable, __file__, "--trainer"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, env=dict(environment), text=True, **pipes)

    def train(self, updates: int) -> list[float]:
        """Times of so many updates, ms."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{updates}\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> tuple[float, int]:
        """How long `close` took, ms, and the exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._answer()[0], self._process.wait(60)

    def _answer(self) -> list[float]:
        assert self._process.stdout is not None
        found: list[float] = json.loads(self._process.stdout.readline())
        return found


def contestants(stack: ExitStack) -> tuple[dict[str, Contestant], dict[str, Callable[[], None]]]:
    """The trainers, each with a daemon of its own kind, and what strikes after the warm-up."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gradwatch-bench-"))
    services = {name: stack.enter_context(Service()) for name in (SERVED, "daemon stopped", "daemon killed")}
    stopped, killed = services["daemon stopped"].pid, services["daemon killed"].pid
    plain = services[SERVED].environment
    found = {OFF: Contestant({**plain, "GRADWATCH_MODE": "off"})}
    for name in FAULTS:
        if name in services:
            environment = services[name].environment
        else:
            endpoint = f"ipc://{folder}/{name.replace(' ', '-')}"
            mode = {"daemon slow": "slow", "daemon talks garbage": "garbage"}.get(name)
            if mode is not None:
                stack.enter_context(FaultyDaemon(endpoint, mode))
            environment = {**plain, "GRADWATCH_RUNTIME_DIR": folder, "GRADWATCH_ENDPOINT": endpoint}
        found[name] = Contestant(environment)
    stack.callback(send, stopped, signal.SIGCONT)
    strikes: dict[str, Callable[[], None]] = {
        "daemon stopped": lambda: send(stopped, signal.SIGSTOP),
        "daemon killed": lambda: send(killed, signal.SIGKILL),
    }
    return found, strikes


def send(pid: int, number: signal.Signals) -> None:
    """Signal a daemon."""
    import os  # noqa: PLC0415

    os.kill(pid, number)


def ratio(mine: Sequence[Sequence[float]], off: Sequence[Sequence[float]], share: float) -> tuple[float, float, float]:
    """The ratio of a percentile over all updates, and its 95 % interval; rounds are resampled in pairs."""
    rng, pairs = random.Random(1), list(zip(mine, off, strict=True))

    def of(rounds: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
        ours, theirs = ([time_ for pair in rounds for time_ in pair[side]] for side in (0, 1))
        return percentile(ours, share) / percentile(theirs, share)

    resampled = sorted(of(rng.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return of(pairs), resampled[int(0.025 * RESAMPLES)], resampled[int(0.975 * RESAMPLES)]


def main() -> None:
    """Print the table, or be a trainer."""
    if sys.argv[1:2] == ["--trainer"]:
        trainer()
        return
    args = arguments(__doc__).parse_args()
    rounds, updates = (3, 10) if args.quick else (10, 25)
    times: dict[str, list[list[float]]] = {}
    with ExitStack() as stack:
        found, strikes = contestants(stack)
        for contestant in found.values():
            contestant.train(WARM_UP)
        for strike in strikes.values():
            strike()
        order = list(found)
        for number in range(rounds):
            random.Random(number).shuffle(order)
            for name in order:
                times.setdefault(name, []).append(found[name].train(updates))
        ends = {name: contestant.end() for name, contestant in found.items()}
    figures = []
    for name in FAULTS:
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            middle, low, high = ratio(times[name], times[OFF], share)
            figures.append(Figure(f"{name}: {label} of an update", middle, "x", interval=(low, high)))
        if name != SERVED:
            middle, low, high = ratio(times[name], times[SERVED], 0.5)
            figures.append(Figure("  its p50 against a daemon that serves", middle, "x", interval=(low, high)))
        figures.append(Figure("  close()", ends[name][0], "ms", 1000.0))
    codes = sum(code != 0 for _, code in ends.values())
    figures.append(Figure("contestants whose exit code was not 0", float(codes), "", 0.0))
    update = median([time_ for of_round in times[OFF] for time_ in of_round])
    notes = [f"{rounds} rounds of {updates} updates of {update:.1f} ms (without us, median); intervals are of 95 %"]
    print_table("step times under every fault of the daemon", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
