"""The start-up line: once, after the first update that shows what a whole one has, in the words of the daemon."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from gradwatch_contracts.control import Level
from gradwatch_contracts.needs import LINES, NEEDS
from harness.recording import monitoring
from harness.whole_trainer import Policy

if TYPE_CHECKING:
    from gradwatch_agent.monitor import Monitor


@pytest.fixture(autouse=True)
def _strict(strict: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gradwatch.start")


def whole_update(monitor: Monitor, model: Policy, optimizer: torch.optim.Optimizer, **ppo: Any) -> None:
    """Every call."""
    given = torch.rand(8)
    monitor.rollout(rewards=given, values=given, returns=given + 1, advantages=given, observations=given)
    out, (h, c) = model.lstm(torch.rand(1, 8, 3))
    loss = model.actor(out).mean() + model.critic(out).mean()
    told = {"new_logp": given, "old_logp": given, "entropy": given, "values": given, "advantages": given}
    monitor.ppo(**{**told, **ppo}, returns=given, clip=0.2, loss=loss)
    monitor.recurrent(h, c, reset=torch.zeros(8, dtype=torch.bool))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    monitor.log(a=1.0)


APPLY = [kind for kind, needs in NEEDS.items() if not any(name.startswith("policy.std.") for name in needs.every)]
"""Of a policy with an LSTM and discrete actions."""


class Actions:
    """A space of two actions."""

    n = 2


def test_line_of_a_trainer_that_makes_every_call_is_information(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing to do for anybody, so it is not a warning; and it is said once."""
    model = Policy()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    probe = (nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.rand(8, 3))
    with monitoring(modules=(model,), optimizers=(optimizer,), action_space=Actions(), probe=probe) as (monitor, _):
        for _ in range(2):
            whole_update(monitor, model, optimizer)
            monitor.step(episode_returns=[])  # none ended, which is no lack

    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "INFO",
            "gradwatch: run 'test': watching rollouts, minibatches, recurrent state, gradients, scalars; "
            f"{len(APPLY)} of {len(APPLY)} detectors see.",
        )
    ]


def test_line_names_blind_detectors_and_what_they_lack(caplog: pytest.LogCaptureFixture) -> None:
    """Grouped by the line to add."""
    model = Policy()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    probe = (nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.rand(8, 3))
    with monitoring(modules=(model,), optimizers=(optimizer,), action_space=Actions(), probe=probe) as (monitor, _):
        whole_update(monitor, model, optimizer, old_logp=None)
        monitor.step()

    (record,) = caplog.records
    assert record.levelname == "WARNING"
    blind = {kind for kind in APPLY if any(re.search("old_logp|episode_returns", LINES[name]) for name in NEEDS[kind].every)}
    ratio = {kind for kind in blind if any("old_logp" in LINES[name] for name in NEEDS[kind].every)}
    assert {"kl_spike", "rollout_mismatch", "performance_degradation"} < blind
    assert record.message == (
        "gradwatch: run 'test': watching rollouts, minibatches, recurrent state, gradients, scalars; "
        f"{len(APPLY) - len(blind)} of {len(APPLY)} detectors see, {len(blind)} are blind. "
        f"To add: mon.ppo(new_logp=, old_logp=) for {len(ratio)}; "
        "mon.step(episode_returns=) for performance_degradation, no_learning. Which and why: gradwatch doctor test"
        "."
    )


@pytest.mark.parametrize("continuous", [False, True])
def test_line_names_the_action_space_where_an_entropy_has_no_bound(continuous: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Who passes `entropy=` is not told to pass it; and continuous actions have no bound that anybody could give."""
    model = Policy()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with monitoring(modules=(model,), optimizers=(optimizer,)) as (monitor, _):
        whole_update(monitor, model, optimizer, **({"std": torch.rand(8, 2)} if continuous else {}))
        monitor.step(episode_returns=[1.0])

    (line,) = caplog.messages
    assert "entropy=" not in line
    assert ("action_space=" in line) is not continuous


@pytest.mark.parametrize(("layer", "space", "absent"), [(nn.Linear(2, 1), Actions(), True), (nn.GRU(2, 1), None, False)])
def test_line_leaves_out_what_a_policy_cannot_have(
    layer: nn.Module, space: Any, absent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A recurrent state without a recurrent layer, deviations of discrete actions: nobody is to add these."""
    with monitoring(modules=(layer,), action_space=space) as (monitor, _):
        monitor.step(loss=1.0)

    for wanted in ("mon.recurrent(", "lstm_unhealthy", "std="):
        assert (wanted in caplog.text) is not absent


def test_line_of_scalars_only_is_still_one_that_can_be_read(caplog: pytest.LogCaptureFixture) -> None:
    """What a trainer with `log` alone has is that rows come; every other detector is counted at the call that it lacks."""
    with monitoring() as (monitor, _):
        monitor.step(loss=1.0)

    (line,) = caplog.messages
    assert line == (
        "gradwatch: run 'test': watching scalars; 8 of 40 detectors see, 32 are blind. To add: "
        "mon.ppo(new_logp=, old_logp=, std=, entropy=) for 16; "
        "mon.rollout(observations=, rewards=, values=, returns=, advantages=) for 6; "
        "clip_grad_norm_, or pass the optimizer to watch() for 5; "
        "watch(probe=, optimizer=) for 3; "
        "mon.recurrent(h, c, reset=) for recurrent_reset, lstm_unhealthy; "
        "mon.step(episode_returns=) for performance_degradation, no_learning. Which and why: gradwatch doctor test."
    )
    assert len(line) < 600


def test_line_waits_for_an_update_that_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    """One in which nothing was trained, one that was thinned, and one cut short do not."""
    model = Policy()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with monitoring(modules=(model,), optimizers=(optimizer,), collect_every=2) as (monitor, _):
        monitor.step()  # skipped
        whole_update(monitor, model, optimizer)
        monitor.step()  # thinned
        assert caplog.records == []
        whole_update(monitor, model, optimizer)

    assert caplog.records == []  # cut short by the end


def test_line_below_normal_says_the_level(caplog: pytest.LogCaptureFixture) -> None:
    """There the level is to blame, not a call."""
    with monitoring(level=Level.MINIMAL) as (monitor, _):
        monitor.step(loss=1.0)

    assert caplog.messages == ["gradwatch: run 'test': watching scalars; at level minimal most detectors are blind."]


def test_line_is_not_said_after_it_failed(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once logged as our own error; rows go on and none is lost."""
    monkeypatch.delenv("GRADWATCH_STRICT")
    monkeypatch.setattr("gradwatch_agent.coverage.blind_for", lambda _: 1 / 0)
    with monitoring() as (monitor, record):
        monitor.step()
        monitor.step()

    assert [row.update for row in record.rows] == [0, 1]
    assert record.losses == []
    assert len([message for message in caplog.messages if "gradwatch failed in" in message]) == 1
