"""Labels, the collection interval, hints to the author, the public names, and rows that fail."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gradwatch_agent
from gradwatch_agent import Monitor, watch
from gradwatch_agent.arguments import check_labels
from gradwatch_agent.collect.catalogue import Catalogue
from gradwatch_agent.collect.measurement import Measurement
from gradwatch_contracts import limits
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Active, Desired, Level
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.signals import COLUMNS
from harness.recording import monitoring, read

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("labels", ["env", ["env"], {"env": None}, {1: "x"}, {"": "x"}, {"env": "x" * 129}])
def test_labels_that_are_no_texts_are_refused(labels: Any) -> None:
    """Before training starts, naming the argument."""
    with pytest.raises(GradwatchError, match="labels"):
        check_labels(labels, ())


def test_labels_too_many_are_refused() -> None:
    """The bound of tags."""
    with pytest.raises(GradwatchError, match="labels"):
        check_labels({str(number): "x" for number in range(limits.TAGS_MAX + 1)}, ())


def test_labels_gain_the_device_of_the_model_unless_given() -> None:
    """The one thing about where it runs that we see ourselves."""
    model = nn.Linear(1, 1)
    assert check_labels({"env": "Ant-v5", "envs": 8}, (model,)) == {"device": "cpu", "env": "Ant-v5", "envs": "8"}
    assert check_labels({"device": "mine"}, (model,)) == {"device": "mine"}
    assert check_labels(None, ()) == {}


def test_labels_travel_in_hello(tmp_path: Path) -> None:
    """From `watch` to the message."""
    mon = watch(nn.Linear(1, 1), run="labels", endpoint=f"ipc://{tmp_path}/none", labels={"env": "Ant-v5"})
    try:
        hello = mon._link._session._hello()  # type: ignore[union-attr]
        assert hello.labels == {"device": "cpu", "env": "Ant-v5"}
    finally:
        mon.close()


@pytest.mark.parametrize("every", [0, -1, 1.5, "2", None])
def test_collection_interval_that_is_none_is_refused(every: Any) -> None:
    """Which argument."""
    with pytest.raises(GradwatchError, match="collect_every"):
        watch(run="every", collect_every=every)


def one_update(monitor: Monitor, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A little of everything."""
    monitor.rollout(rewards=torch.ones(3))
    output = model(torch.ones(4, 1))[:, 0]
    monitor.ppo(new_logp=output, old_logp=output.detach(), entropy={"a": output}, loss=output.sum())
    monitor.recurrent(output)
    optimizer.zero_grad()
    output.sum().backward()
    optimizer.step()
    ends = {"episode_returns": [1.0], "episode_lengths": [3], "truncated": [True], "eval_return": 1.0}
    monitor.step(scalar=1.0, tensor=torch.tensor(2.0), **ends)


