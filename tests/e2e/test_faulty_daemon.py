"""1,000 updates go on whatever becomes of the daemon: the same parameters, bounded memory, a bounded `close`."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from gradwatch_agent import watch
from gradwatch_agent.guard import own_errors
from gradwatch_agent.link import CLOSE_MARGIN_S, Link
from gradwatch_agent.outbox import Outbox
from harness.daemon_process import DaemonProcess, wait_for
from harness.faulty_daemon import FaultyDaemon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gradwatch_agent import Monitor

UPDATES = 1000
STRIKE = 100
"""The update after which the daemon is stopped or killed: the session is live by then."""

OUTBOX_BYTES = 256 * 1024
"""Less than 1,000 rows take, so that a daemon which takes none makes the outbox overflow."""

CLOSE_S = 0.2
MANY = 5
"""Times the declared limit: a hang is told from a busy machine."""


def train(mon: Monitor | None, updates: int = UPDATES, at: Callable[[int], None] | None = None) -> list[torch.Tensor]:
    """A tiny policy-gradient trainer: one minibatch an update. Returns its parameters and the next random number."""
    torch.set_num_threads(1)
    torch.manual_seed(5)
    network = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for update in range(updates):
        obs, old = torch.randn(8, 4), torch.full((8,), -0.7)
        logp = torch.log_softmax(network(obs), -1)[:, 0]
        loss = -(logp - old).exp().mean()
        if mon:
            mon.ppo(new_logp=logp, old_logp=old, loss=loss, clip=0.2)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        if mon:
            mon.step(env_steps=8 * update, seen=float(update))
        if at:
            at(update)
    return [*(parameter.detach().clone() for parameter in network.parameters()), torch.rand(1)]


@cache
def alone() -> list[torch.Tensor]:
    """The same without us."""
    return train(None)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own errors are raised; a small outbox; a short close."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    monkeypatch.setattr("gradwatch_contracts.limits.CLOSE_S", CLOSE_S)
    monkeypatch.setattr("gradwatch_agent.wiring.Outbox", lambda: Outbox(OUTBOX_BYTES, OUTBOX_BYTES))


def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users have it: on a busy machine nothing can be said of a small outbox or a short close but that both are bounded."""
    monkeypatch.setattr("gradwatch_agent.wiring.Outbox", Outbox)
    monkeypatch.setattr("gradwatch_contracts.limits.CLOSE_S", 10.0)


def watched(endpoint: str, level: str = "minimal") -> Monitor:
    """A monitor without a model of its own: the trainer's is made later, with its seed. Rows are as large at every level."""
    return watch(run="harmless", endpoint=endpoint, level=level)


def check_unharmed(mon: Monitor, parameters: list[torch.Tensor]) -> None:
    """The trainer's numbers are its own; what we hold is bounded and accounted for; closing is bounded and tells all."""
    outbox: Any = mon._outbox
    link: Any = mon._link
    assert mon.update == UPDATES
    assert all(map(torch.equal, parameters, alone()))
    assert outbox.bytes_held + outbox._inbox.bytes_held <= outbox._bytes_max + 3 * outbox._reserve_bytes
    begin = time.monotonic()
    mon.close()
    assert time.monotonic() - begin < MANY * (CLOSE_S + CLOSE_MARGIN_S)
    assert own_errors(mon) == own_errors(link) == {}
    assert not mon.active


@pytest.mark.parametrize(
    ("mode", "act"),
    [
        ("good", ""),
        ("good", "stop"),
        ("good", "kill"),
        ("slow", ""),
        ("garbage", ""),
        pytest.param("mute", "", marks=pytest.mark.campaign),
    ],
    ids=["good", "stopped", "killed", "slow", "garbage", "mute"],
)
def test_trainer_with_a_faulty_daemon_finishes_unharmed(
    tmp_path: Path, mode: str, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped one is still stopped when the last update ends, so nothing waited for it. One that serves gets every update."""
    if mode == "good" and not act:
        roomy(monkeypatch)
    with FaultyDaemon(f"ipc://{tmp_path}/daemon.ipc", mode) as daemon:
        mon = watched(daemon.endpoint, "normal" if act == "stop" else "minimal")
        if mode == "good":
            wait_for(lambda: mon._link is not None and mon._link.state == "live", "a session")

        def strike(update: int) -> None:
            if act and update == STRIKE:
                getattr(daemon, act)()

        check_unharmed(mon, train(mon, at=strike))
        outbox: Any = mon._outbox
        if mode == "good" and not act:
            assert outbox.lost == 0
        if mode == "mute" or act:
            assert outbox.lost > 0
        if mode == "garbage":
            assert mon._link is not None
            assert mon._link.bad_frames > 0


def test_trainer_without_a_daemon_finishes_unharmed(tmp_path: Path) -> None:
    """Nobody ever answers: the newest rows are kept, the oldest are told as lost."""
    mon = watched(f"ipc://{tmp_path}/none")
    check_unharmed(mon, train(mon))


def test_trainer_whose_link_thread_hangs_finishes_unharmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer shares nothing with the thread that it could wait for, and drops by itself what nobody takes."""
    hanging, entered = threading.Event(), threading.Event()

    def hang(self: Link, socket: object) -> None:
        entered.set()
        hanging.wait()

    monkeypatch.setattr(Link, "_turn", hang)
    mon = watched(f"ipc://{tmp_path}/none")
    try:
        assert entered.wait(10)
        check_unharmed(mon, train(mon))
    finally:
        hanging.set()


@pytest.mark.campaign
@pytest.mark.parametrize("act", ["stop", "kill", "none"])
def test_trainer_of_a_real_daemon_finishes_unharmed(tmp_path: Path, act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`gradwatch serve` itself, stopped or killed in the middle; after `none` it has every update."""
    with DaemonProcess(tmp_path) as daemon:
        monkeypatch.setenv("GRADWATCH_RUNTIME_DIR", str(daemon.runtime_dir))
        if act == "none":
            roomy(monkeypatch)
        mon = watched("auto")
        wait_for(lambda: mon._link is not None and mon._link.state == "live", "a session")

        def strike(update: int) -> None:
            if update == STRIKE and daemon.process is not None:
                {"stop": lambda: daemon.process.send_signal(19), "kill": daemon.kill, "none": nullcontext}[act]()

        check_unharmed(mon, train(mon, at=strike))
        if act == "none":
            wait_for(lambda: daemon.run("harmless")["state"] == "finished", "the run to finish")
            assert daemon.run("harmless")["coverage"] == {"received": UPDATES, "lost": 0, "share": 1.0, "thinned": 0}
