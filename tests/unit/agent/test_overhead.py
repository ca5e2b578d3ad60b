"""The overhead budget in a monitor: a clock that the test moves, collectors as slow as it says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from gradwatch_agent.collect.exemplars import ExemplarCollector
from gradwatch_agent.collect.memory import HostMemory
from gradwatch_agent.collect.probe import Probe
from gradwatch_agent.device.block import BlockReduction
from gradwatch_agent.governor import SHARES
from gradwatch_contracts.collectors import COLLECTORS, CORE, COST, COSTS
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS
from harness.recording import monitoring, read

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("strict")

UPDATE_NS = 100_000_000
SLOW_NS = 8_000_000
"""At NORMAL 8 % of an update, 1 % is allowed."""


class Clock:
    """Moves when told to, and by a microsecond when it is read."""

    def __init__(self) -> None:
        self.ns = 1_000_000_000

    def __call__(self) -> int:
        self.ns += 1_000
        return self.ns

    def slow_down(self, call: Callable[..., Any], ns: int) -> Callable[..., Any]:
        """The call, which takes `ns` more."""

        def slow(*args: Any, **kwargs: Any) -> Any:
            self.ns += ns
            return call(*args, **kwargs)

        return slow


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In place of the clock by which the agent times itself."""
    found = Clock()
    monkeypatch.setattr(time, "perf_counter_ns", found)
    return found


