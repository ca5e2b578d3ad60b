"""The gate: what a bad peer costs itself, and that nobody else pays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_daemon.ingest.gate import Gate, Passed, join_rows
from gradwatch_daemon.ingest.session import SCHEMAS_MAX, LiveSession, Sessions
from gradwatch_daemon.records import Counters, Stream
from harness.rows import FULL, RowMaker, hello

STREAM = Stream("ant-ppo", 1, 0)


class Door:
    """A gate with one greeted session on peer b"p"."""

    def __init__(self) -> None:
        self.sessions, self.counters = Sessions(), Counters()
        self.gate = Gate(self.sessions, self.counters)
        self.session = LiveSession("s1", b"p", STREAM, hello(), -1, -1, 0.0)
        self.sessions.open(self.session)
        self.passed = Passed()
        self.rows = RowMaker()
        self.send(m.SchemaMessage(FULL.columns))

    def send(self, message: m.Message, peer: bytes = b"p", now: float = 0.0) -> Passed:
        return self.raw(encode(message), peer, now)

    def raw(self, frame: bytes, peer: bytes = b"p", now: float = 0.0) -> Passed:
        self.gate.admit(peer, frame, now, self.passed)
        return self.passed


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.mark.parametrize("frame", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, encode(m.Ping(1))[:-1]])
def test_gate_with_bytes_that_are_no_frame_counts_and_refuses_only_the_frame(door: Door, frame: bytes) -> None:
    """The sender is told path, expected and got; its session goes on."""
    refusal = door.raw(frame).replies[-1][1]
    assert isinstance(refusal, m.Refuse)
    assert not refusal.final
    assert "expected" in refusal.detail
    assert sum(door.counters.refused.values()) == 1
    assert len(door.send(door.rows.samples()).rows) == 1


def test_gate_with_another_protocol_major_refuses_for_good_and_names_ours(door: Door) -> None:
    """The agent becomes a no-op instead of trying for ever."""
    frame = bytearray(encode(m.Ping(1)))
    frame[4] = 9
    refusal = door.raw(bytes(frame), b"stranger").replies[-1][1]
    assert refusal == m.Refuse("protocol-unsupported", "header.major: expected 1, got 9", (1,), final=True)


def test_gate_quarantines_after_the_bound_and_leaves_others_alone(door: Door) -> None:
    """Bad frames in a row end a peer's connection for a while; an honest session is untouched."""
    for _ in range(limits.PROTOCOL_ERRORS_MAX):
        door.raw(b"junk", b"vandal")
    assert door.passed.replies[-1] == (b"vandal", m.Refuse("quarantined", door.passed.replies[-1][1].detail))
    replies = len(door.passed.replies)
    door.send(hello("other"), b"vandal")
    assert (len(door.passed.replies), door.passed.hellos) == (replies, [])
    assert (door.counters.refused["quarantined"], door.counters.quarantines) == (1, 1)
    assert len(door.send(door.rows.samples()).rows) == 1
    door.send(hello("other"), b"vandal", now=limits.QUARANTINE_S + 1)
    assert len(door.passed.hellos) == 1


def test_gate_forgives_errors_that_are_far_apart(door: Door) -> None:
    """A bad frame a minute is a bad cable, no attack."""
    for minute in range(3 * limits.PROTOCOL_ERRORS_MAX):
        door.raw(b"junk", now=60.0 * minute)
    assert "quarantined" not in door.counters.refused
    assert all(not reply.final for _, reply in door.passed.replies if isinstance(reply, m.Refuse))


def test_gate_is_not_deceived_by_good_frames_between_the_bad(door: Door) -> None:
    """A PING costs a vandal nothing."""
    for _ in range(limits.PROTOCOL_ERRORS_MAX):
        door.raw(b"junk")
        door.send(m.Ping(1))
    assert [reply for _, reply in door.passed.replies if isinstance(reply, m.Refuse)][-1].code == "quarantined"


def test_gate_remembers_a_bounded_number_of_schemas(door: Door) -> None:
    """A flood of schemas is no way to fill the daemon's memory."""
    column = FULL.columns[0]
    for number in range(3 * SCHEMAS_MAX):
        door.send(m.SchemaMessage((replace(column, subject=str(number)),)))
    assert len(door.session.schemas) == SCHEMAS_MAX


