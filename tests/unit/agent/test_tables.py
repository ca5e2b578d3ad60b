"""Tables and events of an update: layers and worst transitions at DEBUG, raw returns, the first parameter that broke."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from gradwatch_agent.collect import exemplars as exemplars_module
from gradwatch_agent.collect import layers as layers_module
from gradwatch_contracts import limits
from gradwatch_contracts.control import Level
from harness.recording import monitoring

if TYPE_CHECKING:
    from gradwatch_agent.monitor import Monitor

pytestmark = pytest.mark.usefixtures("strict")


def network() -> nn.Sequential:
    """Weights of 3 and 4, gradients to be set."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(3.0)
        model[1].weight.fill_(4.0)
    return model


@pytest.mark.parametrize("clipped", [True, False])
def test_layers_table_has_the_largest_gradient_of_the_update(clipped: bool) -> None:
    """Before clipping; a parameter without gradient has NaN in both of its columns."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with monitoring(modules=(model,), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, record):
        for size in (5.0, 7.0, 6.0):
            model[0].weight.grad = torch.full((1, 1), size)
            if clipped:
                clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        monitor.step()
        table = record.table("layers")
        assert table["0.weight"] == {"grad_norm": 7.0, "weight_norm": 3.0, "grad_nonfinite": 0.0, "weight_nonfinite": 0.0}
        assert math.isnan(table["1.weight"]["grad_norm"])
        assert math.isnan(table["1.weight"]["grad_nonfinite"])
        assert table["1.weight"]["weight_norm"] == 4.0


def test_layers_table_marks_what_is_not_finite() -> None:
    """A NaN that a later step replaced is not forgotten."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with monitoring(modules=(model,), optimizers=(optimizer,), level=Level.DEBUG) as (monitor, record):
        for first, second in ((math.nan, 1.0), (2.0, 1.0)):
            model[0].weight.grad, model[1].weight.grad = torch.full((1, 1), first), torch.full((1, 1), second)
            clip_grad_norm_([model[0].weight], 0.5)
            clip_grad_norm_([model[1].weight], 0.5)
        with torch.no_grad():
            model[1].weight.fill_(math.inf)
        monitor.step()
        table = record.table("layers")
        assert [table[name]["grad_nonfinite"] for name in table] == [1.0, 0.0]
        assert [table[name]["weight_nonfinite"] for name in table] == [0.0, 1.0]


def test_layers_table_is_sent_at_debug_only_and_once_an_update() -> None:
    """And belongs to its update."""
    model = network()
    with monitoring(modules=(model,)) as (monitor, record):
        monitor.step()
        assert record.tables == []
    with monitoring(modules=(model,), level=Level.DEBUG) as (monitor, record):
        monitor.step()
        monitor.step()
        assert [table[:2] for table in record.tables] == [("layers", 0), ("layers", 1)]


