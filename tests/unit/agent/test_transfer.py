"""The ring of host slots: nothing waits, nothing is overwritten, a stuck device loses rows and says so."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradwatch_agent import watch
from gradwatch_agent.collect import gradients as gradients_module
from gradwatch_agent.collect import policy as policy_module
from gradwatch_agent.collect.measurement import Measurement
from gradwatch_agent.collect.rows import DEVICE_BUSY, PENDING_MAX
from gradwatch_agent.device.transfer import SLOTS, Slot, Ticket, Transfer, host_value, host_values
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS
from harness.ppo_run import train
from harness.recording import monitoring, read

if TYPE_CHECKING:
    from pathlib import Path

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


class Copying(Transfer):
    """Takes the host for a device, so that what it has is copied as from one."""

    def is_here(self, vector: torch.Tensor) -> bool:
        """See Transfer."""
        return False


class SlowTransfer(Copying):
    """Copies that are under way until released."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[StuckEvent] = []

    def submit(self, vectors: Any) -> Ticket | None:
        """See Transfer."""
        ticket = super().submit(vectors)
        for slot in ticket.parts if ticket else ():
            assert isinstance(slot, Slot)
            slot.event = StuckEvent()
            self.events.append(slot.event)
        return ticket


@pytest.mark.parametrize("made", [Copying, Transfer])
def test_transfer_of_several_vectors_reads_back_their_values(made: type[Transfer]) -> None:
    """Vectors of any length and dtype; a ring grows to the longest. Those that lie on the host are not copied."""
    transfer = made()
    for length in (3, 1000, 0):
        vector = torch.arange(float(length), dtype=torch.float64)
        ticket = transfer.submit([[vector, vector.float()]])
        assert ticket is not None
        assert ticket.done
        assert ticket.take() == [[float(value) for value in (*range(length), *range(length))]]


def test_transfer_with_all_slots_busy_queues_nothing() -> None:
    """A slot is free again once it was read."""
    transfer = Copying()
    tickets = [transfer.submit([[torch.full((2,), float(i), dtype=torch.float64)]]) for i in range(SLOTS)]
    assert transfer.submit([[torch.zeros(2)]]) is None
    assert tickets[0] is not None
    assert tickets[0].take() == [[0.0, 0.0]]
    again = transfer.submit([[torch.full((2,), 9.0, dtype=torch.float64)]])
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


class RefusingTransfer(Copying):
    """A device that refuses every copy, as a broken one does."""

    def submit(self, vectors: Any) -> Ticket | None:
        """A vector of a device without values: the copy of it raises."""
        return super().submit([[torch.empty(2, device="meta")] for _ in vectors])


def test_copy_that_the_device_refuses_gives_its_slot_back() -> None:
    """Four such updates would otherwise stop all telemetry for the life of the process."""
    transfer = RefusingTransfer()
    for _ in range(2 * SLOTS):
        with pytest.raises(NotImplementedError, match="meta"):
            transfer.submit([[torch.zeros(1)]])
    assert Transfer.submit(transfer, [[torch.zeros(1)]]) is not None


class EndlessEvent(StuckEvent):
    """The copy of a device that hangs. Waiting for it is what no call may do."""

    def synchronize(self) -> None:
        """Like torch.cuda.Event, which would not return."""
        raise AssertionError("a call waited for the device")