def test_gate_with_an_unknown_result_refuses_it_with_what_it_may_be(door: Door) -> None:
    """A word that means nothing must not pass for one that does."""
    refusal = door.send(m.Result(0, "esc", "wibble", 5)).replies[-1][1]
    assert isinstance(refusal, m.Refuse)
    assert "RESULT.state: expected applied, ended, rejected, got 'wibble'" in refusal.detail


@pytest.mark.parametrize("message", [m.Loss(0, 2**63, "x"), m.Bye(2**64 - 1)])
def test_gate_with_an_absurd_loss_refuses_it(door: Door, message: m.Message) -> None:
    """One broken number would stand in the coverage of the run for ever."""
    refusal = door.send(message).replies[-1][1]
    assert isinstance(refusal, m.Refuse)
    assert f"{limits.LOSS_RECORDS_MAX} records" in refusal.detail
    assert not door.passed.losses


def test_gate_with_data_before_hello_asks_for_it(door: Door) -> None:
    """The daemon may have restarted; the agent greets again and resends."""
    passed = door.send(RowMaker().samples(), b"stranger")
    assert passed.replies == [(b"stranger", m.Rehello())]
    assert not passed.rows


def test_gate_with_a_schema_it_was_not_sent_refuses_the_rows(door: Door) -> None:
    """Rows cannot be read without their columns."""
    refusal = door.send(replace(door.rows.samples(), schema="0" * 16)).replies[-1][1]
    assert isinstance(refusal, m.Refuse)
    assert refusal.code == "schema-unknown"


def test_gate_with_a_message_of_a_daemon_refuses_it(door: Door) -> None:
    """An agent does not ack."""
    refusal = door.send(m.Ack(1)).replies[-1][1]
    assert isinstance(refusal, m.Refuse)
    assert "Ack: expected a message of an agent" in refusal.detail


def test_gate_drops_duplicates_row_by_row(door: Door) -> None:
    """A resend may batch differently: the overlap is skipped, the rest taken."""
    first = door.rows.samples(3)
    door.send(first)
    door.send(first)
    resent = RowMaker(seq=1, update=1).samples(4)
    door.send(resent)
    assert [block.update.tolist() for block in door.passed.rows] == [[0, 1, 2], [3, 4]]
    assert (door.session.last_seq, door.counters.rows) == (4, 5)


@pytest.mark.promise("loss-closes", "in-order")
def test_gate_with_a_gap_takes_nothing_and_asks_once_to_resend(door: Door) -> None:
    """Only a LOSS closes a gap."""
    door.send(door.rows.samples(2))
    late = RowMaker(seq=5, update=5)
    for _ in range(3):
        door.send(late.samples(1))
    assert (door.session.last_seq, door.counters.refused["gap"]) == (1, 3)
    assert door.passed.replies == [(b"p", m.Rehello())]
    door.send(m.Loss(2, 4, "outbox full"))
    door.send(RowMaker(seq=5, update=5).samples(1))
    assert door.session.last_seq == 5
    assert [(loss.first_seq, loss.last_seq, loss.reason) for loss in door.passed.losses] == [(2, 4, "outbox full")]


def test_gate_with_a_loss_of_known_records_keeps_only_the_unknown_part(door: Door) -> None:
    """What is committed is not lost, whatever a confused sender says."""
    door.send(door.rows.samples(3))
    door.send(m.Loss(1, 4, "outbox full"))
    assert [(loss.first_seq, loss.last_seq) for loss in door.passed.losses] == [(3, 4)]


def test_gate_with_a_backward_loss_refuses_it(door: Door) -> None:
    """A range that ends before it begins covers nothing."""
    refusal = door.send(m.Loss(3, 2, "x")).replies[-1][1]
    assert isinstance(refusal, m.Refuse)
    assert "LOSS.last_seq" in refusal.detail


