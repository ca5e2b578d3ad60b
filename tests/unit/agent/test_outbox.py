"""The outbox: bounded, in order, and every record that never arrives is named."""

from __future__ import annotations

import struct
import threading

import pytest

from gradwatch_agent.inbox import OUTBOX_FULL, RECORD_BYTES
from gradwatch_agent.losses import Losses
from gradwatch_agent.outbox import Outbox
from gradwatch_contracts import limits
from gradwatch_contracts.messages import Event, Loss, Message, Result, Samples, SchemaMessage, Table
from harness.outgoing import put_row, row, samples_of, seqs_of, take_all

ROW_BYTES = RECORD_BYTES + 9

WINDOW = 4096


def _drained(outbox: Outbox) -> list[Message]:
    """All there is, acked as it goes."""
    messages: list[Message] = []
    while taken := outbox.take(WINDOW):
        messages += taken
        outbox.ack(outbox.last_seq)
    return messages


def _losses(messages: list[Message]) -> list[Loss]:
    return [message for message in messages if isinstance(message, Loss)]


@pytest.mark.promise("oldest-first")
def test_outbox_full_of_rows_drops_the_oldest_and_says_so() -> None:
    """With room for 10, of 25 rows the last 10 remain and one LOSS covers the first 15."""
    outbox = Outbox(bytes_max=10 * ROW_BYTES)
    for update in range(25):
        put_row(outbox, row(update))

    messages = _drained(outbox)

    assert _losses(messages) == [Loss(0, 14, OUTBOX_FULL)]
    updates = [update for samples in samples_of(messages) for update in struct.unpack(f"<{samples.n}q", samples.update)]
    assert updates == list(range(15, 25))
    assert (outbox.accepted, outbox.acked, outbox.pending, outbox.lost) == (25, 10, 0, 15)


@pytest.mark.promise("reserve")
def test_outbox_full_of_rows_keeps_the_last_words() -> None:
    """Events and results have a reserve that rows cannot take."""
    outbox = Outbox(bytes_max=3 * ROW_BYTES, reserve_bytes=4 * RECORD_BYTES)
    outbox.put_event("exception", 0, 5, "ValueError: nan", {"line": 7})
    for update in range(50):
        put_row(outbox, row(update))
        outbox.absorb()
    outbox.put_result("e1", "applied", 49)

    messages = _drained(outbox)

    assert [type(message) for message in messages] == [Event, Loss, SchemaMessage, Samples, Samples, Samples, Result]
    assert messages[0] == Event(0, "exception", 0, 5, "ValueError: nan", {"line": 7})
    assert messages[-1] == Result(51, "e1", "applied", 49)
    assert seqs_of(messages) == list(range(52))


@pytest.mark.promise("reserve")
def test_rows_put_while_the_link_thread_is_stuck_keep_the_last_words() -> None:
    """A spool's disk hangs: what nobody numbers yet is bounded too, and rows give way to rows only."""
    outbox = Outbox(bytes_max=3 * ROW_BYTES, reserve_bytes=4 * RECORD_BYTES)
    put_row(outbox, row(0))
    outbox.put_event("exception", 0, 5, "boom")
    outbox.put_result("e1", "ended", 3)
    for update in range(1, 500):
        put_row(outbox, row(update))

    messages = _drained(outbox)

    assert [message.kind for message in messages if isinstance(message, Event)] == ["exception"]
    assert [message.id for message in messages if isinstance(message, Result)] == ["e1"]
    assert seqs_of(messages) == list(range(502))


@pytest.mark.promise("outbox-bound")
@pytest.mark.parametrize("sort", ["event", "result", "table", "lost"])
def test_evidence_put_while_the_link_thread_is_stuck_is_bounded_and_its_loss_told(sort: str) -> None:
    """The newest stays; what is dropped is numbered, and not a row is."""
    outbox = Outbox(bytes_max=4 * ROW_BYTES, reserve_bytes=20 * RECORD_BYTES)
    put_row(outbox, row(0))
    for number in range(3_000):
        if sort == "event":
            outbox.put_event("note", number, 1, "x")
        elif sort == "result":
            outbox.put_result(str(number), "ended", number)
        elif sort == "table":
            outbox.put_table("layers", number, ("a",), ("norm",), bytes(8))
        else:
            outbox.lose(1, "device busy")
    assert outbox._inbox.bytes_held <= 24 * ROW_BYTES
    messages = _drained(outbox)

    assert seqs_of(messages) == list(range(3_001))
    if sort != "lost":
        assert sum(message.n for message in samples_of(messages)) == 1
        assert [m.update for m in messages if isinstance(m, (Event, Result, Table))][-1] == 2_999