def train(monitor: Any, clock: Clock, updates: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """So many updates of two minibatches."""
    for _ in range(updates):
        clock.ns += UPDATE_NS
        given = torch.randn(8)
        monitor.rollout(rewards=given, values=given, returns=given + 1, advantages=given, observations=given)
        for _ in range(2):
            values = model(given.reshape(8, 1)).reshape(8)
            loss = values.square().mean()
            logp = values.detach() - 1
            monitor.ppo(new_logp=logp, old_logp=logp, values=values, returns=given, advantages=given, clip=0.2, loss=loss)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        monitor.step()


def run(clock: Clock, updates: int, **settings: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    """Rows and events of a training."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    given = {"overhead": SHARES, **settings}
    with monitoring(modules=(model,), optimizers=(optimizer,), **given) as (monitor, record):
        train(monitor, clock, updates, model, optimizer)
        return [read(row) for row in record.rows], [event for event in record.events if event[0] == "overhead"]


def test_slow_collector_is_under_budget_within_ten_updates_and_the_run_says_so(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rests, its columns say why, everything else is there in every update."""
    monkeypatch.setattr(BlockReduction, "_take_ranges", clock.slow_down(BlockReduction._take_ranges, SLOW_NS))
    rows, events = run(clock, 80)

    ((_, update, text, detail),) = events
    assert update < 10
    assert detail["every.ranges"] >= 8
    assert detail["was"] > 0.05
    assert detail["share"] <= detail["budget"] == 0.01
    assert "ranges in one update of" in text
    after = rows[update + 1 :]
    assert sum(row["sys.agent_ms"] for row in after[-64:]) <= 0.0115 * sum(row["sys.update_ms"] for row in after[-64:])
    resting = [row["value.pred.min"] is Status.THINNED for row in after]
    assert resting.count(False) == len([row for row in range(update + 1, 80) if row % detail["every.ranges"] == 0])
    for row, rests in zip(after, resting, strict=True):
        for name in COLLECTORS["ranges"].columns:
            assert (row[name] is Status.THINNED) == rests
    host = {name for name in COLUMNS if name.startswith("sys.")}  # memory is read now and then, whatever it costs
    for name in (set(COLUMNS) - set(COLLECTORS["ranges"].columns) - host) & rows[0].keys():
        assert not any(row[name] is Status.THINNED for row in rows), name
    for name in ("policy.ratio.first_mb_dev", "grad.norm", "value.pred.nonfinite", "adv.used.nonfinite", "param.nonfinite"):
        assert not any(isinstance(row[name], Status) for row in rows), name


def test_collector_that_turns_slow_late_is_under_budget_within_ten_updates(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it was quick before, and wherever it turns between two judgements."""
    honest = BlockReduction._take_ranges
    for quick_updates in range(30, 34):
        monkeypatch.setattr(BlockReduction, "_take_ranges", honest)
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with monitoring(modules=(model,), optimizers=(optimizer,), overhead=SHARES) as (monitor, record):
            train(monitor, clock, quick_updates, model, optimizer)
            assert not [event for event in record.events if event[0] == "overhead"]
            monkeypatch.setattr(BlockReduction, "_take_ranges", clock.slow_down(honest, SLOW_NS))
            train(monitor, clock, 74, model, optimizer)
            ((_, update, _, detail),) = [event for event in record.events if event[0] == "overhead"]
            rows = [read(row) for row in record.rows][quick_updates + 10 :]
        assert quick_updates <= update < quick_updates + 10
        assert detail["was"] > 0.05
        assert sum(row["sys.agent_ms"] for row in rows) <= 0.0115 * sum(row["sys.update_ms"] for row in rows)


def test_invariants_are_in_no_collector() -> None:
    """What can rest is neither a count of non-finite values, nor the probe of the first minibatch, nor the total norm."""
    able = {column for collector in COLLECTORS.values() for column in collector.columns}
    never = {name for name in COLUMNS if "nonfinite" in name} | {"policy.ratio.first_mb_dev", "grad.norm", "grad.norm.max"}
    assert not able & never
    assert never < COLUMNS.keys()


def test_collector_that_is_cheap_again_comes_back(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the run says that nothing rests any more."""
    honest = BlockReduction._take_ranges
    monkeypatch.setattr(BlockReduction, "_take_ranges", clock.slow_down(honest, 2_000_000))
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with monitoring(modules=(model,), optimizers=(optimizer,), overhead=SHARES) as (monitor, record):
        train(monitor, clock, 10, model, optimizer)
        monkeypatch.setattr(BlockReduction, "_take_ranges", honest)
        train(monitor, clock, 300, model, optimizer)
        details = [detail for kind, _, _, detail in record.events if kind == "overhead"]
        assert details[0]["every.ranges"] > 1
        assert "every.ranges" not in details[-1]
        assert not isinstance(record.last["value.pred.min"], Status)


def test_debug_collector_without_columns_rests_too(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of worst ratios comes less often."""
    monkeypatch.setattr(ExemplarCollector, "_flush", clock.slow_down(ExemplarCollector._flush, SLOW_NS))
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with monitoring(modules=(model,), optimizers=(optimizer,), overhead=SHARES, level=Level.DEBUG) as (monitor, record):
        train(monitor, clock, 42, model, optimizer)
        every = next(detail["every.exemplars"] for kind, _, _, detail in record.events if kind == "overhead")
        told = [table[1] for table in record.tables if table[0] == "exemplars"]
        assert told == [update for update in range(42) if update < 5 or update % every == 0]


def test_costs_of_a_level_are_told_by_collector(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `gradwatch level` shows: of this run, of this level, and the slow one is named."""
    monkeypatch.setattr(ExemplarCollector, "_flush", clock.slow_down(ExemplarCollector._flush, SLOW_NS))
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with monitoring(modules=(model,), optimizers=(optimizer,), overhead=SHARES, level=Level.DEBUG) as (monitor, record):
        train(monitor, clock, 5, model, optimizer)
        (told,) = [detail for kind, _, _, detail in record.events if kind == COSTS]
    assert (told["level"], told["updates"]) == (int(Level.DEBUG), 4)
    shares = {name.removeprefix(COST): share for name, share in told.items() if name.startswith(COST)}
    assert shares.keys() <= {CORE, *COLLECTORS}
    assert max(shares, key=lambda name: shares[name]) == "exemplars"


def test_without_a_budget_nothing_rests(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """`overhead=None`: however slow."""
    monkeypatch.setattr(BlockReduction, "_take_ranges", clock.slow_down(BlockReduction._take_ranges, SLOW_NS))
    rows, events = run(clock, 30, overhead=None)
    assert events == []
    assert all(not isinstance(row["value.pred.min"], Status) for row in rows)


def test_updates_that_collect_every_leaves_out_are_not_judged(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost next to nothing, and would hide what the others cost."""
    monkeypatch.setattr(BlockReduction, "_take_ranges", clock.slow_down(BlockReduction._take_ranges, SLOW_NS))
    rows, events = run(clock, 30, collect_every=3)
    assert len(events) == 1
    assert sum(isinstance(row["value.pred.min"], tuple | float) for row in rows) >= 5


def test_memory_is_charged_and_rests(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel takes its time, the run says that it is read less often."""
    monkeypatch.setattr("gradwatch_agent.collect.memory.FRESH_NS", 0)
    monkeypatch.setattr(HostMemory, "tell", clock.slow_down(HostMemory.tell, SLOW_NS))
    rows, events = run(clock, 40)
    ((_, update, _, detail),) = events
    assert detail["every.host_memory"] >= 8
    assert [row["sys.host_bytes"] is Status.THINNED for row in rows[update + 1 :]].count(False) <= 4


def test_probe_is_charged_and_rests_longer_than_by_itself(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward pass of half an update's time in every 32nd is more than is allowed; it looks again when it may."""
    monkeypatch.setattr(Probe, "_look", clock.slow_down(Probe._look, UPDATE_NS // 2))
    probe = (nn.Sequential(nn.Linear(1, 4), nn.Tanh()), torch.rand(16, 1))
    rows, events = run(clock, 130, probe=probe)
    looked = [number for number, row in enumerate(rows) if isinstance(row["param.features.dormant/1"], float)]
    assert [event[3]["every.probe"] for event in events] == [64]
    assert looked == [0, 32, 64, 128]
