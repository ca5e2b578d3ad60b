"""Would one kernel of our own for the norms of all gradients be faster than torch's `_foreach_norm`? Asked of a GPU.

The kernel is a prototype and part of nothing: one Triton program for every few thousand numbers of any tensor, which finds the
tensor by a table of addresses. Gradients are made anew by each backward pass, so the table is brought over for every call; the
line without that is the best that a kernel could do. Times are of the host with the device waited for at the end of many calls.
Without a GPU nothing is timed; with Triton and TRITON_INTERPRET=1 the kernel's numbers are still compared with float64.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import torch

from bench_clip import models
from table import Figure, arguments, median, print_table

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

BLOCK = 4096
CALLS = 50

if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator, unused-ignore]
    def square_sums(addresses, sizes, tensor_of, first_of, sums, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803, PLR0917
        """Add the squares of one block to the sum of the tensor it is of."""
        tensor = tl.load(tensor_of + tl.program_id(0))
        numbers = tl.load(addresses + tensor).to(tl.pointer_type(tl.float32))
        at = tl.load(first_of + tl.program_id(0)) + tl.arange(0, BLOCK)
        found = tl.load(numbers + at, mask=at < tl.load(sizes + tensor), other=0.0)
        tl.atomic_add(sums + tensor, tl.sum(found * found, 0))


class Kernel:
    """Norms of float32 tensors of these sizes, one launch for all."""

    def __init__(self, tensors: list[Tensor]) -> None:
        blocks = [(number, first) for number, tensor in enumerate(tensors) for first in range(0, tensor.numel(), BLOCK)]
        device = tensors[0].device
        self._tensor_of, self._first_of = (torch.tensor(column, device=device) for column in zip(*blocks, strict=True))
        self._sizes = torch.tensor([tensor.numel() for tensor in tensors], device=device)
        self._blocks, self._pin = len(blocks), device.type == "cuda"
        self._addresses = self.addresses(tensors)

    def addresses(self, tensors: list[Tensor]) -> Tensor:
        """Where they lie, told to the device without waiting for it."""
        table = torch.tensor([tensor.data_ptr() for tensor in tensors], pin_memory=self._pin)
        return table.to(tensors[0].device, non_blocking=True)

    def norms(self, tensors: list[Tensor] | None) -> Tensor:
        """The norms of these, or of those that lie where the last ones lay."""
        if tensors is not None:
            self._addresses = self.addresses(tensors)
        sums = torch.zeros(len(self._sizes), device=self._sizes.device)
        square_sums[(self._blocks,)](self._addresses, self._sizes, self._tensor_of, self._first_of, sums, BLOCK=BLOCK)
        return sums.sqrt_()


def time_us(call: Callable[[], object]) -> float:
    """Mean of many calls, until the device has done them."""
    call()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(CALLS):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / CALLS * 1e6


def off_by(norms: Tensor, grads: list[Tensor]) -> float:
    """The largest relative error, in millionths."""
    true = torch.stack([grad.double().norm() for grad in grads])
    return float(((norms.double() - true).abs() / true).max()) * 1e6


def of_model(name: str, grads: list[Tensor], rounds: int, timed: bool) -> list[Figure]:
    """All ways in turns."""
    ways: dict[str, Callable[[], Any]] = {
        "_foreach_norm": lambda: torch.stack(torch._foreach_norm(grads)),  # type: ignore[arg-type]
        "_foreach_norm in float64": lambda: torch.stack(torch._foreach_norm(grads, dtype=torch.float64)),  # type: ignore[call-arg, arg-type]
    }
    if triton is not None:
        kernel = Kernel(grads)
        ways |= {"one kernel": lambda: kernel.norms(grads), "one kernel, addresses known": lambda: kernel.norms(None)}
    figures = [Figure(f"{name}: {way}, off by", off_by(call(), grads), "ppm") for way, call in ways.items()]
    if not timed:
        return figures
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, call in ways.items():
            taken[way].append(time_us(call))
    base = ("_foreach_norm", median(taken["_foreach_norm"]))
    return figures + [Figure(f"{name}: {way}", median(times), "us", baseline=base) for way, times in taken.items()]


def main() -> int:
    """Print the table."""
    args = arguments(__doc__).parse_args()
    cuda = torch.cuda.is_available()
    if not cuda and not (triton is not None and os.environ.get("TRITON_INTERPRET")):
        print("There is no CUDA device, so nothing is timed; with Triton and TRITON_INTERPRET=1 the numbers are compared.")
        return 0
    figures: list[Figure] = []
    for name, model in models(large=cuda).items():
        grads = [parameter.grad.to("cuda" if cuda else "cpu") for parameter in model.parameters() if parameter.grad is not None]
        figures += of_model(name, grads if cuda else grads[:4], 3 if args.quick else 20, cuda)
    notes = [f"device: {torch.cuda.get_device_name() if cuda else 'CPU, interpreted: the first four tensors of each'}"]
    notes += ["NOT RUN, Triton is absent: one kernel"] if triton is None else []
    print_table("norms of all gradients in one kernel", figures, notes=notes, args=args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
