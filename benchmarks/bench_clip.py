"""What gradient norms cost, as a ratio of `clip_grad_norm_`: on top of it where the trainer clips, and where it does not.

Three models: (i) a 64-64 actor-critic, (ii) about 5M parameters, (iii) 200 tensors of about 10M; `--large` adds one of 100M.
Watched and unwatched calls take turns; unwatched ones run torch's own functions, without our wrappers.
"""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
import time
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import clip_grad

from gradwatch_agent import watch
from gradwatch_agent.device.clip import CLIP_WATCH
from table import Figure, arguments, median, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

ROUND_S = 0.02
"""Each variant runs so long in its turn, or once."""

WRAPPED = ("_get_total_norm", "_clip_grads_with_norm_")


class Idle(torch.optim.Optimizer):
    """An optimizer whose step does nothing, so that only its hooks cost."""

    def step(self, closure: object = None) -> None:
        """Nothing."""


def network(*sizes: int) -> nn.Sequential:
    """Linear layers with tanh between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def models(*, large: bool) -> dict[str, nn.Module]:
    """By name, each with random gradients."""
    found: dict[str, nn.Module] = {
        "(i) 64-64 MLP": nn.ModuleList([network(4, 64, 64, 2), network(4, 64, 64, 1)]),
        "(ii) 5M": network(512, 1024, 1024, 1024, 1024, 1024, 512),
        "(iii) 200 tensors": network(*[316] * 101),
    }
    if large:
        found["(iv) 100M"] = network(*[2048] * 25)
    generator = torch.Generator().manual_seed(1)
    for model in found.values():
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    return found


def calls_of(call: Callable[[], object]) -> int:
    """How many calls fill a round, after a warm-up."""
    for _ in range(3):
        call()
    start = time.perf_counter()
    call()
    return max(1, int(ROUND_S / (time.perf_counter() - start)))


def time_us(call: Callable[[], object], times: int) -> float:
    """Mean of some calls."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times * 1e6


def measure(name: str, model: nn.Module, rounds: int) -> list[Figure]:
    """One model, all variants in turns."""
    originals = {part: getattr(clip_grad, part) for part in WRAPPED}
    parameters = list(model.parameters())
    stepping, bare = Idle(parameters, {}), Idle(parameters, {})
    mon = watch(model, stepping, run="bench-clip")
    wrappers = {part: getattr(clip_grad, part) for part in WRAPPED}
    if wrappers == originals:
        raise RuntimeError("this torch is not wrapped: nothing to measure")

    def clip() -> None:
        nn.utils.clip_grad_norm_(parameters, 0.5)

    times = calls_of(clip)
    taken: dict[str, list[float]] = {"watched": [], "plain": [], "hooked": [], "bare": []}
    for number in range(rounds):
        order = ("watched", "plain") if number % 2 else ("plain", "watched")
        for variant in order:
            for part, function in (wrappers if variant == "watched" else originals).items():
                setattr(clip_grad, part, function)
            for cell, plain, watched in CLIP_WATCH._inner:
                cell.cell_contents = watched if variant == "watched" else plain
            clip()
            taken[variant].append(time_us(clip, times))
        for part, function in wrappers.items():
            setattr(clip_grad, part, function)
        for cell, _, watched in CLIP_WATCH._inner:
            cell.cell_contents = watched
        mon.step()  # the norms of a new update
        stepping.step()  # the first step after a clip takes nothing: its norm is known
        taken["hooked"].append(time_us(stepping.step, times))
        taken["bare"].append(time_us(bare.step, times))
        mon.step()
    mon.close()
    baseline = ("clip_grad_norm_", median(taken["plain"]))
    top = median([watched - plain for watched, plain in zip(taken["watched"], taken["plain"], strict=True)])
    unclipped = median([hooked - plain for hooked, plain in zip(taken["hooked"], taken["bare"], strict=True)])
    ratio_top = median([watched / plain - 1 for watched, plain in zip(taken["watched"], taken["plain"], strict=True)])
    ratio_own = median([(h - b) / p for h, b, p in zip(taken["hooked"], taken["bare"], taken["plain"], strict=True)])
    return [
        Figure(f"{name}: the trainer clips, on top", ratio_top, "x clip", 0.1),
        Figure(f"{name}: it does not clip", ratio_own, "x clip", 1.0),
        Figure(f"  {name}: added to clip_grad_norm_", top, "us", baseline=baseline),
        Figure(f"  {name}: added to optimizer.step", unclipped, "us", baseline=baseline),
    ]


def main() -> None:
    """Print the table."""
    args = arguments(__doc__, large="add a model of 100M parameters (about 1 GB of memory)").parse_args()
    rounds = 6 if args.quick else 60
    torch.set_num_threads(1)
    logging.getLogger("gradwatch").setLevel(logging.ERROR)  # no daemon is there, and it is no news
    figures = []
    with tempfile.TemporaryDirectory(prefix="gradwatch-bench-") as nobody:
        os.environ |= {"GRADWATCH_ENDPOINT": f"ipc://{nobody}/nobody.ipc"}
        for name, model in models(large=args.large).items():
            figures += measure(name, model, rounds)
    print_table("gradient norms", figures, notes=[f"{rounds} rounds, one torch thread"], args=args)


if __name__ == "__main__":
    main()
