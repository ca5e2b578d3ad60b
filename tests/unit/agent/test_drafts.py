"""From the trainer's thread to the link thread: a monitor whose updates lie there as drafts until somebody takes them."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from gradwatch_agent.blackbox import KIND, BlackBox
from gradwatch_agent.collect.host import LISTED_BYTES
from gradwatch_agent.collect.rows import RowMaker
from gradwatch_agent.desired import DesiredState
from gradwatch_agent.exits import Exits
from gradwatch_agent.inbox import RECORD_BYTES, Draft
from gradwatch_agent.monitor import Monitor
from gradwatch_agent.outbox import OUR_ERROR, Outbox
from gradwatch_agent.row import Row
from gradwatch_contracts.control import Level
from gradwatch_contracts.messages import Command, Loss, Message, Result, Table
from harness.outgoing import take_all
from harness.recording import settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gradwatch_agent.collect.rows import Waiting
    from gradwatch_agent.inbox import Record


def unheard(outbox: Outbox, **given: Any) -> Monitor:
    """An open monitor from whose outbox nobody takes yet."""
    chosen = settings(**given)
    monitor = Monitor(chosen, outbox, DesiredState(chosen.level), None, Exits())
    monitor.open()
    return monitor


def ask_for_box(monitor: Monitor) -> None:
    """The command `dump`, begun at this boundary."""
    monitor.actions.commands.receive(Command("dump-1", "dump"))
    monitor.actions.boundary(monitor.update, 0)


def results(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """What the command was answered, in order."""
    return [(message.state, message.reason) for message in messages if isinstance(message, Result)]


def stepped(model: nn.Linear) -> None:
    """Leave a gradient, clipped."""
    model(torch.ones(1, 2)).sum().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)


@pytest.mark.usefixtures("strict")
def test_dump_asked_for_before_the_end_is_answered_by_who_makes_it() -> None:
    """The trainer ends before the link thread looks, and before its intake closes: the tables come, and one answer."""
    outbox, model = Outbox(), nn.Linear(2, 1)
    monitor = unheard(outbox, modules=(model,))
    stepped(model)
    monitor.step()
    ask_for_box(monitor)
    monitor.close()
    outbox.stop()
    messages = take_all(outbox)

    assert results(messages) == [("applied", ""), ("ended", "1 updates of 2 tensors")]
    assert [message.kind for message in messages if isinstance(message, Table)] == [KIND]


def test_dump_that_fails_is_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its loss; what was put beside it arrives."""

    def broken(self: BlackBox, names: Sequence[str]) -> None:
        raise MemoryError

    monkeypatch.delenv("GRADWATCH_STRICT", raising=False)
    monkeypatch.setattr(BlackBox, "freeze", broken)
    outbox = Outbox()
    monitor = unheard(outbox)
    ask_for_box(monitor)
    monitor.close()
    messages = take_all(outbox)

    assert results(messages) == [("applied", ""), ("rejected", "failed: the black box could not be sent")]
    assert [message.reason for message in messages if isinstance(message, Loss)] == [OUR_ERROR]


@pytest.mark.usefixtures("strict")
def test_dump_crowded_out_is_answered_once() -> None:
    """Too much evidence before the link thread looks: the answer that was to come is another, and the loss is told."""
    outbox = Outbox(reserve_bytes=8 * RECORD_BYTES)
    monitor = unheard(outbox)
    ask_for_box(monitor)
    for _ in range(8):
        outbox.put_event("note", 0, 0)
    monitor.close()
    messages = []
    while taken := outbox.take(10**6):
        messages += taken
        outbox.ack(outbox.last_seq)

    assert ("rejected", "failed: the black box could not be sent") in results(messages)
    assert "ended" not in dict(results(messages))
    assert "queue full: black box" in [message.reason for message in messages if isinstance(message, Loss)]


@pytest.mark.usefixtures("strict")
def test_dump_taken_back_before_it_is_made_is_answered_once() -> None:
    """It is on its way already: it ends as it would have."""
    outbox = Outbox()
    monitor = unheard(outbox)
    ask_for_box(monitor)
    monitor.actions.commands.receive(Command("dump-1", "cancel"))
    monitor.actions.boundary(monitor.update, 0)
    monitor.close()

    assert [state for state, _ in results(take_all(outbox))] == ["applied", "ended"]