def test_what_is_put_from_several_threads_is_numbered_once_each_when_some_is_dropped() -> None:
    """A result may come from the link's own thread or from one that packs a trace."""
    outbox = Outbox(reserve_bytes=10 * RECORD_BYTES)

    def put() -> None:
        for number in range(2_000):
            outbox.put_result("id", "ended", number)

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seqs_of(_drained(outbox)) == list(range(8_000))


def test_rows_and_evidence_are_numbered_in_the_order_they_were_put() -> None:
    """They wait apart, and leave together."""
    outbox = Outbox()
    for update in range(5):
        outbox.put_table("layers", update, ("a",), ("norm",), bytes(8))
        put_row(outbox, row(update))
        outbox.put_event("note", update, 1)

    sorts = [type(message) for message in take_all(outbox) if not isinstance(message, SchemaMessage)]

    assert sorts == [Table, Samples, Event] * 5


def test_reserve_full_drops_tables_before_events() -> None:
    """A level that sends a table an update must not push out an exception."""
    outbox = Outbox(reserve_bytes=6 * RECORD_BYTES)
    outbox.put_event("exception", 0, 5, "boom")
    for update in range(20):
        outbox.put_table("layers", update, ("a",), ("norm",), bytes(8))

    messages = _drained(outbox)

    assert [type(message) for message in messages[:2]] == [Loss, Event]
    tables = [message for message in messages if isinstance(message, Table)]
    assert tables
    assert [table.update for table in tables] == list(range(20 - len(tables), 20))
    assert seqs_of(messages) == list(range(21))


def test_outbox_record_larger_than_its_room_pushes_nothing_out() -> None:
    """A table that can never fit is lost alone."""
    outbox = Outbox(reserve_bytes=4 * RECORD_BYTES)
    outbox.put_event("note", 0, 5, "kept")
    outbox.put_table("layers", 1, ("a",) * 100, ("norm",), bytes(800))

    messages = take_all(outbox)

    assert [type(message) for message in messages] == [Event, Loss]
    assert messages[1] == Loss(1, 1, "larger than the outbox")


@pytest.mark.promise("outbox-bound")
def test_outbox_never_drained_stays_within_its_bytes() -> None:
    """Without a link thread the trainer's own side drops, so nothing grows; each drop is told later."""
    outbox = Outbox(bytes_max=10 * ROW_BYTES, reserve_bytes=10 * ROW_BYTES)
    for update in range(5_000):
        put_row(outbox, row(update))

    assert len(outbox._inbox) <= 20
    messages = _drained(outbox)
    assert seqs_of(messages) == list(range(5_000))
    assert struct.unpack("<q", samples_of(messages)[-1].update[-8:]) == (4_999,)


def test_outbox_crowded_counts_the_rows_of_a_loss_it_drops() -> None:
    """A marker of 7 rows that is itself crowded out still means 7 rows."""
    outbox = Outbox(bytes_max=2 * ROW_BYTES, reserve_bytes=2 * ROW_BYTES)
    outbox.lose(7, "device busy")
    for update in range(30):
        put_row(outbox, row(update))

    assert seqs_of(_drained(outbox)) == list(range(37))


def test_malformed_row_is_lost_alone() -> None:
    """Its 31 neighbours travel."""
    outbox = Outbox()
    put_row(outbox, row(0))
    put_row(outbox, row(1, values=b"short"))
    put_row(outbox, row(2, status=0, env_steps=2**63))
    put_row(outbox, row(3, level=9))
    put_row(outbox, row(4))

    messages = take_all(outbox)

    assert [(loss.first_seq, loss.last_seq, loss.reason) for loss in _losses(messages)] == [
        (1, 1, "row does not fit its schema"),
        (2, 3, "row number out of range"),
    ]
    assert seqs_of(messages) == [0, 1, 2, 3, 4]


def test_lose_in_a_row_becomes_one_message() -> None:
    """Neighbours with one reason are one range; another reason is another."""
    outbox = Outbox()
    for _ in range(5):
        outbox.lose(2, "device busy")
    outbox.lose(1, "other")
    outbox.lose(0, "nothing")

    assert take_all(outbox) == [Loss(0, 9, "device busy"), Loss(10, 10, "other")]


