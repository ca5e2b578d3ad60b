"""Ctrl-C may land after any call of ours, and a notebook goes on: torch's state and the next rows must be whole."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad

from gradwatch_agent.collect.exemplars import ExemplarCollector
from gradwatch_agent.collect.rows import INTERRUPTED
from gradwatch_agent.cycle import UpdateCycle
from gradwatch_agent.device.clip import PARAMETERS
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring, open_monitor, read

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from gradwatch_agent import Monitor
    from harness.recording import Record

pytestmark = pytest.mark.usefixtures("strict")

AGENT = str(Path(__file__).parents[3] / "agent/gradwatch_agent")
POINTS_LEAST = 100
"""An update has some hundreds of points at any level."""

ORIGINALS = {name: getattr(clip_grad, name) for name in PARAMETERS}


class Interrupt:
    """Raises KeyboardInterrupt at the point number `at` of our code where Python looks for signals: as a function begins, or as
    a call has returned. Counts all of them while that is never reached."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.points = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """See sys.setprofile."""
        if event in {"call", "c_return"} and frame.f_code.co_filename.startswith(AGENT):
            self.points += 1
            if self.points == self._at:
                sys.setprofile(None)
                raise KeyboardInterrupt


def trained(network: nn.Module, optimizer: torch.optim.Optimizer, monitor: Monitor) -> None:
    """One update that is the same each time: nothing moves."""
    obs = torch.ones(6, 2)
    monitor.rollout(rewards=obs[:, 0], values=obs[:, 1], returns=obs[:, 0], observations=obs)
    for _ in range(2):
        logp = torch.log_softmax(network(obs), -1)[:, 0]
        monitor.ppo(new_logp=logp, old_logp=logp.detach(), entropy=-logp, values=logp, returns=logp, loss=logp.mean(), clip=0.2)
        monitor.recurrent(obs, obs)
        optimizer.zero_grad()
        torch.autograd.backward(logp.mean())
        clip_grad.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
    monitor.step(env_steps=1, episode_returns=obs[:, 0], scalar=logp.mean())


def interrupted(level: Level, at: int) -> tuple[int, Record]:
    """Train an update, one that is interrupted at that point, and two more; how many points the second has."""
    torch.manual_seed(0)
    network = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    monitor, record = open_monitor(modules=(network,), optimizers=(optimizer,), level=level)
    interrupt = Interrupt(at)
    trained(network, optimizer, monitor)
    try:
        sys.setprofile(interrupt)
        trained(network, optimizer, monitor)
    except KeyboardInterrupt:
        assert torch.is_grad_enabled(), "gradients stayed off"
        monitor.step()
    finally:
        sys.setprofile(None)
    for _ in range(2):
        trained(network, optimizer, monitor)
    monitor.close()
    told = len(record.rows) + sum(count for count, _ in record.losses)
    assert told >= monitor.update, "an update is neither sent nor lost"  # a loss may be told of one that is sent after all
    assert {name: getattr(clip_grad, name) for name in PARAMETERS} == ORIGINALS
    return interrupt.points, record


def alike(got: dict[str, Any], expected: dict[str, Any]) -> bool:
    """The same statuses, and the same numbers but for the last bit of a float32: that one follows the alignment of memory."""
    numbers = {name: value for name, value in expected.items() if not isinstance(value, Status)}
    statuses = {name: value for name, value in expected.items() if isinstance(value, Status)}
    same = all(got[name] == pytest.approx(value, rel=1e-6, abs=1e-6, nan_ok=True) for name, value in numbers.items())
    return same and {name: got[name] for name in statuses} == statuses and got.keys() == expected.keys()


def check(level: Level, points: int | None) -> None:
    """The last row of an interrupted run is that of an undisturbed one, wherever the interrupt was."""
    total, undisturbed = interrupted(level, at=-1)
    assert total > POINTS_LEAST, "the profile function was not called"
    expected = {name: value for name, value in undisturbed.last.items() if not name.startswith("sys.")}
    step = 1 if points is None else total // points
    for at in range(1, total, step):
        _, record = interrupted(level, at)
        got = {name: value for name, value in read(record.rows[-1]).items() if name in expected}
        assert alike(got, expected), f"point {at} of {total}"
        assert not record.events


def check_alone(level: Level, points: int | None) -> None:
    """In a process of its own: in one that has run other tests, a profile function was now and then never called."""
    found = {**os.environ, "GRADWATCH_STRICT": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, __file__, level.name, str(points or "")]
    done = subprocess.run(command, env=found, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_run_interrupted_anywhere_goes_on_whole() -> None:
    """Some points of an update, spread evenly, at the level that does most."""
    check_alone(Level.DEBUG, points=14)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("level", [Level.NORMAL, Level.DEBUG])
def test_run_interrupted_at_every_point_goes_on_whole(level: Level) -> None:
    """All of them."""
    check_alone(level, points=None)


def test_watched_objects_are_copied_and_pickled_without_us() -> None:
    """Target networks, checkpoints, sub-processes: none of them takes a monitor along."""
    network = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, _):
        trained(network, optimizer, monitor)
        for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
            assert not getattr(copied, "_optimizer_step_pre_hooks", {})
        for module in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(module.weight, network.weight)
        assert b"gradwatch" not in pickle.dumps((network, network.state_dict(), optimizer, optimizer.state_dict()))


def test_interrupt_as_the_row_is_begun_is_told_as_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first line of what makes the row: the update counts on, so its row has to be accounted for."""

    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    with monitoring() as (monitor, record):
        with monkeypatch.context() as patched:
            patched.setattr(UpdateCycle, "_finish", interrupt)
            with pytest.raises(KeyboardInterrupt):
                monitor.step()
        monitor.step()
    assert (monitor.update, len(record.rows), record.losses) == (2, 1, [(1, INTERRUPTED)])


def test_interrupt_while_transitions_are_chosen_leaves_no_kind_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """At DEBUG: the end of the update goes over what is held, and would fail on a kind of which nothing is."""
    logp = torch.zeros(4)
    with monitoring(level=Level.DEBUG) as (monitor, record):
        with monkeypatch.context() as patched:
            patched.setattr(ExemplarCollector, "_gather", _interrupted_at_the_end(ExemplarCollector._gather))
            with pytest.raises(KeyboardInterrupt):
                monitor.ppo(new_logp=logp, old_logp=logp)
        monitor.step()
    assert len(record.rows) == 1
    assert not record.losses


def _interrupted_at_the_end(gather: Callable[..., None]) -> Callable[..., None]:
    """The same, with Ctrl-C as the last tensor of it is made."""

    def interrupt(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    def call(*given: object) -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(torch, "stack", interrupt)
            gather(*given)

    return call


if __name__ == "__main__":
    check(Level[sys.argv[1]], points=int(sys.argv[2]) if sys.argv[2] else None)