def test_layers_table_of_two_modules_names_them_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Actor and critic have parameters of one name; a long table is cut."""
    with monitoring(modules=(network(), network()), level=Level.DEBUG) as (monitor, record):
        monitor.step()
        assert list(record.table("layers")) == ["0.0.weight", "0.1.weight", "1.0.weight", "1.1.weight"]
        monkeypatch.setattr(layers_module, "LAYERS_MAX", 3)
        monitor.step()
        assert len(record.table("layers")) == 3


@pytest.mark.parametrize(("level", "told"), [(Level.NORMAL, [1, 4]), (Level.DEBUG, [1, 2, 4])])
def test_first_broken_parameter_is_named_when_it_breaks(level: Level, told: list[int]) -> None:
    """Once per breakage; at DEBUG in every update that it lasts."""
    model = network()
    with monitoring(modules=(model,), level=level) as (monitor, record):
        for value in (1.0, math.nan, math.inf, 1.0, math.nan):
            with torch.no_grad():
                model[1].weight.fill_(value)
            monitor.step()
        events = [event for event in record.events if event[0] == "nonfinite_parameter"]
        assert [event[1] for event in events] == told
        assert events[0][3] == {"parameter": "1.weight", "count": 1, "parameters": 2}
        assert "1.weight" in events[0][2]


def exemplars(*calls: dict[str, Any], level: Level = Level.DEBUG) -> dict[str, dict[str, float]]:
    """The table of an update with these calls of `ppo`."""
    with monitoring(level=level) as (monitor, record):
        for given in calls:
            monitor.ppo(**given)
        monitor.step()
        return record.table("exemplars")


def observe(monitor: Monitor, given: dict[str, Any]) -> None:
    """Give them a first minibatch alone, whatever `ppo` would say of it."""
    names = ("new_logp", "old_logp", "mask", "actions", "values", "advantages")
    new_logp, old_logp, mask, actions, values, advantages = map(given.get, names)
    monitor._measure().exemplars.observe(0, (new_logp, old_logp, mask, actions, values, advantages))


def test_exemplars_are_the_worst_transitions_of_the_update() -> None:
    """By |log r| over all minibatches, worst first, with all that was passed."""
    old = torch.zeros(6)
    table = exemplars(
        {
            "new_logp": torch.tensor([0.0, 2.0, 0.1, -3.0, 0.0, 0.0]),
            "old_logp": old,
            "values": torch.arange(6.0),
            "advantages": -torch.arange(6.0),
            "actions": torch.arange(6) * 10,
            "mask": torch.ones(6, dtype=torch.bool),
        },
        {"new_logp": torch.full((6,), 2.5), "old_logp": old},
    )
    assert list(table)[:2] == ["0:3", "1:0"]
    assert len(table) == exemplars_module.EXEMPLARS_MAX
    assert table["0:3"] == {
        "ratio": pytest.approx(math.exp(-3.0)),
        "new_logp": -3.0,
        "old_logp": 0.0,
        "mask": 1.0,
        "action": 30.0,
        "value": 3.0,
        "advantage": -3.0,
    }
    assert math.isnan(table["1:0"]["value"])


def test_exemplars_put_nan_first_and_masked_samples_nowhere() -> None:
    """A NaN is the worst there can be; what does not count is no transition."""
    mask = torch.tensor([True, True, False])
    table = exemplars({"new_logp": torch.tensor([0.5, math.nan, 9.0]), "old_logp": torch.zeros(3), "mask": mask})
    assert list(table) == ["0:1", "0:0"]
    assert math.isnan(table["0:1"]["ratio"])


def test_exemplars_show_vector_actions_and_overflowing_ratios() -> None:
    """At most eight components of an action; e^1000 is infinite."""
    given = {"new_logp": torch.tensor([1000.0]), "old_logp": torch.zeros(1), "actions": torch.arange(10.0).reshape(1, 10)}
    table = exemplars(given)
    assert [table["0:0"][f"action.{number}"] for number in range(8)] == list(range(8))
    assert "action.8" not in table["0:0"]
    assert table["0:0"]["ratio"] == math.inf


def test_exemplars_are_the_worst_of_minibatches_of_any_kind() -> None:
    """Several lengths, dtypes and sets of arguments, and one minibatch that is taken in pieces: those found by hand."""
    generator = torch.Generator().manual_seed(3)
    kinds = [(8, torch.float32)] * 5 + [(3, torch.float64)] * 2 + [(40_000, torch.float32)]
    calls: list[dict[str, Any]] = []
    rows: list[tuple[float, int, int]] = []
    for number, (samples, dtype) in enumerate(kinds):
        new, old = torch.randn(2, samples, generator=generator, dtype=dtype)
        mask = new > 0 if number % 3 == 0 else torch.ones(samples, dtype=torch.bool)
        given = {"new_logp": new, "old_logp": old, "actions": torch.arange(samples) + 2**40}
        calls.append(given if number % 3 else {**given, "mask": mask})
        severity = (new.double() - old.double()).abs().tolist()
        rows += [(-severity[at], number, at) for at in range(samples) if mask[at]]
    for several in (calls, calls[:7]):
        table = exemplars(*several)
        assert list(table) == [f"{number}:{at}" for _, number, at in sorted(row for row in rows if row[1] < len(several))[:8]]
        assert all(row["action"] == 2**40 + int(index.split(":")[1]) for index, row in table.items())


def test_exemplars_of_many_minibatches_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst survives, however early it came."""
    monkeypatch.setattr(exemplars_module, "HELD_MAX", 3)
    monkeypatch.setattr(exemplars_module, "ROWS_MAX", 2)
    calls = [{"new_logp": torch.tensor([float(20 - number), 0.0]), "old_logp": torch.zeros(2)} for number in range(20)]
    assert list(exemplars(*calls)) == [f"{number}:0" for number in range(8)]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"new_logp": torch.zeros(3), "old_logp": torch.zeros(4)},
        {"new_logp": torch.zeros(0), "old_logp": torch.zeros(0)},
        {"new_logp": torch.zeros(3, device="meta"), "old_logp": torch.zeros(3, device="meta")},
        {"new_logp": torch.zeros(3), "old_logp": torch.zeros(3), "mask": torch.zeros(3, dtype=torch.bool)},
        {"new_logp": [0.0], "old_logp": [0.0]},
    ],
    ids=str,
)
def test_exemplars_without_usable_log_probabilities_are_none(given: dict[str, Any]) -> None:
    """And nothing fails."""
    with monitoring(level=Level.DEBUG) as (monitor, record):
        observe(monitor, given)
        monitor.step()
        assert record.table("exemplars") == {}


