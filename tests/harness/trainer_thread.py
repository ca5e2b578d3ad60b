"""What the trainer's thread does in updates with us that it does not without us: files, sockets, locks, waits, zmq.

`python trainer_thread.py ENDPOINT LEVEL PLANT` trains against a daemon, or with GRADWATCH_SPOOL_DIR into a spool without one,
and prints that as a JSON list. Python's audit hooks see
files, sockets and processes; a profile function sees calls of C functions that may wait, and of modules that may. The first
update of each kind is left out: it imports. PLANT is one of `PLANTS`, done once in the middle of an update.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gradwatch_agent import watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

AUDITED = ("open", "os.", "socket.", "subprocess.", "shutil.", "tempfile.", "fcntl.", "time.", "ctypes.", "pty.", "signal.")
WAITS = frozenset(
    {"acquire", "sleep", "select", "poll", "epoll", "wait", "join", "get", "put", "recv", "send", "connect", "fsync"}
)
"""C functions that may wait, as long as they belong to one of `OWNERS`: `dict.get` does not wait."""

OWNERS = ("lock", "RLock", "socket", "SimpleQueue", "epoll", "poll", "Socket", "Context", "module")
FILES = (
    "/zmq/",
    "/threading.py",
    "/queue.py",
    "/socket.py",
    "/subprocess.py",
    "/tempfile.py",
    "/logging/",
    "/multiprocessing/",
)

PLANTS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "file": lambda: open(os.devnull, "rb").close(),
    "socket": lambda: socket.socket(socket.AF_UNIX).close(),
    "lock": lambda: threading.Lock().acquire(),
    "queue": lambda: queue.Queue().put(1),
    "sleep": lambda: time.sleep(0),
}


class Watcher:
    """Remembers what the main thread does while `recording`."""

    def __init__(self) -> None:
        self.recording = False
        self.seen: list[str] = []
        self._main = threading.get_ident()
        sys.addaudithook(self._audit)

    def record(self, work: Callable[[], None]) -> list[str]:
        """What the main thread does in `work`."""
        self.seen = []
        sys.setprofile(self._profile)
        self.recording = True
        try:
            work()
        finally:
            self.recording = False
            sys.setprofile(None)
        return self.seen

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if self.recording and threading.get_ident() == self._main and event.startswith(AUDITED):
            self.seen.append(f"audit {event} {str(args[:1])[:80]}")

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and any(part in frame.f_code.co_filename for part in FILES):
            self.seen.append(f"call {frame.f_code.co_name}")
        elif event == "c_call" and getattr(argument, "__name__", "") in WAITS:
            owner = type(getattr(argument, "__self__", None)).__name__
            if owner in OWNERS:
                self.seen.append(f"call {owner}.{argument.__name__}")


def train(mon: Any, network: nn.Module, optimizer: torch.optim.Optimizer, plant: Callable[[], Any]) -> None:
    """One update with every call."""
    obs = torch.ones(8, 4)
    if mon:
        mon.rollout(rewards=obs[:, 0], values=obs[:, 1], returns=obs[:, 2], advantages=obs[:, 3], observations=obs)
    for _ in range(3):
        logp = torch.log_softmax(network(obs), -1)[:, 0]
        loss = logp.mean()
        plant()
        if mon:
            mon.ppo(new_logp=logp, old_logp=logp.detach(), entropy=-logp, values=logp, returns=obs[:, 0], loss=loss, clip=0.2)
            mon.recurrent(obs, obs)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
    if mon:
        mon.log({"loss": loss.detach()})
        mon.step(env_steps=1, episode_returns=[1.0], lr=0.1)


def main() -> None:
    """Record updates without us, then with us, and print the difference."""
    endpoint, level, plant = sys.argv[1], sys.argv[2], PLANTS[sys.argv[3]]
    torch.set_num_threads(1)
    network = nn.Linear(4, 2)
    optimizer = torch.optim.Adam(network.parameters())
    watcher = Watcher()

    def updates(mon: Any, act: Callable[[], Any] = lambda: None) -> list[str]:
        train(mon, network, optimizer, lambda: None)
        return watcher.record(lambda: [train(mon, network, optimizer, act) for _ in range(3)] and None)

    without = set(updates(None))
    mon = watch(network, optimizer, run="quiet", endpoint=endpoint, level=level)
    spool = os.environ.get("GRADWATCH_SPOOL_DIR", "")
    if spool:
        train(mon, network, optimizer, lambda: None)
    while not (list(Path(spool).rglob("*.seg")) if spool else mon._link is not None and mon._link.state == "live"):
        time.sleep(0.01)
    with_us = updates(mon, plant)
    assert mon._outbox.accepted > 0
    mon.close()
    print(json.dumps(sorted(set(with_us) - without)))


if __name__ == "__main__":
    main()
