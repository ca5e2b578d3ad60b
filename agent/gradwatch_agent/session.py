"""One session with the daemon as a pure machine: messages and the time in, frames, desired state and commands out.

HELLO until an answer, data within the window, PING when it is quiet, HELLO again when nobody answers or the daemon does
not know us: always the same session id, so the daemon can say what it already has. `now` is monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import decode, encode
from gradwatch_contracts.errors import CODES, ContractError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradwatch_agent.desired import DesiredState

HELLO_AGAIN_S = 0.25
HELLO_AGAIN_MAX_S = 5.0
"""First and longest wait for an answer to HELLO; doubled each time."""

GONE_S = limits.HEARTBEAT_S * (limits.HEARTBEATS_MISSED_MAX + 1)
"""Silence after which the daemon counts as gone: the first PING goes out after one heartbeat, then so many stay unanswered.
After a pause of our own (SIGSTOP, a long call that holds the interpreter) this may be wrong; a HELLO too many is harmless."""

FRESH_S = 0.25
"""Silence after which a daemon is asked whether it is there before it is told BYE: one that has restarted since asks for a
HELLO, and would not know who left."""

PONGS_MAX = 8
"""Answers queued at once: a daemon that only pings must not make us grow."""


class Outgoing(Protocol):
    """Where a session takes its records from: an outbox, one with a spool behind it, or the spool of a session that is over."""

    @property
    def durable(self) -> bool:
        """Whether what is not acked at the end will be sent later."""

    @property
    def last_seq(self) -> int:
        """The last record's number, -1 for none."""

    @property
    def settled(self) -> bool:
        """Whether everything is acked."""

    @property
    def accepted(self) -> int:
        """Records so far."""

    def absorb(self) -> int:
        """Number what was put."""

    def tend(self, live: bool, now: float) -> None:
        """Called often, whether or not a daemon is there."""

    def take(self, window: int, window_bytes: int = ...) -> list[m.Message]:
        """The next messages, with at most so many records in flight after them, and none while so many bytes are."""

    def ack(self, seq: int) -> None:
        """Forget everything up to `seq`."""

    def rewind(self, seq: int) -> None:
        """A new connection: everything after `seq` is to be sent again."""

    def spoil(self, message: m.Message, reason: str) -> m.Loss | None:
        """Put a LOSS in the place of a message just taken that cannot travel."""

    def forfeit(self, seq: int, reason: str) -> None:
        """Give record `seq` up."""

    def put_result(self, id: str, state: str, update: int, reason: str = "") -> None:
        """Queue what became of a command."""

    def stop(self) -> None:
        """Close the intake."""

    def save(self) -> None:
        """The end is near: put what is not acked where it can be sent from later. `durable` says whether that worked."""

    def discard(self, reason: str = "") -> None:
        """The end: free everything; `reason` is that of the BYE."""


class State(str, Enum):
    """Where a session is. `REFUSED` and `CLOSED` are final."""

    CONNECTING = "connecting"
    LIVE = "live"
    REFUSED = "refused"
    CLOSED = "closed"


