"""The black box: what it keeps of the last updates, within which bounds, and when it is sent."""

from __future__ import annotations

import math
import struct
from array import array
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from gradwatch_agent import blackbox as module
from gradwatch_agent.blackbox import BROKEN, FOREIGN, GRADIENT, WEIGHT, BlackBox, Norms
from gradwatch_agent.collect import tensor_norms
from gradwatch_contracts import limits
from gradwatch_contracts.control import Level
from gradwatch_contracts.messages import Command
from harness.recording import monitoring

if TYPE_CHECKING:
    from gradwatch_agent.monitor import Monitor
    from harness.recording import Record

pytestmark = pytest.mark.usefixtures("strict")


def of_update(*values: float) -> list[Norms]:
    """What one update leaves."""
    return [Norms(GRADIENT, (0, 1), (0,), array("d", values))]


def two_layers() -> nn.Sequential:
    """Weights of norms 3 and 4."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(3.0)
        model[1].weight.fill_(4.0)
    return model


def set_gradients(model: nn.Module, *gradients: float | None) -> None:
    """One number for each parameter."""
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = None if gradient is None else torch.full_like(parameter, gradient)


def dumped(monitor: Monitor, record: Record) -> str:
    """What the command that asks for the black box ends with; its tables are in `record`."""
    command = Command("dump-1", "dump")
    monitor.actions.commands.receive(command)
    monitor.actions.boundary(monitor.update, 0)
    (outcome,) = [reason for id_, state, _, reason in record.results if state == "ended"]
    record.results.clear()
    monitor.actions.commands._seen.clear()
    return outcome


def sent(monitor: Monitor, record: Record) -> dict[str, dict[str, float]]:
    """The black box as it is sent now: row → layer → norm."""
    record.tables.clear()
    dumped(monitor, record)
    found: dict[str, dict[str, float]] = {}
    for kind, _, index, names, values in record.tables:
        assert kind == module.KIND
        numbers = iter(struct.unpack(f"<{len(index) * len(names)}d", values))
        for row in index:
            found.setdefault(row, {}).update({name: next(numbers) for name in names})
    return found


def test_black_box_that_is_full_lets_the_oldest_update_go() -> None:
    """64 updates, whatever comes."""
    box = BlackBox()
    for update in range(100):
        box.put(update, of_update(1.0, 2.0))
    updates, (block,) = box.freeze(["a", "b"])
    assert updates == len(box) == module.UPDATES_MAX
    assert block.labels[0] == "grad@36.0"
    assert block.labels[-1] == "grad@99.0"
    assert block.update == 99


def test_black_box_of_a_large_model_holds_fewer_updates() -> None:
    """2 MiB divided by a row of 64 kB: 32 updates are kept, and the newest 1 MiB of them is sent."""
    box = BlackBox()
    row = array("d", [1.0]) * 8192
    for update in range(40):
        box.put(update, [Norms(WEIGHT, tuple(range(4096)), (0, 1), row)])
    updates, (block,) = box.freeze([f"layer{number}" for number in range(4096)])
    assert len(box) == module.BYTES_MAX // (8 * 8192) == 32
    assert updates == 16
    assert block.update == 39
    assert len(block.values) == module.SENT_BYTES_MAX


def test_black_box_with_one_row_beyond_the_bound_still_has_the_newest() -> None:
    """An update larger than the whole box is not sent, and does no harm."""
    box = BlackBox()
    box.put(1, of_update(1.0, 2.0))
    box.put(2, [Norms(GRADIENT, (0,), tuple(range(300_000)), array("d", [1.0]) * 300_000)])
    assert len(box) == 1
    assert box.freeze(["a"]) == (0, [])


def test_black_box_sends_no_more_rows_than_a_message_may_have() -> None:
    """1,000 steps in an update: eight updates are 8,000 rows, nine would be refused by the daemon."""
    box = BlackBox()
    for update in range(20):
        box.put(update, [Norms(GRADIENT, (0,), tuple(range(1000)), array("d", [1.0]) * 1000)])
    updates, (block,) = box.freeze(["a"])
    assert updates == 8
    assert len(block.labels) == 8000 <= limits.BODY_ITEMS_MAX


def test_black_box_of_nothing_sends_nothing() -> None:
    """No table, and the words say so."""
    with monitoring(level=Level.OFF) as (monitor, record):
        monitor.step()
        assert dumped(monitor, record) == "nothing is kept: no gradient was measured"
        assert record.tables == []


def test_black_box_whose_newest_update_is_too_large_says_that_and_not_that_it_is_empty() -> None:
    """Whoever asked looks for gradients that were measured."""
    with monitoring(level=Level.OFF) as (monitor, record):
        monitor.step()
        monitor._maker.box.put(1, [Norms(GRADIENT, (0,), tuple(range(200_000)), array("d", [1.0]) * 200_000)])
        assert dumped(monitor, record).startswith("nothing is sent: the newest update alone")
        assert record.tables == []


def test_black_box_has_the_norms_before_clipping_of_every_step() -> None:
    """At NORMAL: each clip of the update by itself, and the weights at its end."""
    model = two_layers()
    with monitoring(modules=(model,)) as (monitor, record):
        for gradients in ((1.0, 2.0), (30.0, 4.0)):
            set_gradients(model, *gradients)
            clip_grad_norm_(model.parameters(), 0.1)
        monitor.step()
        assert sent(monitor, record) == {
            "grad@0.0": {"0.weight": 1.0, "1.weight": 2.0},
            "grad@0.1": {"0.weight": 30.0, "1.weight": 4.0},
            "weight@0": {"0.weight": 3.0, "1.weight": 4.0},
        }
        assert record.last["grad.tensor_norm.max"] == 30.0


def test_black_box_of_many_norms_has_the_largest_and_the_first_that_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted on the device: one number a tensor travels. A clip of NaN, measured again in float64, stands apart."""
    monkeypatch.setattr(tensor_norms, "PLAIN_MAX", 3)
    model = two_layers()
    with monitoring(modules=(model,)) as (monitor, record):
        for gradients in ((1.0, 2.0), (3.0, 9.0), (2.0, math.nan), (1.0, 1.0)):
            set_gradients(model, *gradients)
            clip_grad_norm_(model.parameters(), 100.0)
        monitor.step()
        box = sent(monitor, record)
        assert box["grad@0"] == {"0.weight": 3.0, "1.weight": 9.0}
        assert box["grad@0.2"]["0.weight"] == 2.0
        assert math.isnan(box["grad@0.2"]["1.weight"])


