"""Everything that has to hold on a GPU: transfers and waits, a stalled device, memory, overflow. On a CPU what it can.

Counts are with us less without us over whole runs of a small PPO-like trainer (6 minibatches an update). The ratio of the
update time, the variants in turns, is of an update of a few ms: budgets are for whole PPO runs, see bench_ppo.py. What needs
CUDA is listed as not run where there is none; such a run says nothing of a GPU.
"""

from __future__ import annotations

import sys

from table import ROOT, Figure, arguments, median, print_table

sys.path.append(str(ROOT / "tests"))

import torch

from gradwatch_contracts.control import Level
from harness import gpu_checks

LEVELS = {"NORMAL": Level.NORMAL, "DEBUG": Level.DEBUG}
UPDATES = 8
ON_CUDA = ("copies and waits", "sync debug mode", "stalled device", "graph capture", "memory on the device")


def of_cuda(device: str) -> list[Figure]:
    """The checks that need a GPU."""
    figures = []
    for name, level in LEVELS.items():
        extra = gpu_checks.extra_calls(device, level, UPDATES)
        figures.append(Figure(f"copies to the host an update, {name}", extra["copies to the host"] / UPDATES, "", 1))
        figures.append(Figure(f"calls that wait an update, {name}", extra["waits"] / UPDATES, "", 0))
        rows = len(gpu_checks.train_under_sync_errors(device, level))
        figures.append(Figure(f"updates under set_sync_debug_mode('error'), {name}", rows, "of 3", 3, at_least=True))
        figures.append(Figure(f"memory on the device, {name}", gpu_checks.device_bytes(device, level) / 2**20, "MiB", 16))
    slowest, busy = gpu_checks.slowest_call_while_stalled(device)
    figures.append(Figure("slowest call while the device is stalled", slowest, "ms", 2))
    figures.append(Figure("  device still busy afterwards (1: yes)", float(busy), "", 1, at_least=True))
    capturing = gpu_checks.capture_graph(device)["value.new"]
    figures.append(Figure("graph captured with our calls inside (10: CAPTURING)", float(capturing), "status", 10))
    return figures


def anywhere(device: str, rounds: int) -> list[Figure]:
    """The checks that run on any device."""
    figures = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for clip in (True, False):
            told, true = gpu_checks.norm_of_overflow(device, dtype, clip=clip)
            label = f"norm of finite gradients that overflow {str(dtype)[6:]}, {'clipped' if clip else 'not clipped'}"
            figures.append(Figure(label, told / true, "of the true one", 1.01))
    taken: dict[str, list[float]] = {"without us": [], **{name: [] for name in LEVELS}}
    for _ in range(rounds):
        for name, times in taken.items():
            times.append(gpu_checks.update_ms(device, LEVELS.get(name), UPDATES))
    for name, level in LEVELS.items():
        ratios = [mine / off for mine, off in zip(taken[name], taken["without us"], strict=True)]
        figures.append(Figure(f"update time, {name}", median(ratios), "x without us"))
        same = float(gpu_checks.is_bit_identical(device, level))
        figures.append(Figure(f"  parameters bit-identical, {name} (1: yes)", same, "", 1, at_least=True))
    return figures


def main() -> None:
    """Print the table."""
    args = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    figures = [*(of_cuda(device) if cuda else []), *anywhere(device, 2 if args.quick else 20)]
    name = torch.cuda.get_device_name() if cuda else "CPU"
    notes = [f"device: {name}"] + [f"NOT RUN, there is no CUDA device: {check}" for check in ON_CUDA if not cuda]
    print_table("what has to hold on a GPU", figures, notes=notes, args=args)


if __name__ == "__main__":
    main()