def test_run_on_a_device_that_hangs_trains_on_and_loses_what_is_under_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No call of a whole PPO run waits, `close` included; the parameters are those of a run without us."""
    monkeypatch.setattr("gradwatch_contracts.limits.CLOSE_S", 0.05)
    monkeypatch.setattr(f"{__name__}.StuckEvent", EndlessEvent)
    lost: list[tuple[int, str]] = []

    def watched(model: Any, optimizer: Any) -> Any:
        monitor = watch(model, optimizer, run="hangs", endpoint=f"ipc://{tmp_path}/none", level="debug")
        slow(monitor)
        monkeypatch.setattr(monitor._outbox, "lose", lambda count, reason: lost.append((count, reason)))
        return monitor

    updates = SLOTS + 3
    assert all(map(torch.equal, train(updates, watched), train(updates, None)))
    assert sum(count for count, _ in lost) == updates
    assert {reason for _, reason in lost} == {DEVICE_BUSY}


class DeviceReads(TorchDispatchMode):
    """Notes every operator that would wait for a device: one that makes a number of a tensor there, or a tensor on the host, or
    whose result's size is in the values. On `meta` these raise, which an `except` may swallow: what is noted here stays."""

    TAGS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See TorchDispatchMode."""
        given = tree_leaves((args, kwargs or {}))
        places = [leaf.device.type for leaf in given if isinstance(leaf, torch.Tensor)]
        places_asked = [leaf.type for leaf in given if isinstance(leaf, torch.device)]
        if any(place != "cpu" for place in places):
            copies = "cpu" in places_asked or (func.overloadpacket is torch.ops.aten.copy_ and places[0] == "cpu")
            if copies or any(tag in func.tags for tag in self.TAGS):
                self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "read",
    [
        torch.Tensor.item,
        torch.Tensor.tolist,
        torch.Tensor.cpu,
        torch.Tensor.nonzero,
        float,
        bool,
        lambda number: torch.empty(()).copy_(number),
        lambda number: torch.equal(number, number),
    ],
)
def test_planted_read_of_a_device_is_noted_though_it_raises(read: Any) -> None:
    """Every way to wait is seen; the same of a tensor of the host is none."""
    with DeviceReads() as seen:
        read(torch.zeros(()))
        assert seen.found == []
        with contextlib.suppress(RuntimeError):
            read(torch.zeros((), device="meta"))
        assert len(seen.found) == 1


@pytest.mark.parametrize(
    "number", [torch.zeros((), device="meta"), torch.ones(2), torch.ones((), dtype=torch.int32), torch.ones(1).to_sparse()]
)
def test_host_value_of_what_is_no_number_of_the_host_is_none(number: torch.Tensor) -> None:
    """It asks before it reads."""
    with DeviceReads() as seen:
        assert host_value(number) is None
        assert number.is_cpu or host_values(number) is None
    assert seen.found == []


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_host_value_of_a_number_of_the_host_is_that_number(shape: tuple[int, ...]) -> None:
    """Of any shape and float dtype, with a graph or without."""
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        assert host_value(torch.full(shape, 2.5, dtype=dtype, requires_grad=True)) == 2.5


def whole_update(monitor: Any, network: torch.nn.Module, optimizer: torch.optim.Optimizer, device: str) -> None:
    """Every call of ours, with tensors of `device`."""
    on: dict[str, Any] = {"device": device}
    samples = {name: torch.zeros(8, **on) for name in ("new_logp", "old_logp", "values", "returns", "advantages")}
    mask, number = torch.ones(8, dtype=torch.bool, **on), torch.zeros((), **on)
    monitor.rollout(
        rewards=torch.zeros(4, 2, **on),
        values=torch.zeros(4, 2, **on),
        returns=torch.zeros(4, 2, **on),
        advantages=torch.zeros(4, 2, **on),
        observations=torch.zeros(4, 2, 3, **on),
    )
    for _ in range(3):
        monitor.ppo(**samples, entropy=torch.zeros(8, **on), loss=number, clip=0.2, actions=torch.zeros(8, 2, **on))
        for _ in range(2):  # the second one is like the last one, which goes a way of its own
            monitor.ppo(**samples, loss=number, clip=0.2)
        monitor.ppo(**samples, entropy={"a": number}, mask=mask)
        monitor.recurrent(torch.zeros(1, 8, 4, **on), torch.zeros(1, 8, 4, **on))
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        optimizer.step()
    monitor.log(tensor=number)
    monitor.step(episode_returns=torch.zeros(3, **on))


ON_THE_HOST = {"grad.clip_limit", "policy.minibatches"}
"""Numbers of these calls that never were on a device."""

FROM_TENSORS = ("rollout", "ppo", "recurrent", "clip")


@pytest.mark.parametrize("level", [Level.NORMAL, Level.DEBUG])
def test_run_on_meta_tensors_reads_no_value_and_says_so(level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    """No operator reads a value of a meta tensor. All is reduced as on any device, and what would come of it says DEVICE."""
    network = torch.nn.Linear(4, 2, device="meta")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    sizes: list[int] = []
    refuse = Measurement._refuse_unreadable

    def seen(self: Measurement, parts: Any, sliced: Any) -> None:
        sizes.append(sum(part.numbers for part in parts))
        refuse(self, parts, sliced)

    monkeypatch.setattr(Measurement, "_refuse_unreadable", seen)
    with monitoring(modules=(network,), optimizers=(optimizer,), level=level) as (monitor, record):
        with DeviceReads() as seen:
            for _ in range(SLOTS + 1):
                whole_update(monitor, network, optimizer, "meta")
        assert seen.found == []
        assert len(record.rows) == SLOTS + 1
        assert min(sizes) > 100
        assert record.tables == record.events == record.losses == []
        row = record.last
        measured = {name for name, value in row.items() if not isinstance(value, Status)}
        assert not {name for name in measured if COLUMNS[name.split("/")[0]].call in FROM_TENSORS} - ON_THE_HOST
        assert row["user/tensor"] is row["param.norm"] is row["episode.return"] is Status.DEVICE
        refused = {name for name, value in row.items() if value is Status.DEVICE}
        assert {"reward.step", "value.error", "obs.input", "policy.logratio", "policy.ratio.max", "loss.total"} <= refused
        assert {"policy.entropy", "policy.entropy/a", "rnn.h/update", "rnn.c/update", "grad.norm", "grad.tensors"} <= refused


def read_anything(number: torch.Tensor) -> float | None:
    """A read that does not ask where the tensor lies, and hides that a meta tensor refuses it."""
    try:
        return float(number.tolist())
    except RuntimeError:
        return None


@pytest.mark.parametrize("module", [policy_module, gradients_module])
def test_planted_read_in_a_call_is_seen_on_meta_tensors(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run above can fail: a loss read in every minibatch, or a total norm in every clip, though nothing is raised."""
    monkeypatch.setattr(module, "host_value", read_anything)
    network = torch.nn.Linear(4, 2, device="meta")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with monitoring(modules=(network,), optimizers=(optimizer,)) as (monitor, _), DeviceReads() as seen:
        whole_update(monitor, network, optimizer, "meta")
        assert len(seen.found) >= 3


def test_run_half_on_meta_never_passes_the_rest_for_the_whole() -> None:
    """A critic not materialised yet: what holds of the actor alone is not told as of both; the table names what it knows."""
    actor, critic = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1, device="meta")
    for parameter in (*actor.parameters(), *critic.parameters()):
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.SGD([*actor.parameters(), *critic.parameters()], lr=0.1)
    with monitoring(modules=(actor, critic), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, record):
        monitor.ppo(values=torch.zeros(2), returns=torch.zeros(2), advantages=torch.zeros(2, device="meta"))
        monitor.ppo(new_logp=torch.zeros(2, device="meta"), old_logp=torch.zeros(2, device="meta"))
        monitor.ppo(new_logp=torch.zeros(2), old_logp=torch.zeros(2))
        optimizer.step()
        monitor.step()
        row = record.last
        assert row["param.norm"] is row["param.nonfinite"] is row["grad.norm"] is row["opt.update_ratio"] is Status.DEVICE
        assert row["adv.used"] is row["policy.logratio"] is row["policy.ratio.max"] is Status.DEVICE
        assert row["value.new"] == (2.0, 0.0, 0.0)
        assert set(record.table("layers")) == {"0.weight", "0.bias"}
        assert record.events == []