class Later(Outbox):
    """Keeps each update as it was put, to be made when all are over, and what a copy of it made at that moment gave."""

    def __init__(self) -> None:
        super().__init__()
        self.maker = RowMaker(lambda row: True, _raise)
        self.drafts: list[Draft] = []
        self.at_once: list[Record] = []

    def put_draft(self, draft: Draft) -> None:
        """See Outbox."""
        assert isinstance(draft.make, partial)
        waiting: Waiting = draft.make.args[0]
        self.at_once += self.maker.make(copy.deepcopy(waiting))
        self.drafts.append(draft)


def _raise(error: Exception) -> None:
    raise error


class Recurrent(nn.Module):
    """A recurrent layer and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.actor, self.critic = nn.LSTM(3, 4), nn.Linear(4, 1), nn.Linear(4, 1)


def _update(monitor: Monitor, model: Recurrent, optimizer: torch.optim.Optimizer, batch: int, minibatches: int) -> None:
    """Every call with tensors that the next update writes over where the agent may not have kept them."""
    n = batch * minibatches
    monitor.rollout(
        rewards=torch.randn(n),
        values=torch.randn(n),
        returns=torch.randn(n),
        advantages=torch.randn(n),
        observations=torch.randn(n, 3),
        actions=torch.randn(n, 2),
    )
    for _ in range(minibatches):
        out, (h, c) = model.lstm(torch.randn(1, batch, 3))
        logp, value = model.actor(out).reshape(batch), model.critic(out).reshape(batch)
        loss = (logp.square() + value.square()).mean()
        given = {name: torch.randn(batch) for name in ("old_logp", "entropy", "returns", "advantages")}
        monitor.ppo(new_logp=logp, values=value, clip=0.2, loss=loss, std=torch.rand(batch, 2), **given)
        monitor.recurrent(h, c, reset=torch.zeros(batch))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    monitor.log({"charts/x": 1.0, "charts/y": torch.randn(())})
    evaluated = [float(n), 2.0]
    ended = {"episode_returns": torch.randn(3), "episode_lengths": [5, 7, 9], "truncated": [False, True, False]}
    monitor.step(env_steps=n, eval_return=evaluated, **ended)
    evaluated[0] = 0.0


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("level", [Level.NORMAL, Level.DEBUG])
def test_updates_made_much_later_are_byte_by_byte_what_they_were(level: Level) -> None:
    """Rows, tables, events and the black box: nothing of an update that waits is written to by those that follow, whatever
    their shapes."""
    torch.manual_seed(0)
    outbox, model = Later(), Recurrent()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    probe = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    monitor = unheard(outbox, modules=(model,), optimizers=(optimizer,), probe=probe, level=level, action_space=Box())
    outbox.maker.names = monitor._measure().gradients.names
    for batch, minibatches in [(8, 2), (8, 2), (8, 2), (5, 3), (8, 2), (300, 1), (8, 2), (8, 40)]:
        _update(monitor, model, optimizer, batch, minibatches)
    monitor.close()
    made = [record for draft in outbox.drafts for record in draft.make()]

    assert made == outbox.at_once
    rows = [record for record in made if isinstance(record, Row)]
    assert len(rows) == 8
    assert len({row.values for row in rows}) == 8
    assert {record.kind for record in made if isinstance(record, Table)} >= ({"exemplars"} if level is Level.DEBUG else set())
    assert monitor._maker.freeze() == outbox.maker.freeze()
    assert monitor._maker.freeze()[1]


class Box:
    """A space of two bounded numbers."""

    low, high = (-1.0, -1.0), (1.0, 1.0)


@pytest.mark.usefixtures("strict")
def test_update_yet_to_be_made_is_charged_for_its_lists() -> None:
    """Losses and gradient norms on the host are lists: more of them, more bytes."""
    charged = []
    for minibatches in (1, 101):
        outbox, model = Later(), Recurrent()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        monitor = unheard(outbox, modules=(model,), optimizers=(optimizer,))
        _update(monitor, model, optimizer, 4, minibatches)
        charged.append(outbox.drafts[0].size)
        monitor.close()

    assert charged[1] - charged[0] >= 100 * (2 * LISTED_BYTES + 8)