class Session:
    """The machine. The link calls `frame`, sends it, says `sent`, and hands in every frame that came by `receive`.

    Args:
        hello: makes the HELLO, anew each time, with the same `session`; None while none is to be said.
        outbox: where data is taken from and acked.
        desired: told what should hold.
        on_command: takes a COMMAND; None answers each with a RESULT `rejected`.
        now: monotonic seconds.
    """

    def __init__(
        self,
        hello: Callable[[], m.Hello | None],
        outbox: Outgoing,
        desired: DesiredState,
        on_command: Callable[[m.Command], None] | None,
        now: float,
    ) -> None:
        self._hello, self._outbox, self._desired, self._on_command = hello, outbox, desired, on_command
        self.state = State.CONNECTING
        self.refusal = ""
        self.attempt = 0
        self.connections = 0
        """How often a daemon welcomed this session."""
        self.bad_frames = 0
        self.refused_frames = 0
        self._refused_code = ""
        self._window = self._window_bytes = 0
        self._data: deque[m.Message] = deque()
        self._pongs: deque[m.Message] = deque(maxlen=PONGS_MAX)
        self._offered: m.Message | None = None
        self._hello_at = now
        self._hello_wait_s = HELLO_AGAIN_S
        self._heard_at = self._sent_at = self._pinged_at = now
        self._closing = self._hurry = False
        self._reason = ""

    @property
    def welcomed(self) -> bool:
        """Whether a daemon ever accepted this session."""
        return self.attempt > 0

    def frame(self, now: float) -> bytes | None:
        """Return the frame to send now, None when there is nothing. Asking again returns the same until `sent`.

        A record that cannot be encoded is replaced by its LOSS; a HELLO that cannot ends the session.
        """
        while True:
            self._offered = message = self._next(now)
            if message is None:
                return None
            try:
                return checked(message)
            except ContractError as error:
                if isinstance(message, m.Hello):
                    self.refuse(error.sentence)
                    return None
                loss = self._outbox.spoil(message, f"could not be sent: {error.code.slug}")
                self._data.popleft()
                if loss is not None:
                    self._data.appendleft(loss)

    def sent(self, now: float) -> None:
        """Say that the last frame was taken by the socket."""
        message, self._offered = self._offered, None
        self._sent_at = now
        if isinstance(message, m.Hello):
            self._hello_at = now + self._hello_wait_s
            self._hello_wait_s = min(2 * self._hello_wait_s, HELLO_AGAIN_MAX_S)
        elif isinstance(message, m.Ping):
            self._pinged_at = now
        elif isinstance(message, m.Pong):
            self._pongs.popleft()
        elif isinstance(message, m.Bye):
            self.state = State.CLOSED
        elif message is not None:
            self._data.popleft()

    def receive(self, frame: bytes, now: float) -> None:
        """Take a frame from the daemon. What it must not send is counted in `bad_frames` and ignored; nothing is raised."""
        if self.state in (State.REFUSED, State.CLOSED):
            return
        try:
            message = decode(frame)
        except ContractError:
            self.bad_frames += 1
            return
        self._heard_at = now
        if isinstance(message, m.Ack):
            self._outbox.ack(message.seq)
        elif isinstance(message, m.LevelMessage):
            self._desired.receive(message.desired)
        elif isinstance(message, m.Welcome):
            self._welcome(message)
        elif isinstance(message, m.Rehello):
            # Each of our frames in flight brings one: only the first means something.
            if self.state is State.LIVE:
                self._reconnect(now)
        elif isinstance(message, m.Refuse):
            self._take_refusal(message, now)
        elif isinstance(message, m.Ping):
            self._pongs.append(m.Pong(message.t_ns))
        elif isinstance(message, m.Command):
            self._command(message)
        elif not isinstance(message, m.Pong):
            self.bad_frames += 1

    def close(self, reason: str = "") -> None:
        """Say BYE once everything is acked. The daemon knows `exception` as a crash."""
        self._closing, self._reason = True, reason

    def greet_again(self, now: float) -> None:
        """Say HELLO anew on the same connection: it says something else than the last one."""
        if self.state is State.LIVE:
            self._reconnect(now)

    def hurry(self) -> None:
        """Say BYE now, whatever is still on its way."""
        if not self._hurry:
            self._closing = self._hurry = True
            self._outbox.save()

    def refuse(self, sentence: str) -> None:
        """End for good: the daemon will not have us, or cannot be reached at all. The outbox is emptied and closed."""
        self.state = State.REFUSED
        self.refusal = sentence
        self._data.clear()
        self._pongs.clear()
        self._outbox.discard("lost")

    def _next(self, now: float) -> m.Message | None:
        if self.state is State.LIVE and now - self._heard_at >= GONE_S:
            self._reconnect(now)
        if self.state in (State.CONNECTING, State.LIVE):
            self._outbox.absorb()  # also while nothing can be sent: this is what keeps it within its bytes
        if self.state is State.CONNECTING:
            return self._hello() if now >= self._hello_at else None
        if self.state is not State.LIVE:
            return None
        if self._pongs:
            return self._pongs[0]
        if now - max(min(self._heard_at, self._sent_at), self._pinged_at) >= limits.HEARTBEAT_S:
            return m.Ping(int(now * 1e9))
        if not self._data and not self._hurry:
            self._data.extend(self._outbox.take(self._window, self._window_bytes))
        if self._closing:
            return self._last_word(now)
        return self._data[0] if self._data else None

    def _last_word(self, now: float) -> m.Message | None:
        """What is still on its way, then BYE: to a daemon that is known to hear it, unless there is no time to ask.

        What will be sent later is not to be declared lost: then the session ends without a word, as if it were killed.
        """
        settled = not self._data and self._outbox.settled
        bye = m.Bye(self._outbox.last_seq, self._reason)
        if self._hurry:
            return bye if settled or not self._outbox.durable else None
        if not settled:
            return self._data[0] if self._data else None
        if now - self._heard_at <= FRESH_S:
            return bye
        return m.Ping(int(now * 1e9)) if self._pinged_at <= self._heard_at else None

    def _reconnect(self, now: float) -> None:
        """Back to HELLO; never sooner than the first wait after the last one, so no daemon can make us spin."""
        self.state = State.CONNECTING
        self._data.clear()
        self._pongs.clear()
        self._hello_wait_s = HELLO_AGAIN_S
        self._hello_at = max(now, self._hello_at)

    def _welcome(self, message: m.Welcome) -> None:
        self.state = State.LIVE
        self.attempt = message.attempt
        self.connections += 1
        self._window, self._window_bytes = message.window_records, message.window_bytes
        self._hello_wait_s = HELLO_AGAIN_S
        self._data.clear()
        self._outbox.rewind(message.last_seq)
        if self._refused_code:
            self._outbox.forfeit(message.last_seq + 1, f"refused by the daemon: {self._refused_code}")
            self._refused_code = ""
        self._desired.receive(message.desired, welcome=True)

    def _take_refusal(self, message: m.Refuse, now: float) -> None:
        """A final one ends us. Else one frame was refused: HELLO tells which, and its record is given up."""
        if message.final:
            code = CODES.get(message.code)
            title, hint = (code.title, code.hint) if code else (f"The daemon refuses this run: {message.code}.", "")
            self.refuse(" ".join(part for part in (title, f"({message.detail})" if message.detail else "", hint) if part))
            return
        self.refused_frames += 1
        if self.state is State.LIVE:
            self._refused_code = message.code
            self._reconnect(now)

    def _command(self, command: m.Command) -> None:
        if self._on_command is not None:
            self._on_command(command)
        else:
            self._outbox.put_result(command.id, "rejected", command.not_before_update, f"this agent has no {command.verb}")


def checked(message: m.Message) -> bytes:
    """The frame of a message. Evidence and HELLO hold what users gave: what our own decoder refuses is not sent."""
    frame = encode(message)
    if isinstance(message, (m.Hello, m.Table, m.Event, m.Result)):
        decode(frame)
    return frame