def test_losses_beyond_the_bound_join_only_neighbours() -> None:
    """Alternating reasons cannot grow for ever, and a survivor between two ranges stays a survivor."""
    losses = Losses()
    for seq in range(3 * limits.LOSSES_PENDING_MAX):
        losses.add(seq, seq, f"reason {seq % 2}")
    losses.add(10_000, 10_000, "far")

    assert len(losses) == limits.LOSSES_PENDING_MAX + 1
    covered = [losses.pop() for _ in range(len(losses))]
    assert covered[-2].last_seq == 3 * limits.LOSSES_PENDING_MAX - 1
    assert set(covered[-2].reason.split("; ")) == {"reason 0", "reason 1"}
    assert covered[-1].first_seq == 10_000


def test_outbox_stopped_takes_nothing() -> None:
    """After `close` a late call is not an error and not a record."""
    outbox = Outbox()
    put_row(outbox, row(0))
    outbox.stop()
    put_row(outbox, row(1))
    outbox.put_event("note", 1, 5)
    outbox.lose(1, "late")

    assert seqs_of(take_all(outbox)) == [0]


def test_outbox_discarded_is_empty_and_stays_so() -> None:
    """A refused agent holds nothing."""
    outbox = Outbox()
    for update in range(9):
        put_row(outbox, row(update))
    outbox.take(4)
    outbox.discard()
    put_row(outbox, row(9))

    assert (outbox.pending, outbox.bytes_held, outbox.settled, outbox.take(WINDOW)) == (0, 0, True, [])


def test_outbox_whose_daemon_stopped_acking_keeps_what_is_new() -> None:
    """Half of the room may be in flight; the rest holds the newest rows, and nothing grows."""
    outbox = Outbox(bytes_max=8 * ROW_BYTES)
    for update in range(100):
        put_row(outbox, row(update))
        outbox.take(WINDOW)

    assert outbox.bytes_held <= 8 * ROW_BYTES
    outbox.rewind(-1)
    assert seqs_of(take_all(outbox)) == list(range(96))
    outbox.ack(95)
    assert (outbox.acked, outbox.lost, seqs_of(take_all(outbox))) == (4, 92, [96, 97, 98, 99])


def test_reserve_full_of_unacked_tables_drops_them_for_an_event() -> None:
    """A table in flight goes before an exception does; a reconnect then tells the loss in its place."""
    outbox = Outbox(reserve_bytes=3 * RECORD_BYTES)
    outbox.put_table("layers", 0, ("a",), ("norm",), bytes(400))
    outbox.take(WINDOW)
    outbox.put_event("exception", 1, 5, "x" * 600)

    assert [type(message) for message in take_all(outbox)] == [Event]
    outbox.rewind(-1)
    assert [type(message) for message in take_all(outbox)] == [Loss, Event]


def test_spoil_leaves_a_loss_in_the_place_of_the_record() -> None:
    """What cannot be encoded does not wedge the stream."""
    outbox = Outbox()
    outbox.put_event("note", 0, 1)
    outbox.put_event("note", 1, 2**80)
    (_, bad) = outbox.take(WINDOW)

    assert outbox.spoil(bad, "no") == Loss(1, 1, "no")
    assert (outbox.pending, outbox.lost) == (1, 1)
    outbox.rewind(-1)
    assert seqs_of(take_all(outbox)) == [0, 1]


def test_text_beyond_the_limit_is_cut() -> None:
    """Also when it is not what UTF-8 can carry."""
    outbox = Outbox()
    outbox.put_event("exception", 0, 1, "\ud800" + "é" * limits.BODY_STR_BYTES_MAX)

    (event,) = outbox.take(WINDOW)

    assert isinstance(event, Event)
    assert limits.BODY_STR_BYTES_MAX - 2 <= len(event.text.encode()) <= limits.BODY_STR_BYTES_MAX


@pytest.mark.parametrize("bytes_max", [1 << 24, 50 * ROW_BYTES])
def test_outbox_between_two_threads_accounts_for_every_row(bytes_max: int) -> None:
    """A trainer that puts as fast as it can against a link that takes and acks: no record is lost track of."""
    outbox, count = Outbox(bytes_max), 20_000

    def train() -> None:
        for update in range(count):
            put_row(outbox, row(update))

    trainer = threading.Thread(target=train)
    trainer.start()
    seen: list[int] = []
    updates: list[int] = []
    while trainer.is_alive() or not outbox.settled:
        messages = outbox.take(256)
        seen += seqs_of(messages)
        for samples in samples_of(messages):
            updates += struct.unpack(f"<{samples.n}q", samples.update)
        outbox.ack(outbox.last_seq)
    trainer.join()

    assert seen == list(range(count))
    assert updates == sorted(set(updates))
    assert (outbox.acked, outbox.lost) == (len(updates), count - len(updates))
