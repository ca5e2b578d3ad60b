"""What has to hold on a GPU, each check a function of the device. The first three are of CUDA; the others run anywhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness import ppo_run
from harness.recording import monitoring, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.optim import Optimizer

SYNCS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize", "cudaMemcpy")
STALL_CYCLES = 400_000_000
"""Clock cycles for which the GPU is kept busy: 200 to 300 ms."""


def opener(level: Level) -> tuple[ppo_run.Watch, Callable[[], list[dict[str, Any]]]]:
    """A `watch` for `ppo_run.train` that keeps its rows here, and what reads them."""
    opened: list[Any] = []

    def watched(model: nn.Module, optimizer: Optimizer) -> Any:
        context = monitoring(modules=(model,), optimizers=(optimizer,), level=level)
        monitor, record = context.__enter__()
        opened.append((context, record))
        return monitor

    return watched, lambda: [read(row) for row in opened[-1][1].rows]


def runtime_calls(device: str, updates: int, watch: ppo_run.Watch | None) -> Counter[str]:
    """Copies from the device to the host, and calls that wait, as the profiler counts them over a whole run."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler, torch.device(device):
        ppo_run.train(updates, watch)
        torch.cuda.synchronize()
    counted: Counter[str] = Counter()
    for event in profiler.events() or ():
        if event.name.startswith("Memcpy DtoH"):
            counted["copies to the host"] += 1
        elif event.name in SYNCS:
            counted["waits"] += 1
    return counted


def extra_calls(device: str, level: Level, updates: int = 4) -> Counter[str]:
    """What we add to them. One transfer an update is `updates` copies and no wait."""
    runtime_calls(device, 1, None)  # the first session of a process may miss records
    without = runtime_calls(device, updates, None)
    with_us = runtime_calls(device, updates, opener(level)[0])
    with_us.subtract(without)
    return with_us


def train_under_sync_errors(device: str, level: Level) -> list[dict[str, Any]]:
    """A whole run in which any call that waits for the GPU raises; its rows."""
    watched, rows = opener(level)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.device(device):
            ppo_run.train(3, watched)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return rows()


def slowest_call_while_stalled(device: str) -> tuple[float, bool]:
    """The slowest of our calls in an update begun while the GPU is busy, ms, and whether it was busy still at the end."""
    on: dict[str, Any] = {"device": device}
    network = nn.Linear(4, 2, **on)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with monitoring(modules=(network,), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, _):
        for _ in range(3):  # what is allocated once is allocated
            list(calls_of_an_update(monitor, network, optimizer, on))
        torch.cuda.synchronize()
        finished = torch.cuda.Event()  # type: ignore[no-untyped-call]
        torch.cuda._sleep(STALL_CYCLES)  # type: ignore[no-untyped-call]
        finished.record()  # type: ignore[no-untyped-call]
        slowest = max(calls_of_an_update(monitor, network, optimizer, on))
        busy = not finished.query()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return slowest * 1e3, busy


def calls_of_an_update(monitor: Any, network: nn.Module, optimizer: Optimizer, on: dict[str, Any]) -> Iterator[float]:
    """Every call of ours, hooks included; seconds of each."""
    samples = {name: torch.zeros(64, **on) for name in ("new_logp", "old_logp", "values", "returns", "advantages", "entropy")}
    loss = network(torch.ones(64, 4, **on)).mean()
    torch.autograd.backward(loss)
    for call in (
        lambda: monitor.rollout(rewards=samples["values"], observations=samples["returns"]),
        lambda: monitor.ppo(**samples, loss=loss, clip=0.2),
        lambda: monitor.recurrent(samples["values"], samples["returns"]),
        lambda: nn.utils.clip_grad_norm_(network.parameters(), 0.5),
        optimizer.step,
        lambda: monitor.log(loss=loss),
        lambda: monitor.step(episode_returns=samples["values"]),
    ):
        begin = time.perf_counter()
        call()
        yield time.perf_counter() - begin


def capture_graph(device: str) -> dict[str, Any]:
    """A CUDA graph captured around a minibatch with our calls in it, and replayed; the row of that update."""
    static = torch.zeros(64, device=device)
    network = nn.Linear(64, 1, device=device)
    with monitoring(modules=(network,), sync=True) as (monitor, record):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            value = network(static)
            monitor.ppo(values=value, returns=value, loss=value.mean())
            monitor.recurrent(value)
        graph.replay()
        monitor.step()
        return record.last


def device_bytes(device: str, level: Level) -> int:
    """Memory we hold on the GPU at the most, over a run."""
    peaks = []
    for watched in (None, opener(level)[0]):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        with torch.device(device):
            ppo_run.train(3, watched)
        peaks.append(torch.cuda.max_memory_allocated())
    return peaks[1] - peaks[0]


def norm_of_overflow(device: str, dtype: torch.dtype, *, clip: bool) -> tuple[float, float]:
    """The norm told of finite gradients whose squares the dtype cannot hold, and the true one."""
    size = 6e4 if dtype is torch.float16 else 1e20
    network = nn.Linear(8, 8, bias=False, device=device, dtype=dtype)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    network.weight.grad = torch.full_like(network.weight, size)
    true = float(network.weight.grad.double().norm())
    with monitoring(modules=(network,), optimizers=(optimizer,), sync=True) as (monitor, record):
        if clip:
            nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        monitor.step()
        told = record.last["grad.norm"]
    return (math.nan if isinstance(told, Status) else told[1]), true


def is_bit_identical(device: str, level: Level) -> bool:
    """Whether the parameters and the random numbers of a run are the same with us."""
    ends = []
    for watched in (None, opener(level)[0]):
        with torch.device(device):
            ends.append(ppo_run.train(3, watched))
    return all(map(torch.equal, *ends))


def update_ms(device: str, level: Level | None, updates: int) -> float:
    """Time of an update, ms, the device waited for at the end; None without us."""
    watched = None if level is None else opener(level)[0]
    with torch.device(device):
        ppo_run.train(1, watched)
        begin = time.perf_counter()
        ppo_run.train(updates, watched)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / updates * 1e3
