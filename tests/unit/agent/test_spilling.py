"""An outbox with a spool behind it: when it writes, what order holds, and that nothing is counted twice or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gradwatch_agent.desired import DesiredState
from gradwatch_agent.outbox import Outbox
from gradwatch_agent.session import Session
from gradwatch_agent.spool.disk import Spool
from gradwatch_agent.spool.leftover import Leftover
from gradwatch_agent.spool.spilling import RETRY_S, SpillingOutbox
from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import decode, encode
from gradwatch_contracts.control import Desired, Level
from gradwatch_contracts.segments import BOX
from harness.outgoing import hello, put_row, row
from harness.spools import MemoryFiles, drain, spool, told

if TYPE_CHECKING:
    from collections.abc import Iterable

AFTER = limits.SPOOL_AFTER_S + 0.01


class Place:
    """Memory, disk and both together, with the clock in hand."""

    def __init__(self, bytes_max: int = limits.OUTBOX_BYTES) -> None:
        self.now = 100.0
        self.memory = Outbox(bytes_max, bytes_max)
        self.files = MemoryFiles()
        self.disk = spool(self.files)
        self.both = SpillingOutbox(self.memory, self.disk, self.now)
        self.updates = 0

    def put(self, count: int) -> None:
        for _ in range(count):
            put_row(self.memory, row(self.updates))
            self.updates += 1

    def tend(self, wait_s: float = 0.0, live: bool = False) -> None:
        self.now += wait_s
        self.both.tend(live, self.now)

    def sends(self) -> list[m.Message]:
        sent: list[m.Message] = []
        while taken := self.both.take(10_000):
            sent += taken
        return sent


def _live_session(place: Place) -> Session:
    """One that a daemon has just welcomed."""
    session = Session(hello, place.both, DesiredState(Level.NORMAL), None, place.now)
    session.frame(place.now)
    session.sent(place.now)
    session.receive(encode(m.Welcome(1, 4096, -1, Desired(0, Level.NORMAL, None, ()))), place.now)
    return session


def _updates(messages: Iterable[m.Message]) -> list[object]:
    return list(told(messages).values())


@pytest.mark.promise("spool-unwritable")
def test_disk_that_fails_keeps_all_in_memory_and_is_asked_again_later(caplog: pytest.LogCaptureFixture) -> None:
    """One warning; the daemon gets everything in the end."""
    place = Place()
    place.files.failing = True
    place.put(10)
    for _ in range(3):
        place.tend(AFTER)
    assert [record.message for record in caplog.records if "spool" in record.message] != []
    assert len(caplog.records) == 1
    assert (place.memory.pending, place.memory.spooled) == (10, 0)
    place.files.failing = False
    place.tend(RETRY_S)
    assert (place.memory.pending, place.memory.spooled) == (0, 10)
    assert _updates(place.sends()) == list(range(10))


@pytest.mark.promise("spool-unwritable", "loss-told")
@pytest.mark.parametrize("tried", [False, True])
def test_end_with_a_disk_that_takes_nothing_tells_the_daemon_how_much_it_lost(tried: bool) -> None:
    """Without a spool it would be told; a spool that cannot be written must not make it silent, asked before or not."""
    place = Place()
    session = _live_session(place)
    place.files.failing = True
    place.put(5)
    while session.frame(place.now) is not None:
        session.sent(place.now)
    if tried:
        place.tend(AFTER, live=True)
    session.close("closed")
    session.hurry()
    frame = session.frame(place.now)

    assert frame is not None
    assert decode(frame) == m.Bye(4, "closed")
    assert not place.both.durable


@pytest.mark.promise("close-spools")
def test_end_with_a_disk_that_takes_all_again_declares_nothing_lost() -> None:
    """It failed once, and then there was room."""
    place = Place()
    session = _live_session(place)
    place.files.failing = True
    place.put(5)
    place.tend(AFTER)
    assert not place.both.durable
    place.files.failing = False
    session.close("closed")
    session.hurry()

    assert session.frame(place.now) is None
    assert place.both.durable
    assert list(told(drain(Spool(place.files)))) == list(range(5))


@pytest.mark.promise("window-bytes")
def test_memory_sends_nothing_while_what_the_disk_sent_fills_the_window() -> None:
    """There is one window, whatever a record comes from."""
    place = Place()
    place.memory.put_event("note", 0, 1, "x" * 5_000)
    place.tend(AFTER)
    place.tend(AFTER)
    place.memory.put_event("note", 1, 1, "y")
    place.both.absorb()

    assert list(told(place.both.take(100, 4_000))) == [0]
    assert place.both.take(100, 4_000) == []
    place.both.ack(0)
    assert list(told(place.both.take(100, 4_000))) == [1]


@pytest.mark.parametrize("detail", [{"message": "\ud800"}, {f"key{n}": n for n in range(limits.BODY_ITEMS_MAX + 1)}])
def test_event_that_cannot_travel_is_a_loss_on_the_disk_too(detail: dict[str, m.Scalar]) -> None:
    """What a user gave: neither the encoder nor, in a segment, the decoder may stop there, with all that is behind it."""
    place = Place()
    place.put(3)
    place.memory.put_event("note", 3, 0, "", detail)
    place.put(3)
    place.tend(AFTER)
    said = told(drain(Spool(place.files)))

    assert place.memory.pending == 0
    assert [said[seq] for seq in (0, 1, 2, 4, 5, 6)] == list(range(6))
    assert str(said[3]).startswith("could not be sent: ")
    assert (place.memory.lost, place.memory.spooled) == (1, 6)


@pytest.mark.promise("spool-idle")
def test_daemon_that_acks_leaves_no_trace_on_the_disk() -> None:
    """A healthy run writes nothing."""
    place = Place()
    for _ in range(20):
        place.put(3)
        place.both.rewind(place.memory.acked_seq)
        place.sends()
        place.both.ack(place.memory.last_seq)
        place.tend(AFTER, live=True)

    assert not place.files.data
    assert place.both.settled


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.promise("spool-after")
def test_records_that_nobody_acks_are_written_after_a_second(live: bool) -> None:
    """No daemon, or one that is stopped: kill -9 of the trainer then costs a second."""
    place = Place()
    place.put(10)
    place.tend(0.5, live)
    if live:
        place.both.rewind(-1)
        assert len(_updates(place.sends())) == 10
    assert not place.files.data
    place.tend(AFTER, live)
    place.tend(0.02, live)

    assert len(place.files.data) == 1
    assert (place.memory.pending, place.memory.spooled, place.memory.lost) == (0, 10, 0)
    assert place.memory.accepted == place.memory.acked + place.memory.pending + place.memory.lost + place.memory.spooled


@pytest.mark.promise("spool-after")
def test_memory_that_fills_up_goes_to_the_disk_before_anything_is_dropped() -> None:
    """Also while a daemon acks, but too slowly."""
    place = Place(bytes_max=100 * 409)
    for _ in range(100):
        place.put(20)
        place.tend(0.001, live=True)

    assert place.memory.lost == 0
    assert place.memory.spooled > 1_900
    assert _updates(place.sends()) == list(range(2_000))


@pytest.mark.promise("spool-same-session")
def test_daemon_that_comes_back_gets_disk_and_memory_in_order() -> None:
    """While it takes the past, the present waits in memory."""
    place = Place()
    place.put(50)
    place.tend(AFTER)
    place.tend(AFTER)
    place.put(30)
    place.both.absorb()
    place.both.rewind(-1)
    sent = place.sends()
    assert _updates(sent) == list(range(80))
    place.both.ack(79)

    assert place.both.settled
    assert not place.files.data


def test_daemon_with_another_store_is_told_what_is_gone() -> None:
    """What an earlier one acked is not here any more; what it did not is."""
    place = Place()
    place.put(10)
    place.both.rewind(-1)
    place.sends()
    place.both.ack(9)
    place.put(10)
    place.tend(AFTER)
    place.tend(AFTER)
    place.both.rewind(-1)
    said = told(place.sends())

    assert [seq for seq, what in said.items() if isinstance(what, str)] == list(range(10))
    assert [said[seq] for seq in range(10, 20)] == list(range(10, 20))


@pytest.mark.promise("close-spools")
def test_end_without_a_daemon_writes_all_and_how_it_ended() -> None:
    """The last words of a crashed run reach the next attempt."""
    place = Place()
    place.put(5)
    place.memory.put_event("exception", 5, 1, "boom")
    place.both.discard("exception")
    place.both.discard("exception")
    left = Leftover(place.files)

    assert (left.reason, left.last_seq, left.settled) == ("exception", 5, False)
    left.rewind(-1)
    said = told(left.take(100))
    assert list(said) == list(range(6))
    assert isinstance(said[5], m.Event)
    left.ack(5)
    assert left.settled
    left.discard()
    assert place.files.ended


def test_leftover_without_a_bye_ended_as_lost() -> None:
    """kill -9: nobody knows."""
    place = Place()
    place.put(5)
    place.tend(AFTER)
    place.tend(AFTER)

    assert Leftover(place.files).reason == "lost"
    assert Spool(place.files).last_seq == 4


@pytest.mark.promise("spool-box")
def test_box_of_a_killed_session_is_its_last_record_and_comes_once() -> None:
    """The newest one, in the place of those before it; only while the disk holds records, and only every few seconds."""
    place = Place()
    asked: list[int] = []

    def box() -> tuple[m.Table, ...]:
        asked.append(len(asked) + 3)
        return _box(asked[-1]), _box(asked[-1])

    place.memory.box = box
    place.tend(limits.SPOOL_BOX_S)
    assert asked == []
    place.put(5)
    place.tend(AFTER)
    assert asked == [3]
    place.tend()
    assert asked == [3]
    place.tend(limits.SPOOL_BOX_S)
    assert asked == [3, 4]
    left = Leftover(place.files)
    left.rewind(-1)
    said = told(left.take(100))

    assert list(said) == list(range(7))
    assert said[5] == replace(_box(4), seq=5)
    assert said[6] == replace(_box(4), seq=6)
    assert Leftover(place.files).last_seq == 6
    left.ack(6)
    assert not place.files.data


def test_box_of_a_session_that_said_how_it_ended_is_not_sent() -> None:
    """A crash sends its own, and who stops training wants none."""
    place = Place()
    place.put(5)
    place.tend(AFTER)
    place.tend()
    place.memory.box = lambda: (_box(4),)
    place.tend(limits.SPOOL_BOX_S)
    assert BOX in place.files.data
    place.both.discard("closed")

    assert Leftover(place.files).last_seq == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "failing"])
def test_box_that_cannot_be_written_or_read_costs_nothing_else(damage: str) -> None:
    """The rows come all the same."""
    place = Place()
    place.put(5)
    place.tend(AFTER)
    place.tend()
    place.files.failing = damage == "failing"
    place.memory.box = lambda: (_box(4),)
    place.tend(limits.SPOOL_BOX_S)
    place.files.failing = False
    if damage != "failing":
        data = bytearray(place.files.data[BOX])
        data[-1] ^= 0xFF
        place.files.data[BOX] = bytes(data if damage == "flip" else data[:-1])
    left = Leftover(place.files)
    left.rewind(-1)

    assert list(told(left.take(100))) == list(range(5))


def _box(update: int) -> m.Table:
    return m.Table(0, "blackbox", update, (f"grad@{update}",), ("w",), bytes(8))


def test_record_refused_from_disk_or_memory_is_given_up_there() -> None:
    """The number decides where it is."""
    place = Place()
    place.put(5)
    place.tend(AFTER)
    place.tend(AFTER)
    place.put(5)
    place.both.rewind(-1)
    place.both.forfeit(0, "no")
    sent = place.sends()
    assert told(sent)[0] == "no"
    place.both.ack(6)
    place.both.rewind(6)
    place.both.forfeit(7, "no")
    assert [seq for seq, what in told(place.sends()).items() if what == "no"] == [7]
