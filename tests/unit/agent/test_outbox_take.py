"""What the outbox hands to the link: batches in a window, acks, rewinds, and every field of a row."""

from __future__ import annotations

import struct

import pytest

from gradwatch_agent.inbox import RECORD_BYTES
from gradwatch_agent.outbox import MESSAGES_PER_TAKE, Outbox
from gradwatch_contracts import limits
from gradwatch_contracts.columns import WIDTH
from gradwatch_contracts.messages import Loss, Samples, SchemaMessage
from harness.outgoing import NARROW, WIDE, put_row, row, samples_of, seqs_of, take_all

WINDOW = 4096


def test_ack_of_what_was_never_sent_forgets_nothing() -> None:
    """A daemon that acks the future cannot make us drop records."""
    outbox = Outbox()
    for update in range(6):
        put_row(outbox, row(update))
    outbox.take(2)
    outbox.ack(2**64 - 1)

    assert (outbox.acked, outbox.pending) == (2, 4)


def test_ack_in_the_middle_of_a_loss_keeps_the_rest() -> None:
    """The rest of the range is sent again after a reconnect."""
    outbox = Outbox()
    outbox.lose(10, "device busy")
    take_all(outbox)
    outbox.ack(4)
    outbox.rewind(4)

    assert take_all(outbox) == [Loss(5, 9, "device busy")]


@pytest.mark.promise("accepted")
def test_row_that_was_put_is_accepted_and_nowhere_but_in_memory() -> None:
    """It is counted, held, and given to whoever sends."""
    outbox = Outbox()
    put_row(outbox, row(0))
    outbox.absorb()

    assert (outbox.accepted, outbox.pending, outbox.acked, outbox.lost, outbox.spooled) == (1, 1, 0, 0, 0)
    assert seqs_of(take_all(outbox)) == [0]


@pytest.mark.promise("window-bytes")
def test_take_sends_nothing_while_the_window_of_bytes_is_full() -> None:
    """The message that fills it is the last; an ack opens it again."""
    outbox = Outbox()
    for update in range(100):
        put_row(outbox, row(update))
    first = outbox.take(4096, 20 * (RECORD_BYTES + 9))
    again = outbox.take(4096, 20 * (RECORD_BYTES + 9))
    outbox.ack(31)

    assert (seqs_of(first), again) == (list(range(32)), [])
    assert seqs_of(outbox.take(4096, 20 * (RECORD_BYTES + 9))) == list(range(32, 64))


@pytest.mark.promise("window-records")
def test_take_respects_the_window() -> None:
    """Never more unacked records than WELCOME allows."""
    outbox = Outbox()
    for update in range(10):
        put_row(outbox, row(update))

    assert seqs_of(take_all(outbox, window=3)) == [0, 1, 2]
    assert outbox.take(3) == []
    outbox.ack(1)
    assert seqs_of(take_all(outbox, window=3)) == [3, 4]


def test_take_batches_rows_behind_their_schema() -> None:
    """32 rows a message, a new message when the schema changes, each schema once."""
    outbox = Outbox()
    for update in range(40):
        put_row(outbox, row(update))
    put_row(outbox, row(40, WIDE))
    put_row(outbox, row(41))

    messages = take_all(outbox)

    shape = [message.n if isinstance(message, Samples) else type(message).__name__ for message in messages]
    assert shape == ["SchemaMessage", limits.ROWS_PER_MESSAGE, 8, "SchemaMessage", 1, 1]
    assert [samples.schema for samples in samples_of(messages)] == [NARROW.id, NARROW.id, WIDE.id, NARROW.id]


def test_take_builds_few_messages_at_a_time() -> None:
    """The bytes of a window are not held twice."""
    outbox = Outbox()
    for update in range(1_000):
        put_row(outbox, row(update))

    assert len(outbox.take(WINDOW)) <= MESSAGES_PER_TAKE + 1


def test_samples_carry_every_field_of_their_rows() -> None:
    """No field is dropped or swapped on the way."""
    outbox = Outbox()
    for update in (3, 4):
        put_row(outbox, row(update, WIDE, level=3, flags=1))

    (samples,) = samples_of(take_all(outbox))

    assert samples == Samples(
        first_seq=0,
        n=2,
        schema=WIDE.id,
        update=struct.pack("<2q", 3, 4),
        t_ns=struct.pack("<2q", 1_700_000_000_000_000_003, 1_700_000_000_000_000_004),
        env_steps=struct.pack("<2q", 30, 40),
        level=bytes([3, 3]),
        flags=bytes([1, 1]),
        values=struct.pack("<8d", 3, 3, 3, 3, 4, 4, 4, 4),
        status=None,
    )


def test_samples_with_one_missing_value_carry_all_statuses() -> None:
    """`status` is left out only when every value of every row was measured."""
    outbox = Outbox()
    put_row(outbox, row(0, WIDE))
    put_row(outbox, row(1, WIDE, status=5))

    (samples,) = samples_of(take_all(outbox))

    assert samples.status == bytes([0, 0, 5, 5])


@pytest.mark.promise("resend")
def test_rewind_sends_everything_unacked_again_with_its_schema() -> None:
    """A new connection knows neither the rows in flight nor the schema."""
    outbox = Outbox()
    for update in range(5):
        put_row(outbox, row(update))
    outbox.put_event("note", 5, 1)
    first = take_all(outbox)
    outbox.rewind(1)

    again = take_all(outbox)

    assert seqs_of(first) == [0, 1, 2, 3, 4, 5]
    assert seqs_of(again) == [2, 3, 4, 5]
    assert isinstance(again[0], SchemaMessage)


def test_rewind_to_a_wiped_store_closes_the_gap() -> None:
    """Records acked by a store that is gone cannot be sent again; without a LOSS the new daemon would wait for ever."""
    outbox = Outbox()
    for update in range(8):
        put_row(outbox, row(update))
    take_all(outbox)
    outbox.ack(4)

    for _ in range(2):  # and once more, before the new daemon has acked anything
        outbox.rewind(-1)
        messages = take_all(outbox)
        assert messages[0] == Loss(0, 4, "acked by an earlier store")
        assert seqs_of(messages) == list(range(8))


def test_largest_batch_fits_into_a_binary_field() -> None:
    """Rows of the widest schema, batched, stay below what the decoder takes."""
    assert 8 * limits.COLUMNS_MAX * max(WIDTH.values()) * limits.ROWS_PER_MESSAGE <= limits.BODY_BIN_BYTES_MAX
