"""The session machine, with the clock in hand: refusals and silence first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradwatch_agent.desired import DesiredState
from gradwatch_agent.outbox import Outbox
from gradwatch_agent.session import FRESH_S, GONE_S, HELLO_AGAIN_MAX_S, HELLO_AGAIN_S, PONGS_MAX, Session, State
from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import decode, encode
from gradwatch_contracts.control import Desired, Level
from gradwatch_contracts.errors import CODES
from harness.outgoing import hello, put_row, row


class Wire:
    """A session and its clock; what it sends is decoded and returned."""

    def __init__(self, greeting: m.Hello | None = None) -> None:
        self.now = 100.0
        self.outbox = Outbox()
        self.desired = DesiredState(Level.NORMAL)
        self.commands: list[m.Command] = []
        self.session = Session(lambda: greeting or hello(), self.outbox, self.desired, None, self.now)

    def sends(self, *, wait_s: float = 0.0) -> list[m.Message]:
        """Everything due after `wait_s`."""
        self.now += wait_s
        sent = []
        while (frame := self.session.frame(self.now)) is not None:
            sent.append(decode(frame))
            self.session.sent(self.now)
        return sent

    def hears(self, *messages: m.Message) -> None:
        """The daemon says this, now."""
        for message in messages:
            self.session.receive(encode(message), self.now)

    def live(self, window: int = 4096, last_seq: int = -1, desired: Desired | None = None) -> None:
        """Get through HELLO and WELCOME."""
        assert [type(message) for message in self.sends()] == [m.Hello]
        self.hears(m.Welcome(3, window, last_seq, desired or Desired(0)))
        assert self.session.state is State.LIVE


def _kinds(messages: list[m.Message]) -> list[type]:
    return [type(message) for message in messages]


def _seqs(messages: list[m.Message]) -> list[int]:
    return [seq for sent in messages if isinstance(sent, m.Samples) for seq in range(sent.first_seq, sent.first_seq + sent.n)]


def test_refused_session_says_why_and_holds_nothing() -> None:
    """A no-op from then on: nothing is sent, nothing grows."""
    wire = Wire()
    put_row(wire.outbox, row(0))
    wire.sends()
    wire.hears(m.Refuse("protocol-unsupported", "header.major: expected 2, got 1", (2,)))
    put_row(wire.outbox, row(1))

    assert wire.session.state is State.REFUSED
    code = CODES["protocol-unsupported"]
    assert wire.session.refusal == f"{code.title} (header.major: expected 2, got 1) {code.hint}"
    assert wire.sends(wait_s=1000) == []
    assert (wire.outbox.pending, wire.outbox.settled) == (0, True)
    wire.hears(m.Welcome(1, 10, -1, Desired(0)))
    assert wire.session.state is State.REFUSED


def test_refusal_with_an_unknown_code_is_still_a_sentence() -> None:
    """A newer daemon may know more codes."""
    wire = Wire()
    wire.sends()
    wire.hears(m.Refuse("too-sunny", "no shade"))

    assert wire.session.refusal == "The daemon refuses this run: too-sunny. (no shade)"


def test_refusal_of_one_frame_gives_up_its_record_only() -> None:
    """The daemon would refuse it each time; the others must not wait behind it."""
    wire = Wire()
    wire.live()
    put_row(wire.outbox, row(0))
    wire.outbox.put_event("note", 1, 5)
    put_row(wire.outbox, row(2))
    wire.sends()
    wire.hears(m.Ack(0), m.Refuse("schema-mismatch", "EVENT", (1,), final=False), m.Rehello())
    assert wire.session.state is State.CONNECTING
    assert _kinds(wire.sends(wait_s=HELLO_AGAIN_S)) == [m.Hello]
    wire.hears(m.Welcome(3, 4096, 0, Desired(0)))

    sent = wire.sends()

    assert sent[0] == m.Loss(1, 1, "refused by the daemon: schema-mismatch")
    assert _seqs(sent) == [2]
    assert wire.session.refused_frames == 1


@pytest.mark.parametrize(
    "frame",
    [b"", b"junk", bytes(64), b"GRDW\x02" + bytes(11), encode(m.Ack(1))[:-1], encode(hello()), encode(m.Bye(0))],
    ids=["empty", "junk", "zeros", "other major", "cut", "hello", "bye"],
)
def test_frame_a_daemon_must_not_send_is_counted_and_ignored(frame: bytes) -> None:
    """Nothing it says can raise, or end a good session."""
    wire = Wire()
    wire.live()
    wire.session.receive(frame, wire.now)

    assert (wire.session.bad_frames, wire.session.state) == (1, State.LIVE)


def test_hello_that_cannot_be_encoded_ends_the_session_with_a_sentence() -> None:
    """A bad `config` must neither raise in the thread nor be sent for ever."""
    wire = Wire(replace(hello(), run="x" * 65))

    assert wire.sends() == []
    assert wire.session.state is State.REFUSED
    assert "HELLO.run" in wire.session.refusal


def test_record_that_cannot_be_encoded_becomes_a_loss_in_its_place() -> None:
    """Its neighbours travel, and the gap is closed."""
    wire = Wire()
    wire.live()
    put_row(wire.outbox, row(0))
    wire.outbox.put_event("note", 1, 2**70)
    wire.outbox.put_table("layers", 1, ("a",) * 9000, ("b",), bytes(8 * 9000))
    put_row(wire.outbox, row(2))

    sent = wire.sends()

    assert _kinds(sent) == [m.SchemaMessage, m.Samples, m.Loss, m.Loss, m.Samples]
    assert sent[2:4] == [m.Loss(seq, seq, "could not be sent: body-malformed") for seq in (1, 2)]


def test_hello_without_an_answer_backs_off() -> None:
    """From 0.25 s to 5 s, doubling; and no data before WELCOME."""
    wire = Wire()
    put_row(wire.outbox, row(0))
    assert _kinds(wire.sends()) == [m.Hello]
    waits = []
    for _ in range(7):
        wait = 0.0
        while not wire.sends(wait_s=0.05):
            wait += 0.05
        waits.append(wait + 0.05)

    assert waits == pytest.approx([0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0], abs=0.06)
    assert pytest.approx(HELLO_AGAIN_MAX_S) == 5.0


def test_hello_that_the_socket_did_not_take_does_not_back_off() -> None:
    """With nobody there every attempt is the first."""
    wire = Wire()
    for _ in range(50):
        wire.now += 0.1
        frame = wire.session.frame(wire.now)
        assert frame is not None
        assert isinstance(decode(frame), m.Hello)


def test_outbox_stays_bounded_while_connecting() -> None:
    """The machine absorbs also when nothing can be sent."""
    wire = Wire()
    wire.outbox = Outbox(bytes_max=4_000)
    wire.session = Session(hello, wire.outbox, wire.desired, None, wire.now)
    for update in range(100):
        put_row(wire.outbox, row(update))
    wire.sends()

    assert wire.outbox.accepted == 100
    assert wire.outbox.bytes_held <= 4_000


def test_rehello_makes_one_hello_whatever_their_number() -> None:
    """Each of our frames in flight brings one; after WELCOME the unacked rows come again, with their schema."""
    wire = Wire()
    wire.live(last_seq=-1)
    for update in range(3):
        put_row(wire.outbox, row(update))
    assert _seqs(wire.sends()) == [0, 1, 2]
    wire.hears(m.Ack(0), m.Rehello(), m.Rehello(), m.Rehello())

    assert _kinds(wire.sends(wait_s=HELLO_AGAIN_S)) == [m.Hello]
    wire.hears(m.Welcome(3, 4096, 0, Desired(0)))
    again = wire.sends()
    assert _kinds(again) == [m.SchemaMessage, m.Samples]
    assert _seqs(again) == [1, 2]


def test_daemon_that_answers_every_hello_with_rehello_cannot_make_us_spin() -> None:
    """Four a second at the most, even when WELCOME comes in between."""
    wire = Wire()
    hellos = 0
    for _ in range(1000):
        hellos += len([sent for sent in wire.sends(wait_s=0.001) if isinstance(sent, m.Hello)])
        wire.hears(m.Welcome(1, 10, -1, Desired(0)), m.Rehello())

    assert hellos <= 5


def test_hello_answered_by_rehello_only_backs_off_all_the_same() -> None:
    """An answer that leads nowhere is no reason to ask faster."""
    wire = Wire()
    hellos = 0
    for _ in range(100):
        hellos += len(wire.sends(wait_s=0.1))
        wire.hears(m.Rehello())

    assert hellos <= 7


def test_second_welcome_starts_over_with_the_schema() -> None:
    """The daemon forgot the schemas at that HELLO: what was already queued must not go out ahead of them."""
    wire = Wire()
    wire.live()
    for update in range(100):
        put_row(wire.outbox, row(update))
    for _ in range(2):  # the schema and the first rows
        assert wire.session.frame(wire.now) is not None
        wire.session.sent(wire.now)
    wire.hears(m.Welcome(3, 4096, 9, Desired(0)))
    again = wire.sends()

    assert isinstance(again[0], m.SchemaMessage)
    assert _seqs(again) == list(range(10, 100))


def test_silent_daemon_is_pinged_and_then_greeted_again() -> None:
    """One PING a heartbeat; after three without an answer HELLO, with the same session."""
    wire = Wire()
    wire.live()
    log: list[tuple[float, type]] = []
    start = wire.now
    while not log or log[-1][1] is not m.Hello:
        log += [(round(wire.now - start, 1), type(sent)) for sent in wire.sends(wait_s=0.125)]

    beat = limits.HEARTBEAT_S
    assert [kind for _, kind in log] == [m.Ping, m.Ping, m.Ping, m.Hello]
    assert [at for at, _ in log] == pytest.approx([beat, 2 * beat, 3 * beat, GONE_S], abs=0.2)
    assert wire.session.state is State.CONNECTING


def test_session_that_sends_but_hears_nothing_notices() -> None:
    """Data going out is no sign of life of the daemon."""
    wire = Wire()
    wire.live()
    seen: list[type] = []
    for update in range(100):
        put_row(wire.outbox, row(update))
        seen += _kinds(wire.sends(wait_s=0.1))

    assert seen.count(m.Ping) == 3
    assert m.Hello in seen


def test_session_that_hears_but_says_nothing_still_pings() -> None:
    """Else a daemon that has much to say would count us as gone."""
    wire = Wire()
    wire.live()
    seen: list[type] = []
    for _ in range(100):
        wire.hears(m.LevelMessage(Desired(1)))
        seen += _kinds(wire.sends(wait_s=0.1))

    assert seen.count(m.Ping) == pytest.approx(10 / limits.HEARTBEAT_S, abs=1)


def test_ping_is_answered_with_its_own_time_and_a_flood_is_bounded() -> None:
    """PONG returns `t_ns`."""
    wire = Wire()
    wire.live()
    wire.hears(m.Ping(77))
    assert wire.sends() == [m.Pong(77)]
    wire.hears(*[m.Ping(n) for n in range(1000)])
    assert len(wire.sends()) == PONGS_MAX


@pytest.mark.promise("window-records")
def test_window_of_welcome_bounds_what_is_unacked() -> None:
    """And an ACK opens it again."""
    wire = Wire()
    for update in range(10):
        put_row(wire.outbox, row(update))
    wire.live(window=3)

    assert _seqs(wire.sends()) == [0, 1, 2]
    wire.hears(m.Ack(1))
    assert _seqs(wire.sends()) == [3, 4]


@pytest.mark.promise("resend")
def test_welcome_says_what_the_daemon_has() -> None:
    """After a restart of the daemon only what it lacks is sent again."""
    wire = Wire()
    wire.live()
    for update in range(6):
        put_row(wire.outbox, row(update))
    wire.sends()
    wire.hears(m.Rehello())
    wire.sends(wait_s=HELLO_AGAIN_S)
    wire.hears(m.Welcome(3, 4096, 3, Desired(0)))

    assert _seqs(wire.sends()) == [4, 5]
    assert wire.outbox.acked == 4


def test_desired_state_arrives_by_welcome_and_by_level() -> None:
    """The newest revision holds; that of WELCOME in any case."""
    wire = Wire()
    wire.live(desired=Desired(5, Level.DEBUG))
    assert wire.desired.boundary(0)[0] is Level.DEBUG
    wire.hears(m.LevelMessage(Desired(4, Level.OFF)))
    assert wire.desired.boundary(1)[0] is Level.DEBUG
    wire.hears(m.LevelMessage(Desired(6, Level.MINIMAL)))
    assert wire.desired.boundary(2)[0] is Level.MINIMAL
    wire.hears(m.Welcome(3, 4096, -1, Desired(1, Level.OFF)))
    assert wire.desired.boundary(3)[0] is Level.OFF


def test_command_nobody_takes_is_rejected() -> None:
    """The daemon is told, so its command does not stay open for ever."""
    wire = Wire()
    wire.live()
    wire.hears(m.Command("c1", "profile", {}, 40))

    assert wire.sends() == [m.Result(0, "c1", "rejected", 40, "this agent has no profile")]


def test_command_is_handed_to_who_takes_it() -> None:
    """With its arguments."""
    wire = Wire()
    taken: list[m.Command] = []
    wire.session = Session(hello, wire.outbox, wire.desired, taken.append, wire.now)
    wire.live()
    command = m.Command("c1", "stop", {"why": "x"}, 40, 50)
    wire.hears(command)

    assert taken == [command]
    assert wire.sends() == []


def test_bye_comes_after_the_last_ack() -> None:
    """With the last number and the reason; then the session is over."""
    wire = Wire()
    wire.live()
    put_row(wire.outbox, row(0))
    wire.session.close("exception")
    assert _kinds(wire.sends()) == [m.SchemaMessage, m.Samples]
    assert wire.sends() == []
    wire.hears(m.Ack(0))

    assert wire.sends() == [m.Bye(0, "exception")]
    assert wire.session.state is State.CLOSED


def test_bye_after_a_silence_goes_to_a_daemon_that_answers() -> None:
    """One that restarted meanwhile does not know us: it is greeted first, so that it knows who left."""
    wire = Wire()
    wire.live()
    wire.session.close("closed")
    (ping,) = wire.sends(wait_s=FRESH_S + 0.1)
    assert isinstance(ping, m.Ping)
    assert wire.sends(wait_s=0.1) == []
    wire.hears(m.Rehello())
    assert _kinds(wire.sends(wait_s=HELLO_AGAIN_S)) == [m.Hello]
    wire.hears(m.Welcome(3, 4096, -1, Desired(0)))

    assert wire.sends() == [m.Bye(-1, "closed")]


def test_bye_after_a_silence_is_said_all_the_same_when_time_is_up() -> None:
    """A daemon that is stopped finds it when it goes on."""
    wire = Wire()
    wire.live()
    wire.session.close("closed")
    wire.sends(wait_s=FRESH_S + 0.1)
    wire.session.hurry()

    assert wire.sends() == [m.Bye(-1, "closed")]


def test_bye_in_a_hurry_does_not_wait_for_acks() -> None:
    """A trainer that ends must end."""
    wire = Wire()
    wire.live()
    put_row(wire.outbox, row(0))
    wire.sends()
    wire.session.hurry()

    assert wire.sends() == [m.Bye(0)]
