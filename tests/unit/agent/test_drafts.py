"""From the trainer's thread to the link thread: a monitor whose updates lie there as drafts until somebody takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from gradwatch_agent.blackbox import KIND, BlackBox
from gradwatch_agent.desired import DesiredState
from gradwatch_agent.exits import Exits
from gradwatch_agent.inbox import RECORD_BYTES
from gradwatch_agent.monitor import Monitor
from gradwatch_agent.outbox import OUR_ERROR, Outbox
from gradwatch_contracts.messages import Command, Loss, Message, Result, Table
from harness.outgoing import take_all
from harness.recording import settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


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