@pytest.mark.usefixtures("strict")
def test_collection_interval_collects_every_nth_update() -> None:
    """From the first; the rows between have the host's numbers and say THINNED of all else."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = {"modules": (model,), "optimizers": (optimizer,), "update_start": 5, "collect_every": 3}
    with monitoring(**given) as (monitor, record):
        for _ in range(7):
            one_update(monitor, model, optimizer)
        rows = [read(row) for row in record.rows]
        assert [row["reward.step"] is Status.THINNED for row in rows] == [False, True, True, False, True, True, False]
        for name, status in rows[4].items():
            level = COLUMNS[name.split("/", 1)[0]].level
            if level is Level.MINIMAL:
                assert not isinstance(status, Status), name
            else:
                assert status is (Status.THINNED if level is Level.NORMAL else Status.LEVEL), name
        assert {row.level for row in record.rows} == {Level.NORMAL}
        assert {row.flags for row in record.rows} == {0}
        assert rows[3]["grad.norm"][0] == 1.0


@pytest.mark.usefixtures("strict")
def test_collection_interval_gives_way_to_an_escalation() -> None:
    """Who raised the level wants to look at every update."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with monitoring(modules=(model,), optimizers=(optimizer,), collect_every=100) as (monitor, record):
        one_update(monitor, model, optimizer)
        monitor._desired.receive(Desired(1, active=(Active("mine", Level.DEBUG, 2),)))
        for _ in range(5):
            one_update(monitor, model, optimizer)
        thinned = [read(row)["reward.step"] is Status.THINNED for row in record.rows]
        assert thinned == [False, True, False, False, True, True]


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    ("key", "near"),
    [("env_step", "env_steps"), ("episode_return", "episode_returns"), ("charts/los", "charts/loss"), ("charts/lr2", None)],
)
def test_log_key_near_a_known_one_gives_a_hint(key: str, near: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """Once, and the value is sent all the same."""
    with caplog.at_level(logging.WARNING, "gradwatch"), monitoring() as (monitor, record):
        monitor.step(None, None, **{"charts/loss": 1.0, "charts/lr1": 2.0})
        for _ in range(3):
            monitor.step(None, None, **{key: 1.0})
        assert record.last[f"user/{key}"] == 1.0
    assert [near is not None and f"did you mean {near}" in line.replace("'", "") for line in caplog.messages] == [True] * (
        near is not None
    )


@pytest.mark.usefixtures("strict")
def test_log_keys_given_together_are_no_slip(caplog: pytest.LogCaptureFixture) -> None:
    """Loss and losses may be two things; nothing is said in the first row either."""
    with caplog.at_level(logging.WARNING, "gradwatch"), monitoring() as (monitor, _):
        monitor.step(None, None, **{"charts/loss": 1.0, "charts/losses": 2.0})
        monitor.step(None, None, **{"charts/lossy": 1.0, "charts/loss": 1.0, "charts/losses": 2.0})
    assert caplog.messages == []


def test_public_names_are_those_documented() -> None:
    """`__all__` is what README and docs speak of, each with a docstring, and nothing else public is defined there."""
    assert gradwatch_agent.__all__ == ["GradwatchError", "Monitor", "watch"]
    for name in gradwatch_agent.__all__:
        assert getattr(gradwatch_agent, name).__doc__
    calls = {name for name in dir(Monitor) if not name.startswith("_")}
    used = {"rollout", "ppo", "recurrent", "log", "step", "profile", "phase", "on_command", "close", "should_stop", "active"}
    inner = {"watches", "follow", "close_with", "disable", "open", "tell_pause"}
    adapters = {"expect_none", "take_signals", "take_entropy", "take_unseen_steps"}
    assert calls == used | inner | adapters
    assert all(getattr(Monitor, name).__doc__ for name in calls)


@pytest.mark.parametrize(("place", "told"), [((Catalogue, "fill"), "row"), ((Measurement, "take_spent_ns"), "step")])
def test_row_that_fails_is_a_loss_not_a_gap(
    place: tuple[Any, str], told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Building a row fails once, by our fault: one LOSS, one event with its traceback, and the next row is whole."""
    monkeypatch.setenv("GRADWATCH_STRICT", "0")
    owner, name = place
    honest, failed = getattr(owner, name), []

    def fail_once(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not failed:
            failed.append(1)
            raise ZeroDivisionError("planted")
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, fail_once)
    with caplog.at_level(logging.ERROR, "gradwatch"), monitoring(modules=(nn.Linear(1, 1),)) as (monitor, record):
        for _ in range(3):
            monitor.step(scalar=1.0)
        assert [row.update for row in record.rows] == [1, 2]
        assert record.losses == [(1, "our error")]
        assert [event[0] for event in record.events] == ["agent_error"]
        assert "planted" in record.events[0][2]
        assert monitor._own_errors == {f"Monitor.{told}": 1}  # type: ignore[attr-defined]
    assert len(caplog.messages) == 1
    assert "Traceback" in caplog.messages[0]


def test_row_that_fails_while_another_waits_loses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The older row is lost; the newer one comes with the next call."""
    monkeypatch.setenv("GRADWATCH_STRICT", "0")
    with monitoring(modules=(nn.Linear(1, 1),)) as (monitor, record):
        arrived = [False]
        monkeypatch.setattr("gradwatch_agent.device.transfer.Ticket.done", property(lambda self: arrived[0]))
        monitor.step()
        monitor.step()
        assert record.rows == []
        arrived[0] = True
        honest, failed = Catalogue.fill, []

        def fail_once(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not failed:
                failed.append(1)
                raise ZeroDivisionError
            return honest(self, *args, **kwargs)

        monkeypatch.setattr(Catalogue, "fill", fail_once)
        monitor.step()
        monitor.step()
        assert [row.update for row in record.rows] == [1, 2, 3]
        assert record.losses == [(1, "our error")]


def test_row_whose_episode_returns_fail_is_sent_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of ours with one argument of `step` costs that argument, not the update."""

    def broken(self: Monitor, *given: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(Monitor, "_tell_numbers", broken)
    monkeypatch.delenv("GRADWATCH_STRICT", raising=False)
    with monitoring() as (monitor, record):
        monitor.step(episode_returns=torch.ones(2), scalar=1.0)
        monitor.step()
        assert [row.update for row in record.rows] == [0, 1]
        assert record.last["user/scalar"] is Status.NOT_CALLED
        assert read(record.rows[0])["user/scalar"] == 1.0
        assert record.losses == []
        assert [kind for kind, *_ in record.events] == ["agent_error"]
