"""What has to hold on a GPU, each check a function of the device. Those down to `device_bytes` are of CUDA; the others run
anywhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gradwatch_agent.collect.rows import DEVICE_BUSY
from gradwatch_agent.device.transfer import SLOTS
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness import ppo_run
from harness.recording import monitoring, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.optim import Optimizer

SYNCS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize", "cudaMemcpy")
WARM_UP = 4
"""Updates that are not timed."""

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

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        ppo_run.train(updates, watch, device=device)
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
        ppo_run.train(3, watched, device=device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return rows()


def slowest_call_while_stalled(device: str) -> tuple[float, bool]:
    """The slowest of our calls in an update begun while the GPU is busy, ms, and whether it was busy still at the end."""
    on: dict[str, Any] = {"device": device}
    network = nn.Linear(4, 2, **on)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with monitoring(modules=(network,), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, _):
        for _ in range(2 * SLOTS):  # what is allocated once is allocated
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
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):  # libraries make their handles before a capture, as torch's manual has it
        torch.autograd.backward(network(static).mean())
    torch.cuda.synchronize()
    with monitoring(modules=(network,), sync=True) as (monitor, record):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            value = network(static)
            monitor.ppo(values=value, returns=value, loss=value.mean())
            monitor.recurrent(value)
        graph.replay()
        monitor.step()
        return record.last


def updates_while_stalled(device: str, updates: int) -> tuple[float, int, int]:
    """The GPU is busy for some updates, more than copies may be under way: the slowest of our calls, ms, how many updates were
    told as lost for it, and in how many rows the value arrived once the GPU went on."""
    with monitoring(sync=False) as (monitor, record):
        number = torch.ones((), device=device)
        for _ in range(2 * SLOTS):  # every slot is pinned once
            monitor.step(number=number)
        wait(device)
        monitor.step()
        before, slowest = len(record.rows), 0.0
        torch.cuda._sleep(STALL_CYCLES)  # type: ignore[no-untyped-call]
        for _ in range(updates):
            begin = time.perf_counter()
            monitor.step(number=number)
            slowest = max(slowest, time.perf_counter() - begin)
        wait(device)
        monitor.step()
        told = [read(row).get("user/number") for row in record.rows[before:]]
        lost = sum(count for count, reason in record.losses if reason == DEVICE_BUSY)
    return slowest * 1e3, lost, sum(value == 1.0 for value in told)


def device_bytes(device: str, level: Level) -> int:
    """Memory we hold on the GPU at the most, over a run."""
    peaks = []
    for watched in (None, opener(level)[0]):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        ppo_run.train(3, watched, device=device)
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
        ends.append(ppo_run.train(3, watched, device=device))
    return all(map(torch.equal, *ends))


def update_ms(device: str, level: Level | None, updates: int) -> float:
    """Time of an update, ms, the device waited for at both ends; None without us. `watch` and `close` are not in it."""
    marks = []

    def mark(done: int) -> None:
        if done in (WARM_UP, WARM_UP + updates):
            wait(device)
            marks.append(time.perf_counter())

    ppo_run.train(WARM_UP + updates, None if level is None else opener(level)[0], device=device, at_end=mark)
    return (marks[1] - marks[0]) / updates * 1e3


def clip_and_step_ms(device: str, model: nn.Module, level: Level | None, times: int) -> float:
    """Time of a clip and a step of a model with gradients, ms, in updates of 16 of them; None without us."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def step_often(monitor: Any) -> float:
        begin = time.perf_counter()
        for number in range(1, times + 1):
            nn.utils.clip_grad_norm_(model.parameters(), 1e9)
            optimizer.step()
            if monitor is not None and number % 16 == 0:
                monitor.step()
        wait(device)
        return (time.perf_counter() - begin) / times * 1e3

    if level is None:
        step_often(None)
        return step_often(None)
    with monitoring(modules=(model,), optimizers=(optimizer,), level=level) as (monitor, _):
        step_often(monitor)
        return step_often(monitor)


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def learning_rate_told(device: str) -> float:
    """`opt.lr` of an optimizer whose learning rate is a tensor on the device that a schedule writes to in place: 0.01 was the
    last step's. On CUDA nothing may wait for it."""
    network = nn.Linear(4, 2, device=device)
    rate = torch.tensor(0.5, device=device)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, capturable=rate.is_cuda)
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        for _ in range(2):
            network(torch.ones(8, 4, device=device)).mean().backward()
            with no_waits(device):
                rate.fill_(0.01)
                optimizer.step()
                rate.fill_(0.25)
                monitor.step()
        wait(device)
        monitor.step()
        return float(read(record.rows[1])["opt.lr"])


@contextmanager
def no_waits(device: str) -> Iterator[None]:
    """Whatever waits for CUDA in here raises."""
    if torch.device(device).type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def norm_under_autocast(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """The gradient norm told of an update under autocast, and the true one. With float16 the loss is scaled, and unscaled
    before the clip."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1)).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler(device, enabled=dtype is torch.float16)
    with monitoring(modules=(network,), optimizers=(optimizer,), sync=True) as (monitor, record):
        with torch.autocast(device, dtype=dtype):
            values = network(torch.randn(64, 16, device=device))[:, 0]
            loss = values.float().square().mean()
            monitor.ppo(values=values, returns=values.detach() + 1, loss=loss)
        torch.autograd.backward(scaler.scale(loss))
        scaler.unscale_(optimizer)
        true = math.sqrt(sum(float(parameter.grad.double().square().sum()) for parameter in network.parameters()))  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
        monitor.step()
        return record.last["grad.norm"][1], true


def skipped_by_scaler(device: str) -> float:
    """`opt.skipped` of an update whose scaled gradients overflow, so that GradScaler leaves its only step out."""
    network = nn.Linear(4, 1, device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**120)
    with monitoring(modules=(network,), optimizers=(optimizer,), sync=True) as (monitor, record):
        loss = (network(torch.full((8, 4), 1e4, device=device)) * 1e4).mean()
        monitor.ppo(loss=loss)
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()
        monitor.step()
        return float(record.last["opt.skipped"])
