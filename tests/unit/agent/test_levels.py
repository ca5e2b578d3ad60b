"""A level really changes what is collected, and escalations change the level at update boundaries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Active, Desired, Level
from gradwatch_contracts.signals import COLUMNS
from harness.recording import monitoring, read

pytestmark = pytest.mark.usefixtures("strict")


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's allocator, read in every update."""
    monkeypatch.setattr("gradwatch_agent.collect.measurement.allocated_bytes", lambda devices: 512)
    monkeypatch.setattr("gradwatch_agent.collect.measurement.READ_EVERY", 1)
    monkeypatch.setattr("gradwatch_agent.collect.features.START_UPDATES", 1)
    monkeypatch.setattr("gradwatch_agent.collect.probe.PERIOD", {})


class Counter(TorchDispatchMode):
    """Counts the operators that reach the device."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.total += 1
        return func(*args, **(kwargs or {}))


def one_update(monitor: Any, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """An update in which everything is called; `actions` fit both kinds of space."""
    with monitor.phase("update"):
        pass
    monitor.rollout(
        **{name: torch.ones(4, 2) for name in ("rewards", "values", "returns", "advantages")},
        observations=torch.arange(16.0).reshape(4, 2, 2), actions=torch.ones(4, 2), normalizer=(torch.ones(2), torch.ones(2)),
        obs_clip=1.0,
    )  # fmt: skip
    for _ in range(4):
        output = network(torch.ones(8, 3))[:, 0]
        monitor.ppo(
            new_logp=output, old_logp=output.detach(), entropy=output, values=output, returns=torch.ones(8),
            advantages=torch.ones(8), clip=0.2, loss=output.sum(), std=torch.ones(2),
        )  # fmt: skip
        state = output.reshape(4, 2)
        monitor.recurrent(state, state, reset=torch.zeros(4))
        optimizer.zero_grad()
        output.sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
    monitor.step(env_steps=1, episode_returns=[1.0], episode_lengths=[3], truncated=[False], eval_return=1.0, scalar=2.0)


PROBE = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
DISCRETE, BOX = type("Discrete", (), {"n": 2})(), type("Box", (), {"low": (0.0, 0.0), "high": (1.0, 1.0)})()


def trained(level: Level, updates: int = 3, space: object = DISCRETE) -> tuple[dict[str, Any], int]:
    """The last row at a level, and the operators of its update."""
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    optimizer = torch.optim.Adam([{"params": [network.weight], "name": "weight"}, {"params": [network.bias]}])
    with monitoring(modules=(network,), optimizers=(optimizer,), level=level, action_space=space, probe=PROBE) as (
        monitor,
        record,
    ):
        for _ in range(updates - 1):
            one_update(monitor, network, optimizer)
        with Counter() as counter:
            one_update(monitor, network, optimizer)
        return record.last, counter.total


@pytest.mark.parametrize("level", list(Level))
def test_level_decides_for_every_column_of_the_registry(level: Level) -> None:
    """With everything called, a column is measured if and only if the level includes it; the rest says LEVEL."""
    row, box = trained(level)[0], trained(level, space=BOX)[0]
    row.update({key: value for key, value in box.items() if not isinstance(value, Status) or key not in row})
    for name, spec in COLUMNS.items():
        layer = "0" if name.endswith("norm") else "1"
        subject = {"key": "scalar", "phase": "update", "group": "weight", "head": "", "layer": layer}.get(spec.per, "")
        key = f"{name}/{subject}" if subject else name
        if spec.level > level:
            assert row.get(key, Status.LEVEL) is Status.LEVEL, key
        elif name.endswith("nonfinite_mb"):
            assert row[key] is Status.UNDEFINED, key
        else:
            assert not isinstance(row[key], Status), (key, row[key])


def test_level_operators_rise_from_off_to_debug() -> None:
    """What a level costs on the device; OFF and MINIMAL cost nothing there."""
    counts = {level: trained(level)[1] for level in Level}
    assert counts[Level.OFF] == counts[Level.MINIMAL] < counts[Level.NORMAL] < counts[Level.DEBUG]


def test_level_from_escalation_applies_at_the_next_boundary_and_ends_by_itself() -> None:
    """Applied at the first update collected wholly at the level; the results say when."""
    network = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        one_update(monitor, network, optimizer)
        monitor._desired.receive(Desired(1, active=(Active("mine", Level.DEBUG, 2),)))
        for _ in range(5):
            one_update(monitor, network, optimizer)
        assert [row.level for row in record.rows] == [2, 2, 3, 3, 2, 2]
        measured = [not isinstance(read(row)["opt.update_ratio"], Status) for row in record.rows]
        assert measured == [False, False, True, True, False, False]
        assert record.results == [("mine", "applied", 2, ""), ("mine", "ended", 4, "done")]
        assert (monitor.level, monitor.update) == (Level.NORMAL, 6)


def test_level_change_down_to_off_sends_rows_with_update_and_time_only() -> None:
    """And up again."""
    with monitoring() as (monitor, record):
        monitor._desired.receive(Desired(1, base=Level.OFF))
        monitor.step(scalar=1.0)
        monitor.step(scalar=2.0, episode_returns=[1.0])
        monitor._desired.receive(Desired(2, base=Level.MINIMAL))
        monitor.step(scalar=3.0)
        monitor.step(scalar=4.0)
        assert [row.level for row in record.rows] == [2, 0, 0, 1]
        assert set(read(record.rows[1]).values()) == {Status.LEVEL}
        assert read(record.rows[3])["user/scalar"] == 4.0
