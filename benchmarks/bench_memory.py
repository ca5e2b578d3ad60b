"""Resident memory that gradwatch adds to a trainer: imports, `watch`, a live link, and 100 updates of 16 minibatches.

Each round has a fresh trainer process with torch imported that has trained 20 updates without us. What the same process grows
by in 100 more updates without us is the baseline; both are differences of VmRSS. Of it, RssFile are pages of libraries that
were never touched before (libzmq, and code of torch that this trainer does not use itself); they are shared with every other
process. Python's table of interned names doubles at some number of names, 1.8 MiB at once: torch 2.13 alone ends just below
it, so in a trainer that imports nothing else our names get it over. The mode "larger" has some thousand names more, as a
trainer with gymnasium and a logger has.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service import Service
from table import Figure, arguments, median, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

MINIBATCHES, BATCH = 16, 128
MODES = ("without", "watched", "watched DEBUG", "watched, larger")
NAMES = 4000


@dataclass(frozen=True, slots=True)
class Resident:
    """MiB of this process: all, and pages of files."""

    whole: float
    files: float

    @classmethod
    def now(cls) -> Resident:
        """As the kernel counts it (Linux)."""
        gc.collect()
        lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
        found = {words[0]: int(words[1]) / 1024 for words in lines if words[0] in {"VmRSS:", "RssFile:"}}
        return cls(found["VmRSS:"], found["RssFile:"])

    def __sub__(self, other: Resident) -> Resident:
        """What was added since."""
        return Resident(self.whole - other.whole, self.files - other.files)


def make_trainer() -> tuple[Any, Any, Callable[[Any], None]]:
    """Model, optimizer and one update, which calls the monitor it is given, if any."""
    import torch  # noqa: PLC0415 - the parent must not load it
    from torch import nn  # noqa: PLC0415

    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))
    optimizer = torch.optim.Adam(model.parameters())

    def update(mon: Any) -> None:
        rollout = torch.randn(4, MINIBATCHES, BATCH)
        if mon is not None:
            mon.rollout(rewards=rollout[0], values=rollout[1], returns=rollout[2], advantages=rollout[3])
        for part in range(MINIBATCHES):
            out = model(torch.randn(BATCH, 4))
            logp, old = torch.log_softmax(out[:, :2], -1)[:, 0], torch.full((BATCH,), -0.69)
            entropy, loss = -logp.detach(), out.square().mean()
            if mon is not None:
                some = {"values": out[:, 2], "returns": rollout[2, part], "advantages": rollout[3, part]}
                mon.ppo(new_logp=logp, old_logp=old, entropy=entropy, clip=0.2, loss=loss, **some)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        if mon is not None:
            mon.step(env_steps=1, episode_returns=[1.0, 2.0])

    return model, optimizer, update


def measure(mode: str, updates: int) -> dict[str, float]:
    """MiB added once the link is live, and after all updates; and what the trainer had before."""
    model, optimizer, update = make_trainer()
    for _ in range(20):
        update(None)
    names = [sys.intern(f"gradwatch_bench_name_{number}") for number in range(NAMES if "larger" in mode else 0)]
    before = Resident.now()
    mon = None
    if mode != "without":
        from gradwatch_agent import watch  # noqa: PLC0415 - its import is part of what is measured

        mon = watch(model, optimizer, run="bench-memory", level="debug" if "DEBUG" in mode else "normal")
        deadline = time.monotonic() + 30
        while mon._link is None or mon._link.state != "live":
            if time.monotonic() > deadline:
                raise RuntimeError("the link did not become live")
            time.sleep(0.02)
    live = Resident.now() - before
    for _ in range(updates):
        update(mon)
    after = Resident.now() - before
    if mon is not None:
        mon.close()
    del names
    return {"live": live.whole, "after": after.whole, "files": after.files, "before": before.whole}


def main() -> None:
    """Print the table, or be the trainer."""
    if sys.argv[1:2] == ["--trainer"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
        return
    args = arguments(__doc__).parse_args()
    rounds, updates = (1, 20) if args.quick else (5, 100)
    found: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    with Service() as service:
        for _ in range(rounds):
            for mode in MODES:
                command = [sys.executable, __file__, "--trainer", mode, str(updates)]
                done = subprocess.run(command, env=service.environment, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise RuntimeError(done.stderr)
                found[mode].append(json.loads(done.stdout))
    own = median([one["after"] for one in found["without"]])
    baseline = ("the trainer with torch", median([one["before"] for trainers in found.values() for one in trainers]))
    figures = []
    for mode in MODES[1:]:
        live, total, files = (median([one[part] for one in found[mode]]) for part in ("live", "after", "files"))
        figures.append(Figure(f"{mode}: added once the link is live", live, "MiB", 8.0, baseline=baseline))
        figures.append(Figure(f"{mode}: added after {updates} updates", total - own, "MiB", 8.0, baseline=baseline))
        figures.append(Figure(f"  of it pages of libraries, {mode}", files, "MiB"))
    figures.append(Figure(f"without: growth in {updates} updates, taken off", own, "MiB"))
    print_table("memory added to a trainer", figures, notes=[f"{rounds} rounds, median; VmRSS"], args=args)


if __name__ == "__main__":
    main()
