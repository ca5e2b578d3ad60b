"""After `close` nothing of ours is left: no hook, no wrapped function, no reference that keeps the trainer's objects alive."""

from __future__ import annotations

import copy
import gc
import logging
import signal
import sys
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad
from torch.optim import optimizer as optimizer_module

from gradwatch_agent import watch
from gradwatch_agent.device.clip import CLIP_WATCH, PARAMETERS
from gradwatch_agent.exits import EXITS
from harness.ppo_run import Network, train
from harness.recording import monitoring, open_monitor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own errors are raised; closing does not wait for a daemon that is not there."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    monkeypatch.setattr("gradwatch_contracts.limits.CLOSE_S", 0.01)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only reference counts free: a model on a GPU must not wait for the next garbage collection."""
    train(1, None)  # torch's own first use leaves cycles behind
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def traces() -> dict[str, Any]:
    """Whatever of a process the agent touches while a monitor is open."""
    return {
        "torch": [getattr(clip_grad, name) for name in PARAMETERS],
        "hooks": [dict(hooks) for name, hooks in vars(torch.nn.modules.module).items() if name.endswith("_hooks")],
        "optimizer hooks": [dict(optimizer_module._global_optimizer_pre_hooks)],
        "excepthook": sys.excepthook,
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)],
        "threads": {thread.name for thread in threading.enumerate()},
        "filters": list(warnings.filters),
        "handlers": list(logging.getLogger().handlers) + list(logging.getLogger("gradwatch").handlers),
        "monitors": EXITS.monitors,
        "watched": dict(CLIP_WATCH._watched),
        "grad": torch.is_grad_enabled(),
        "threads of torch": torch.get_num_threads(),
    }


@pytest.mark.parametrize("level", ["off", "normal", "debug"])
def test_whole_run_leaves_no_trace_in_the_process(tmp_path: Path, level: str) -> None:
    """Functions of torch, exit hooks, signal handlers, threads, warnings, handlers of logging: as before."""
    train(1, None)  # torch's own first use leaves traces
    before = traces()
    train(2, lambda model, optimizer: watch(model, optimizer, run="trace", endpoint=f"ipc://{tmp_path}/none", level=level))
    assert traces() == before


def test_open_monitor_takes_no_signal_handler(tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM are the trainer's own business from the first moment."""
    before = traces()["signals"]
    mon = watch(Network(), run="signals", endpoint=f"ipc://{tmp_path}/none")
    assert traces()["signals"] == before
    mon.close()


@pytest.mark.parametrize("level", ["normal", "debug"])
@pytest.mark.usefixtures("no_collector")
def test_closed_monitor_keeps_neither_model_nor_optimizer_alive(tmp_path: Path, level: str) -> None:
    """Although the trainer keeps the monitor: a notebook's `mon` stays for hours, and with it would the GPU's memory."""
    kept: list[Any] = []
    alive: list[weakref.ref[Any]] = []

    def watched(model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        kept.append(watch(model, optimizer, run="alive", endpoint=f"ipc://{tmp_path}/none", level=level))
        alive.extend([weakref.ref(model), weakref.ref(optimizer), weakref.ref(next(model.parameters()))])
        return kept[0]

    train(2, watched)
    assert [reference() for reference in alive] == [None] * len(alive)
    assert not kept[0].active


@pytest.mark.usefixtures("no_collector")
def test_refused_monitor_keeps_no_model_alive() -> None:
    """A daemon that refuses the run ends the watch at the next update."""
    network: nn.Module | None = nn.Linear(2, 2)
    assert network is not None
    alive = weakref.ref(network)
    monitor, _ = open_monitor(modules=(network,))
    network = None
    monitor.refused = True
    monitor.step()
    assert alive() is None


def test_hooks_of_a_closed_monitor_are_gone_from_its_optimizers() -> None:
    """Each of several; the hook somebody else placed stays."""
    models = (nn.Linear(1, 1), nn.Linear(1, 1))
    optimizers = tuple(torch.optim.SGD(model.parameters(), lr=0.1) for model in models)
    theirs = optimizers[0].register_step_pre_hook(lambda *_: None)
    with monitoring(modules=models, optimizers=optimizers):
        assert [len(optimizer._optimizer_step_pre_hooks) for optimizer in optimizers] == [2, 1]
    assert [len(optimizer._optimizer_step_pre_hooks) for optimizer in optimizers] == [1, 0]
    theirs.remove()


def test_close_while_device_and_daemon_hang_waits_within_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """One limit for all that `close` waits for: the device has its half, the link what is left."""
    limit = 0.2
    monkeypatch.setattr("gradwatch_contracts.limits.CLOSE_S", limit)
    given: list[float] = []
    drained: list[float] = []

    class SlowLink:
        """Remembers how long it may wait."""

        def close(self, timeout_s: float, reason: str) -> None:
            """See Link."""
            given.append(timeout_s)

    with monitoring() as (monitor, _):
        monitor._link = SlowLink()  # type: ignore[assignment]
        monkeypatch.setattr(type(monitor._rows), "drain", lambda self, timeout_s: drained.append(timeout_s))
    assert drained == [limit / 2]
    assert 0 <= given[0] <= limit


@pytest.mark.usefixtures("no_collector")
def test_closed_monitor_keeps_no_probe_alive(tmp_path: Path) -> None:
    """A probe is a part of the model, and the link that says HELLO stays as long as the monitor does."""
    trunk: nn.Module | None = nn.Sequential(nn.Linear(2, 2))
    alive = weakref.ref(trunk)
    monitor = watch(run="probe", endpoint=f"ipc://{tmp_path}/none", probe=trunk)
    trunk = None
    monitor.close()
    assert alive() is None
    assert not monitor.active


@pytest.mark.usefixtures("no_collector")
def test_network_outside_the_model_that_is_clipped_is_not_kept_alive() -> None:
    """Trainers that make one anew in each update, and clip it with the model, would find sixteen of them on the device."""
    network = nn.Linear(2, 2)
    with monitoring(modules=(network,)) as (monitor, _):
        clone: nn.Module | None = copy.deepcopy(network)
        assert clone is not None
        alive = [weakref.ref(parameter) for parameter in clone.parameters()]
        (network(torch.ones(1, 2)) + clone(torch.ones(1, 2))).sum().backward()
        clip_grad.clip_grad_norm_([*network.parameters(), *clone.parameters()], 1.0)
        clone = None
        monitor.step()
        assert [reference() for reference in alive] == [None, None]