def test_exemplars_with_useless_companions_leave_them_out() -> None:
    """Other shapes, devices and kinds."""
    bad = {"values": torch.zeros(2), "advantages": "x", "actions": torch.zeros(5), "mask": torch.zeros(3)}
    with monitoring(level=Level.DEBUG) as (monitor, record):
        observe(monitor, {"new_logp": torch.zeros(3), "old_logp": torch.ones(3), **bad})
        monitor.step()
        assert set(record.table("exemplars")["0:0"]) == {"ratio", "new_logp", "old_logp"}


def test_exemplars_below_debug_are_not_collected() -> None:
    """They cost a dozen kernels a minibatch."""
    assert exemplars({"new_logp": torch.zeros(3), "old_logp": torch.ones(3)}, level=Level.NORMAL) == {}


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, lambda values: [torch.tensor(value) for value in values]])
@pytest.mark.parametrize("level", [Level.MINIMAL, Level.NORMAL])
def test_episode_returns_travel_raw(kind: Any, level: Level) -> None:
    """From minimal on, however they were given."""
    with monitoring(level=level) as (monitor, record):
        monitor.step(episode_returns=kind([3.0, 1.0, 2.0]))
        assert [row["return"] for row in record.table("episodes").values()] == [3.0, 1.0, 2.0]
        assert record.last["episode.return"][:2] == (3.0, 2.0)


@pytest.mark.parametrize("kind", [list, torch.tensor])
def test_episode_returns_are_cut_and_their_moments_are_not(kind: Any) -> None:
    """The table has a bound."""
    count = limits.EPISODES_PER_UPDATE_MAX + 3
    with monitoring() as (monitor, record):
        monitor.step(episode_returns=kind([1.0] * count))
        assert len(record.table("episodes")) == limits.EPISODES_PER_UPDATE_MAX
        assert record.last["episode.return"][0] == count


@pytest.mark.parametrize("returns", [[], None, "x", torch.zeros(0), [None]])
def test_episode_returns_that_are_none_make_no_table(returns: Any) -> None:
    """An update in which no episode ended is ordinary."""
    with monitoring() as (monitor, record):
        monitor.step(episode_returns=returns)
        assert record.tables == []
