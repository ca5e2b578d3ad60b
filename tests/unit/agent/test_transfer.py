"""The ring of host slots: nothing waits, nothing is overwritten, a stuck device loses rows and says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gradwatch_agent.collect.rows import DEVICE_BUSY, PENDING_MAX
from gradwatch_agent.device.transfer import SLOTS, Ticket, Transfer
from gradwatch_contracts.columns import Status
from harness.recording import monitoring, read

pytestmark = pytest.mark.usefixtures("strict")


class StuckEvent:
    """A copy that is not done until it is told to be. `synchronize` ends it."""

    def __init__(self) -> None:
        self.arrived = False

    def query(self) -> bool:
        """Like torch.cuda.Event."""
        return self.arrived

    def synchronize(self) -> None:
        """Like torch.cuda.Event."""
        self.arrived = True


class SlowTransfer(Transfer):
    """Copies that are under way until released."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[StuckEvent] = []

    def submit(self, vectors: Any) -> Ticket | None:
        """See Transfer."""
        ticket = super().submit(vectors)
        for slot in ticket.slots if ticket else ():
            slot.event = StuckEvent()
            self.events.append(slot.event)
        return ticket


def test_transfer_of_several_vectors_reads_back_their_values() -> None:
    """Vectors of any length; a ring grows to the longest."""
    transfer = Transfer()
    for length in (3, 1000, 0):
        vector = torch.arange(float(length), dtype=torch.float64)
        ticket = transfer.submit([vector])
        assert ticket is not None
        assert ticket.done
        assert ticket.take() == [[float(value) for value in range(length)]]


def test_transfer_with_all_slots_busy_queues_nothing() -> None:
    """A slot is free again once it was read."""
    transfer = Transfer()
    tickets = [transfer.submit([torch.full((2,), float(i), dtype=torch.float64)]) for i in range(SLOTS)]
    assert transfer.submit([torch.zeros(2)]) is None
    assert tickets[0] is not None
    assert tickets[0].take() == [[0.0, 0.0]]
    again = transfer.submit([torch.full((2,), 9.0, dtype=torch.float64)])
    assert again is not None
    assert [ticket.take() for ticket in tickets[1:] if ticket] == [[[float(i)] * 2] for i in range(1, SLOTS)]


def slow(monitor: Any) -> SlowTransfer:
    """Give a monitor a slow device."""
    transfer = SlowTransfer()
    monitor._measure().transfer = transfer
    return transfer


def test_rows_of_a_slow_device_come_later_in_order_with_their_own_numbers() -> None:
    """A host-only row does not overtake one whose values are on their way."""
    with monitoring() as (monitor, record):
        transfer = slow(monitor)
        for update in range(3):
            if update != 1:
                monitor.ppo(values=torch.full((4,), float(update)))
            monitor.step(mark=float(update))
        assert record.rows == []
        transfer.events[0].arrived = True
        monitor.ppo()
        assert [row.update for row in record.rows] == [0, 1]
        transfer.events[1].arrived = True
        monitor.ppo()
        assert [row.update for row in record.rows] == [0, 1, 2]
        assert [read(row)["user/mark"] for row in record.rows] == [0.0, 1.0, 2.0]
        assert read(record.rows[2])["value.new"] == (4.0, 2.0, 0.0)
        assert read(record.rows[1])["value.new"] is Status.NOT_CALLED


def test_rows_of_a_stuck_device_are_lost_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call waits; memory stays bounded; every row that never became bytes is told."""
    monkeypatch.setattr("gradwatch_contracts.limits.CLOSE_S", 0.01)
    updates = SLOTS + PENDING_MAX + 10
    with monitoring() as (monitor, record):
        slow(monitor)
        for _ in range(updates):
            monitor.ppo(values=torch.ones(2))
            monitor.step()
        assert record.losses == [(1, DEVICE_BUSY)] * (updates - PENDING_MAX)
    assert record.rows == []
    assert sum(count for count, _ in record.losses) == updates


def test_sync_mode_waits_for_the_device() -> None:
    """Every row is there when `step` returns."""
    with monitoring(sync=True) as (monitor, record):
        slow(monitor)
        monitor.ppo(values=torch.ones(2))
        monitor.step()
        assert record.last["value.new"] == (2.0, 1.0, 0.0)


class Unreadable(Transfer):
    """A transfer that reads nothing: for tensors without values."""

    def submit(self, vectors: Any) -> Ticket | None:
        """Keep what would be copied."""
        self.sizes = [vector.numel() for vector in vectors]
        return None


def test_collector_on_meta_tensors_reads_no_value() -> None:
    """Reading a value of a meta tensor raises, so nothing before the transfer reads one."""
    meta: dict[str, Any] = {"device": "meta"}
    network = torch.nn.Linear(4, 2, device="meta")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for parameter in network.parameters():
        parameter.grad = torch.empty_like(parameter)
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, record):
        transfer = monitor._measure().transfer = Unreadable()
        per_sample = {name: torch.empty(8, **meta) for name in ("new_logp", "old_logp", "values", "returns", "advantages")}
        mask = torch.empty(8, dtype=torch.bool, **meta)
        monitor.rollout(rewards=torch.empty(4, 2, **meta), observations=torch.empty(4, 2, 3, **meta))
        for _ in range(3):
            monitor.ppo(**per_sample, entropy=torch.empty(8, **meta), loss=torch.empty((), **meta), clip=0.2)
            monitor.ppo(**per_sample, entropy=torch.empty((), **meta), mask=mask)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()
            optimizer.step()
        monitor.log(tensor=torch.empty((), **meta))
        monitor.step(episode_returns=torch.empty(3, **meta))
        assert transfer.sizes[0] > 50
    assert record.losses[0] == (1, DEVICE_BUSY)