def test_gate_passes_every_field_of_events_tables_and_results(door: Door) -> None:
    """Values that differ from every default come through."""
    door.send(m.Event(0, "exception", 3, 9, "ValueError", {"line": 7}))
    door.send(m.Table(1, "episodes", 4, ("a",), ("return",), b"12345678"))
    door.send(m.Result(2, "esc", "applied", 5, "why"))
    event, table = door.passed.events[0], door.passed.tables[0]
    assert (event.stream, event.session, event.seq, event.kind, event.update, event.t_ns, event.text, event.detail) == (
        STREAM,
        "s1",
        0,
        "exception",
        3,
        9,
        "ValueError",
        {"line": 7},
    )
    assert (table.kind, table.update, table.index, table.names, table.values) == (
        "episodes",
        4,
        ("a",),
        ("return",),
        b"12345678",
    )
    assert door.passed.results == [(STREAM, m.Result(2, "esc", "applied", 5, "why"))]


def test_gate_with_a_table_of_wrong_size_refuses_it(door: Door) -> None:
    """Rows times names times eight bytes."""
    refusal = door.send(m.Table(0, "episodes", 4, ("a", "b"), ("return",), b"12345678")).replies[-1][1]
    assert isinstance(refusal, m.Refuse)
    assert "TABLE.values: expected 16 bytes, got 8 bytes" in refusal.detail


def test_gate_answers_ping_and_moves_the_time_it_heard_the_session(door: Door) -> None:
    """Any message is a sign of life."""
    door.send(m.Ping(77), now=5.0)
    assert door.passed.replies == [(b"p", m.Pong(77))]
    assert door.session.heard_s == 5.0
    assert not door.sessions.silent(5.0 + limits.HEARTBEAT_S * limits.HEARTBEATS_MISSED_MAX)
    assert door.sessions.silent(5.1 + limits.HEARTBEAT_S * limits.HEARTBEATS_MISSED_MAX) == [door.session]


def test_gate_with_the_same_schema_of_many_sessions_keeps_one(door: Door) -> None:
    """A thousand trainers of one kind cost one schema; one that differs is its own."""
    door.sessions.open(LiveSession("s2", b"q", STREAM, hello(), -1, -1, 0.0))
    door.send(m.SchemaMessage(FULL.columns), b"q")
    door.send(m.SchemaMessage(FULL.columns[:-1]), b"q")
    of_p, (same, other) = list(door.session.schemas.values()), list(door.sessions.by_id["s2"].schemas.values())
    assert of_p[0] is same
    assert other.columns == FULL.columns[:-1]


def test_gate_with_a_schema_of_nobody_asks_for_a_greeting(door: Door) -> None:
    """Also one that is known from others."""
    door.send(m.SchemaMessage(FULL.columns), b"stranger")
    assert door.passed.replies == [(b"stranger", m.Rehello())]
    assert door.counters.refused == {"not-greeted": 1}


def test_gate_forgets_the_oldest_schema_frame_beyond_the_bound(door: Door) -> None:
    """Whoever invents schemas does not fill the daemon; the frame of an old one is read again."""
    for count in range(1, SCHEMAS_MAX + 1):
        door.send(m.SchemaMessage((replace(FULL.columns[0], subject=f"s{count}"),)))
    before = door.session.schemas[next(reversed(door.session.schemas))]
    door.send(m.SchemaMessage(FULL.columns))
    assert FULL.id in door.session.schemas
    assert before.id in door.session.schemas


def test_session_of_whom_something_waits_is_not_silent(door: Door) -> None:
    """After a tick of many seconds nobody is lost whose frames lie there unread."""
    late = 5.1 + limits.HEARTBEAT_S * limits.HEARTBEATS_MISSED_MAX
    door.sessions.hear([b"stranger", b"p"], 5.0)
    assert door.sessions.silent(late) == [door.session]
    door.sessions.hear([b"p"], late)
    assert door.sessions.silent(late) == []


def test_joined_blocks_keep_order_and_do_not_mix_streams() -> None:
    """Joining is only a matter of speed."""
    door = Door()
    door.send(door.rows.samples(2))
    door.send(door.rows.samples(3))
    other = replace(door.passed.rows[0], stream=Stream("other", 1, 0))
    joined = join_rows([door.passed.rows[0], other, door.passed.rows[1]])
    assert [(block.stream.run, block.update.tolist()) for block in joined] == [("ant-ppo", [0, 1, 2, 3, 4]), ("other", [0, 1])]
    assert np.array_equal(joined[0].values[2:], door.passed.rows[1].values)
