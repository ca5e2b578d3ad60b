"""Everything that has to hold on a GPU: transfers and waits, a stalled device, memory, overflow. On a CPU what it can.

Counts are with us less without us over whole runs of a small PPO-like trainer (6 minibatches an update). The ratio of the
update time, the variants in turns, is of an update of a few ms: budgets are for whole PPO runs, see bench_ppo.py. What needs
CUDA is listed as not run where there is none; such a run says nothing of a GPU. A check that fails with an error does not keep
the others from running: its error stands in the notes, and the exit code is 1.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING

from table import ROOT, Figure, arguments, median, print_table

sys.path.append(str(ROOT / "tests"))

import torch

from bench_clip import models
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness import gpu_checks
from paired import interval

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS = {"NORMAL": Level.NORMAL, "DEBUG": Level.DEBUG}
UPDATES = 8
STALLED = 8
"""Updates that end while the device is busy: twice as many as copies may be under way."""

CALL_MS_MAX = 2.0
"""Against the 200 ms and more for which the device is busy."""


def copies(device: str) -> list[Figure]:
    """What the profiler counts."""
    figures = []
    for name, level in LEVELS.items():
        extra = gpu_checks.extra_calls(device, level, UPDATES)
        figures.append(Figure(f"copies to the host an update, {name}", extra["copies to the host"] / UPDATES, "", 1))
        figures.append(Figure(f"calls that wait an update, {name}", extra["waits"] / UPDATES, "", 0))
    return figures


def sync_debug(device: str) -> list[Figure]:
    """Any wait raises; that the gradient norms of all minibatches are there says that it was measured."""
    figures = []
    for name, level in LEVELS.items():
        rows = gpu_checks.train_under_sync_errors(device, level)
        whole = sum(not isinstance(row["grad.norm"], Status) and row["grad.norm"][0] == 6.0 for row in rows)
        figures.append(Figure(f"updates under set_sync_debug_mode('error'), {name}", whole, "of 3", 3, at_least=True))
    return figures


def stalled(device: str) -> list[Figure]:
    """Calls while the device is busy, with a free slot for the copy and without."""
    slowest, busy = gpu_checks.slowest_call_while_stalled(device)
    again, lost, arrived = gpu_checks.updates_while_stalled(device, STALLED)
    return [
        Figure("slowest call while the device is stalled", slowest, "ms", CALL_MS_MAX),
        Figure("  device still busy afterwards (1: yes)", float(busy), "", 1, at_least=True),
        Figure(f"slowest step() of {STALLED} while it is stalled", again, "ms", CALL_MS_MAX),
        Figure("  updates told as lost: device busy", lost, "", 1, at_least=True),
        Figure("  told as lost, or arrived in the end", lost + arrived, "", STALLED, at_least=True),
    ]


def capture(device: str) -> list[Figure]:
    """Calls within the capture of a CUDA graph."""
    row = gpu_checks.capture_graph(device)
    said = float(row["value.new"] is Status.CAPTURING)
    return [Figure("graph captured with our calls inside, which say CAPTURING (1: yes)", said, "", 1, at_least=True)]


def memory(device: str) -> list[Figure]:
    """On the device."""
    found = {name: gpu_checks.device_bytes(device, level) / 2**20 for name, level in LEVELS.items()}
    return [Figure(f"memory on the device, {name}", mib, "MiB", 16) for name, mib in found.items()]


def overflow(device: str) -> list[Figure]:
    """Finite gradients whose squares their dtype cannot hold. Of a clip on CUDA the norm is torch's own, which is infinite."""
    figures = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for clip in (True, False):
            told, true = gpu_checks.norm_of_overflow(device, dtype, clip=clip)
            label = f"norm of finite gradients that overflow {str(dtype)[6:]}, {'clipped' if clip else 'not clipped'}"
            figures.append(Figure(label, told / true, "of the true one", None if clip and device == "cuda" else 1.01))
    return figures


def mixed_precision(device: str) -> list[Figure]:
    """Autocast, with GradScaler where it is float16; and a step that GradScaler leaves out."""
    figures = []
    for dtype in (torch.bfloat16, torch.float16):
        told, true = gpu_checks.norm_under_autocast(device, dtype)
        figures.append(Figure(f"norm under autocast to {str(dtype)[6:]}, off by", abs(told / true - 1), "", 1e-3))
    skipped = gpu_checks.skipped_by_scaler(device)
    return [*figures, Figure("steps told as skipped where GradScaler skipped 1", skipped, "", 1, at_least=True)]


def learning_rate(device: str) -> list[Figure]:
    """A tensor on the device that a schedule writes to in place."""
    told = gpu_checks.learning_rate_told(device)
    return [Figure("learning rate that is a tensor on the device, off by", abs(told / 0.01 - 1), "", 1e-6)]


def identical(device: str) -> list[Figure]:
    """Parameters and random numbers."""
    same = {name: float(gpu_checks.is_bit_identical(device, level)) for name, level in LEVELS.items()}
    return [Figure(f"parameters bit-identical, {name} (1: yes)", yes, "", 1, at_least=True) for name, yes in same.items()]


def overhead(device: str, rounds: int = 20) -> list[Figure]:
    """Update times of the small trainer, and clip and step of larger models, the variants in turns."""
    levels: dict[str, Level | None] = {"without us": None, **LEVELS}
    taken: dict[str, list[float]] = {name: [] for name in levels}
    for _ in range(rounds):
        for name, level in levels.items():
            taken[name].append(gpu_checks.update_ms(device, level, 4 * UPDATES))
    figures = _ratios("update time", taken, "without us")
    for kind, model in models(large=device == "cuda").items():
        model.to(device)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        clipped: dict[str, list[float]] = {"without us": [], "NORMAL": []}
        for _ in range(rounds):
            for name, times in clipped.items():
                times.append(gpu_checks.clip_and_step_ms(device, model, levels[name], 32))
        figures += _ratios(f"{kind}: clip and step", clipped, "without us")
        model.to("cpu")
    return figures


def overhead_quick(device: str) -> list[Figure]:
    """That it runs."""
    return overhead(device, 2)


def _ratios(what: str, taken: dict[str, list[float]], off: str) -> list[Figure]:
    found = {
        name: interval([[mine / base] for mine, base in zip(times, taken[off], strict=True)])
        for name, times in taken.items()
        if name != off
    }
    rows = [one.figure(f"{what}, {name}", f"x {off}") for name, one in found.items()]
    return [*rows, Figure(f"  {off}", median(taken[off]), "ms")]


def main() -> int:
    """Print the table."""
    args = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    os.environ["GRADWATCH_STRICT"] = "1"  # an error of our own is no measurement
    logging.getLogger("gradwatch").setLevel(logging.ERROR)  # a trainer of one check is blind for most detectors
    device = "cuda" if torch.cuda.is_available() else "cpu"
    on_cuda: list[Callable[[str], list[Figure]]] = [copies, sync_debug, stalled, capture, memory]
    anywhere = [overflow, mixed_precision, learning_rate, identical, overhead_quick if args.quick else overhead]
    figures, failed = [], []
    for check in [*(on_cuda if device == "cuda" else []), *anywhere]:
        try:
            figures += check(device)
        except Exception as error:
            traceback.print_exc()
            failed.append(f"FAILED: {check.__name__}: {type(error).__name__}: {str(error)[:200]}")
    notes = [f"device: {torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}", *failed]
    notes += [f"NOT RUN, there is no CUDA device: {check.__name__}" for check in on_cuda if device == "cpu"]
    print_table("what has to hold on a GPU", figures, notes=notes, args=args)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