def test_black_box_of_many_norms_says_at_which_step_one_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the tensor that broke alone; what it had before stands in a row of its own, as it was measured in float32."""
    monkeypatch.setattr(tensor_norms, "PLAIN_MAX", 3)
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        for gradients in ((1.0, 2.0), (3.0, 9.0), (2.0, math.nan), (1.0, math.inf)):
            set_gradients(model, *gradients)
            optimizer.step()
        monitor.step()
        box = sent(monitor, record)
        assert [row for row in box if not row.startswith(WEIGHT)] == ["grad@0", "bad@0"]
        assert math.isnan(box["grad@0"]["1.weight"])
        assert math.isnan(box[f"{BROKEN}@0"]["0.weight"])
        assert box[f"{BROKEN}@0"]["1.weight"] == 2.0


def test_black_box_names_the_tensors_that_had_a_gradient() -> None:
    """A parameter without one is left out; the others keep their names."""
    model = nn.ParameterDict({name: nn.Parameter(torch.ones(1)) for name in "abc"})
    with monitoring(modules=(model,)) as (monitor, record):
        set_gradients(model, 1.0, None, 3.0)
        clip_grad_norm_(model.parameters(), 1.0)
        monitor.step()
        assert sent(monitor, record)["grad@0.0"] == {"a": 1.0, "c": 3.0}


def test_black_box_of_another_set_of_the_same_size_is_not_taken_for_the_last() -> None:
    """First a and b have gradients, then a and c: compared one by one."""
    model = nn.ParameterDict({name: nn.Parameter(torch.ones(1)) for name in "abc"})
    with monitoring(modules=(model,)) as (monitor, record):
        for gradients in ((1.0, 2.0, None), (3.0, None, 4.0)):
            set_gradients(model, *gradients)
            clip_grad_norm_(model.parameters(), 100.0)
            monitor.step()
        box = sent(monitor, record)
        assert (box["grad@0.0"], box["grad@1.0"]) == ({"a": 1.0, "b": 2.0}, {"a": 3.0, "c": 4.0})


def test_black_box_of_networks_clipped_apart_has_both() -> None:
    """An actor and a critic of one size, each clipped by itself."""
    model = nn.ModuleDict({"actor": nn.Linear(1, 1, bias=False), "critic": nn.Linear(1, 1, bias=False)})
    with monitoring(modules=(model,)) as (monitor, record):
        set_gradients(model, 1.0, 2.0)
        clip_grad_norm_(model["actor"].parameters(), 100.0)
        clip_grad_norm_(model["critic"].parameters(), 100.0)
        monitor.step()
        assert sent(monitor, record)["grad@0.0"] == {"actor.weight": 1.0, "critic.weight": 2.0}


def test_black_box_says_of_a_foreign_tensor_that_it_is_one() -> None:
    """Clipped together with a parameter that `watch` was not given."""
    model, other = two_layers(), nn.Parameter(torch.ones(1))
    with monitoring(modules=(model,)) as (monitor, record):
        set_gradients(model, 1.0, 2.0)
        other.grad = torch.ones(1)
        clip_grad_norm_([*model.parameters(), other], 100.0)
        monitor.step()
        assert sent(monitor, record)["grad@0.0"] == {"0.weight": 1.0, "1.weight": 2.0, FOREIGN: 1.0}


def test_black_box_without_clipping_has_the_norms_at_the_step() -> None:
    """Taken at `optimizer.step()`."""
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, record):
        set_gradients(model, 5.0, 6.0)
        optimizer.step()
        monitor.step()
        assert sent(monitor, record)["grad@0.0"] == {"0.weight": 5.0, "1.weight": 6.0}


@pytest.mark.parametrize(("error", "tables"), [(RuntimeError("boom"), 1), (KeyboardInterrupt(), 0), (None, 0)])
def test_black_box_is_sent_when_training_breaks_and_only_then(error: BaseException | None, tables: int) -> None:
    """With the unfinished update in it. Ctrl-C and the end of training are no faults."""
    model = two_layers()
    with monitoring(modules=(model,)) as (monitor, record):
        for gradient in (1.0, 2.0):
            set_gradients(model, gradient, gradient)
            clip_grad_norm_(model.parameters(), 100.0)
            if gradient == 1.0:
                monitor.step()
        monitor.ppo(new_logp=torch.zeros(2), old_logp=torch.zeros(2))
        monitor.close_with(error, "exception")
        assert [table[0] for table in record.tables] == [module.KIND] * tables
        if tables:
            assert record.tables[0][2] == ("grad@0.0", "weight@0", "grad@1.0", "weight@1")
            assert [kind for kind, *_ in record.events] == ["exception"]


def test_black_box_is_there_for_a_spool_at_any_time() -> None:
    """As it is then; nothing of it is sent."""
    model = two_layers()
    with monitoring(modules=(model,)) as (monitor, record):
        assert record.box() == ()
        for update in range(6):
            set_gradients(model, 1.0, 2.0)
            clip_grad_norm_(model.parameters(), 100.0)
            monitor.step()
            (table,) = record.box()
            assert (table.kind, table.names) == (module.KIND, ("0.weight", "1.weight"))
            assert table.index[:2] == ("grad@0.0", "weight@0")
            assert len(table.index) == 2 * (update + 1)
        assert record.tables == []
