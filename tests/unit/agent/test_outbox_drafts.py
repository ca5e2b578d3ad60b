"""Drafts in the outbox: made by who takes, in their place, and told as a loss where that cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gradwatch_agent.inbox import RECORD_BYTES, UPDATE_GONE, Draft, Lost
from gradwatch_agent.outbox import OUR_ERROR, Outbox
from gradwatch_contracts.messages import Event, Loss, Message, Result, Samples
from harness.outgoing import put_row, row

if TYPE_CHECKING:
    from gradwatch_agent.row import Row


def drained(outbox: Outbox) -> list[Message]:
    """All there is, acked as it goes."""
    messages: list[Message] = []
    while taken := outbox.take(4096):
        messages += taken
        outbox.ack(outbox.last_seq)
    return messages


def losses(messages: list[Message]) -> list[Loss]:
    """The losses among them."""
    return [message for message in messages if isinstance(message, Loss)]


def test_row_yet_to_be_made_is_made_by_who_takes_and_stands_in_its_place() -> None:
    """Not as it is put. Evidence that comes with it stands behind it; what was put later, behind both."""
    outbox, made = Outbox(), []

    def make() -> tuple[Row, Event]:
        made.append(1)
        return row(1), Event(0, "note", 1, 5, "of update 1")

    put_row(outbox, row(0))
    outbox.put_draft(Draft(100, make))
    outbox.put_event("note", 1, 5, "after update 1")
    put_row(outbox, row(2))
    assert not made
    messages = drained(outbox)

    assert made == [1]
    assert [one.text for one in messages if isinstance(one, Event)] == ["of update 1", "after update 1"]
    assert [one.seq for one in messages if isinstance(one, Event)] == [2, 3]
    assert [(one.first_seq, one.n) for one in messages if isinstance(one, Samples)] == [(0, 2), (4, 1)]
    assert outbox.made_ns > 0


def test_row_yet_to_be_made_that_does_not_fit_is_one_loss() -> None:
    """The link thread stays away: the oldest goes, whatever would have become of it, and the loss says that this may be more
    than a row."""
    outbox = Outbox(bytes_max=10 * RECORD_BYTES, reserve_bytes=0)
    for update in range(4):
        outbox.put_draft(Draft(3 * RECORD_BYTES, lambda update=update: (row(update), Lost(2, "planted"))))  # type: ignore[misc]

    assert losses(drained(outbox)) == [Loss(0, 0, UPDATE_GONE), *[Loss(seq, seq + 1, "planted") for seq in (2, 5, 8)]]


def test_draft_that_cannot_be_made_is_one_loss_and_takes_nothing_with_it() -> None:
    """Neither what was put beside it nor what is said in its place; why is told once."""
    outbox, told = Outbox(), []
    outbox.fail = told.append

    def make() -> tuple[Row, ...]:
        raise MemoryError

    for seq in (0, 1):
        outbox.put_event("note", seq, 0, "before")
    outbox.put_later(Draft(100, make, otherwise=lambda: (Result(0, "c1", "rejected", 3),)))
    outbox.put_draft(Draft(100, make))
    put_row(outbox, row(5))
    messages = drained(outbox)

    assert [one.seq for one in messages if isinstance(one, Event)] == [0, 1]
    assert losses(messages) == [Loss(2, 2, OUR_ERROR), Loss(4, 4, OUR_ERROR)]
    assert [(one.seq, one.id) for one in messages if isinstance(one, Result)] == [(3, "c1")]
    assert [one.first_seq for one in messages if isinstance(one, Samples)] == [5]
    assert [type(error) for error in told] == [MemoryError, MemoryError]


def test_draft_that_can_neither_be_made_nor_replaced_is_one_loss() -> None:
    """Both failures are told, and what was put behind it is sent."""
    outbox, told = Outbox(), []
    outbox.fail = told.append

    def fail() -> tuple[Result, ...]:
        raise MemoryError

    outbox.put_draft(Draft(100, fail, otherwise=fail))
    put_row(outbox, row(5))
    messages = drained(outbox)

    assert losses(messages) == [Loss(0, 0, OUR_ERROR)]
    assert [one.first_seq for one in messages if isinstance(one, Samples)] == [1]
    assert [type(error) for error in told] == [MemoryError, MemoryError]


@pytest.mark.promise("loss-told", "reserve")
def test_update_crowded_out_before_it_was_made_is_told_as_one_with_its_evidence() -> None:
    """Of evidence that nobody made nothing is known but that it is gone; what was made keeps its place."""
    outbox = Outbox(bytes_max=10 * RECORD_BYTES, reserve_bytes=8 * RECORD_BYTES)
    outbox.put_event("note", 0, 5, "kept")
    for update in range(6):
        outbox.put_draft(
            Draft(4 * RECORD_BYTES, lambda update=update: (row(update), Event(0, "n", update, 5)))  # type: ignore[misc]
        )
    messages = drained(outbox)

    assert losses(messages) == [Loss(0, 1, UPDATE_GONE)]
    assert [one.text for one in messages if isinstance(one, Event)] == ["kept", "", "", "", ""]
    assert sum(one.n for one in messages if isinstance(one, Samples)) == 4


def test_draft_of_evidence_crowded_out_is_told_with_its_reason_and_what_stands_for_it() -> None:
    """A command whose answer was yet to be made is answered all the same."""
    outbox = Outbox(reserve_bytes=4 * RECORD_BYTES)
    said = (Result(0, "c1", "rejected", 3),)
    outbox.put_later(Draft(3 * RECORD_BYTES, tuple, "planted", lambda: said))
    outbox.put_event("note", 3, 5, "a")
    outbox.put_event("note", 3, 5, "b")
    messages = drained(outbox)

    assert losses(messages) == [Loss(0, 0, "planted")]
    assert [one.id for one in messages if isinstance(one, Result)] == ["c1"]
    assert len([one for one in messages if isinstance(one, Event)]) == 2
