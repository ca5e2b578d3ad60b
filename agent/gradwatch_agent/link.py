"""The thread that talks to the daemon. The only place of the agent that imports zmq, and only inside that thread.

Importing zmq costs 54 ms, and a socket belongs to one thread. Context and socket are referenced from nothing but the
frames of the thread: in a forked child, where closing them could abort the process, those frames never run or unwind again.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from gradwatch_agent.guard import is_strict, note_own_error
from gradwatch_agent.process import disable_in_child
from gradwatch_agent.session import Session, State
from gradwatch_contracts import limits
from gradwatch_contracts.connection import read_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    import zmq

    from gradwatch_agent.desired import DesiredState
    from gradwatch_agent.session import Outgoing
    from gradwatch_agent.spool.delivery import Delivery
    from gradwatch_contracts.messages import Command, Hello

LOGGER = logging.getLogger("gradwatch")
ABSENT_S = 2.0
"""How long a daemon may take to answer before the user is told, once, that there is none."""

LOCATE_S = 1.0
"""While no daemon answers, how often its file is looked for: one `stat`."""

IDLE_AFTER_S = 2.0
IDLE_INTERVAL_S = 0.1
"""Once nothing was put for so long, or when no daemon is there, the thread wakes up only so often."""

CLOSING_INTERVAL_S = 0.002
"""While `close` waits."""

CLOSE_MARGIN_S = 0.5
"""What `close` may take beyond its timeout: one idle wake-up, the linger, and the end of the thread."""

LINGER_S = 0.1
"""How long the socket may take to accept BYE, and then the context to hand it to the kernel. Both are a part of what `close`
is given. Before BYE, nothing is worth a wait."""

FRAMES_PER_TURN = 64
"""Frames taken in at a time: a daemon that floods us costs a bounded share of the trainer's interpreter."""

QUEUE_FRAMES_MAX = 64
"""High-water marks: a backstop only, the window of WELCOME is what bounds."""

FAILURES_MAX = 8
"""Own errors in a row after which the link gives up."""


class Locates(Protocol):
    """Where the daemon is. See `process.Locator`."""

    def __call__(self) -> tuple[str, str] | None:
        """Endpoint and secret when they may have changed."""

    def gone(self) -> bool:
        """Whether it is known to be gone."""


class Link:
    """The connection of one process to its daemon.

    Args:
        endpoint, secret: as from `process.resolve_endpoint`; the secret goes into HELLO.
        hello: makes the HELLO, anew for each one, always with the same `session`. Called on the link thread.
        outbox, desired: what is sent from, and what is told what should hold. A refused link empties the outbox.
        on_refused: called once on the link thread with the sentence of a refusal.
        on_command: called on the link thread with each COMMAND; None answers with RESULT `rejected`.
        on_own_error: called on the link thread with (place, traceback) at the first failure of each place.
        delivery: of what earlier attempts left in a spool; the HELLO waits for it, for a while.
        each_turn: called on the link thread while connected, with the count of connections; must be quick.
        locate: asked once a second while no daemon answers; gives (endpoint, secret) when they may have changed, and says
            before each HELLO whether the daemon of the secret is gone.
    """

    def __init__(
        self,
        endpoint: str,
        secret: str,
        hello: Callable[[], Hello],
        outbox: Outgoing,
        desired: DesiredState,
        *,
        on_refused: Callable[[str], None] | None = None,
        on_command: Callable[[Command], None] | None = None,
        on_own_error: Callable[[str, str], None] | None = None,
        locate: Locates | None = None,
        delivery: Delivery | None = None,
        each_turn: Callable[[int], None] | None = None,
    ) -> None:
        self.endpoint, self._keys = read_endpoint(endpoint)
        self.warned_absent = False
        self._outbox, self._delivery = outbox, delivery
        self._on_refused, self._own_error, self._each_turn = on_refused, on_own_error, each_turn
        self._secret, self._locate, self._located_at = secret, locate, time.monotonic()
        self._session = Session(partial(self._greeting, hello), outbox, desired, on_command, time.monotonic())
        self._thread: threading.Thread | None = None
        self._ended = self._disabled = False
        self._reason = ""
        self._close_at: float | None = None  # set once by `close`, read by the thread
        self._started_at = self._put_at = 0.0
        self._failures = 0
        self._greet_again = False

    @property
    def state(self) -> str:
        """`connecting`, `live`, `refused` or `closed`."""
        refused = self._session.state is State.REFUSED
        return "closed" if (self._ended or self._disabled) and not refused else self._session.state.value

    @property
    def refusal(self) -> str:
        """The sentence of the refusal, '' when there was none."""
        return self._session.refusal

    @property
    def attempt(self) -> int:
        """The attempt that WELCOME named, 0 before it."""
        return self._session.attempt

    @property
    def bad_frames(self) -> int:
        """Frames from the daemon that were no message it may send, or no message at all."""
        return self._session.bad_frames

    @property
    def refused_frames(self) -> int:
        """Frames of ours that the daemon refused; what they held is in LOSS records."""
        return self._session.refused_frames

    def greet_again(self) -> None:
        """Say HELLO once more, since it would say something else now. Any thread; returns at once."""
        self._greet_again = True

    def start(self) -> None:
        """Start the thread, once; a link that is closed or disabled stays so. Returns at once."""
        if self._thread is not None or self._ended or self._disabled:
            return
        self._started_at = self._put_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="gradwatch-link", daemon=True)
        disable_in_child(self)
        self._thread.start()

    def close(self, timeout_s: float = limits.CLOSE_S, reason: str = "") -> None:
        """Stop the intake, wait at most `timeout_s` until all is acked, say BYE with `reason`, end the thread.

        Returns after `timeout_s` + `CLOSE_MARGIN_S` at the latest, whatever the daemon does. Does not wait at all for a
        daemon that never answered and was reported absent. Harmless to repeat, and in a forked child.
        """
        self._outbox.stop()
        thread = self._thread
        if self._disabled:
            return
        if thread is None:
            self._ended = True
            return
        if self._close_at is None:
            self._reason = reason
            self._close_at = time.monotonic() + max(timeout_s, 2 * LINGER_S)
        if thread is threading.current_thread():
            return
        thread.join(timeout_s + CLOSE_MARGIN_S)
        if thread.is_alive():
            LOGGER.warning("gradwatch: the link did not end within %.1f s and is left behind", timeout_s + CLOSE_MARGIN_S)

    def deliver(self, reason: str) -> None:
        """Start, send all there is however long it takes, say BYE with `reason` and end. Of an absent daemon nobody is told."""
        self.warned_absent = True
        self._reason, self._close_at = reason, math.inf
        self.start()

    def leave(self) -> None:
        """End soon, whatever is still on its way; returns at once. For what `deliver` began."""
        self._close_at = 0.0

    @property
    def welcomed(self) -> bool:
        """Whether a daemon ever took this session."""
        return self._session.welcomed

    def disable(self) -> None:
        """Become inert without touching the socket: we are in a forked child, and the thread is not."""
        self._disabled = True
        self._outbox.stop()

    def _run(self) -> None:
        """The thread: one context and one socket, closed whatever happens."""
        try:
            import zmq

            context = zmq.Context()
            try:
                socket = context.socket(zmq.DEALER)
                try:
                    self._connect(socket)
                    while not self._over(time.monotonic()):
                        self._turn(socket)
                    self._tell_refusal()
                finally:
                    said_bye = self._session.state is State.CLOSED
                    socket.close(linger=int(LINGER_S * 1000) if said_bye else 0)
            finally:
                context.term()
        except Exception as error:
            if is_strict():
                raise
            note_own_error(self, "link", error)
        finally:
            if self._delivery is not None:
                self._delivery.leave()
            self._outbox.discard(self._reason)
            self._ended = True

    def _connect(self, socket: zmq.Socket[bytes]) -> None:
        import zmq

        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, limits.FRAME_BYTES_MAX)
        socket.setsockopt(zmq.SNDHWM, QUEUE_FRAMES_MAX)
        socket.setsockopt(zmq.RCVHWM, QUEUE_FRAMES_MAX)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 10_000)
        try:
            self._encrypt(socket)
            socket.connect(self.endpoint)
        except zmq.ZMQError as error:
            self._session.refuse(f"The endpoint {self.endpoint} cannot be used ({error}).")

    def _encrypt(self, socket: zmq.Socket[bytes]) -> None:
        """Set the keys for the connections to come: the daemon's is checked as much as ours, since we obey it."""
        import zmq

        if self._keys is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, bytes.fromhex(self._keys.server))
            socket.setsockopt(zmq.CURVE_PUBLICKEY, bytes.fromhex(self._keys.public))
            socket.setsockopt(zmq.CURVE_SECRETKEY, bytes.fromhex(self._keys.secret))

    def _turn(self, socket: zmq.Socket[bytes]) -> None:
        """Take what came, send what is due, sleep until something comes or it is time."""
        try:
            flooded = self._receive(socket)
            if self._greet_again and self._session.state is State.LIVE:
                self._greet_again = False
                self._session.greet_again(time.monotonic())
            if self._each_turn is not None and self._session.state is State.LIVE:
                self._each_turn(self._session.connections)
            self._outbox.tend(self._session.state is State.LIVE, time.monotonic())
            if not self._waits(time.monotonic()):
                self._send(socket)
            self._tell_absence(time.monotonic())
            self._relocate(socket, time.monotonic())
            self._failures = 0
        except Exception as error:
            self._failures += 1
            if is_strict() or self._failures >= FAILURES_MAX:
                raise
            note_own_error(self, "link.turn", error)
            flooded = True
        pause_s = self._pause_s(time.monotonic())
        busy = pause_s == limits.SEND_INTERVAL_S and self._session.state is State.LIVE
        if flooded or busy:  # while rows flow, each brings an ack: to wake up for it would take the interpreter twice a tick
            time.sleep(pause_s)
        else:
            socket.poll(int(pause_s * 1000))

    def _waits(self, now: float) -> bool:
        """Whether what earlier attempts left goes first, so that attempts come in order: at the end too, for what cannot be
        sent then is left for the next."""
        return self._delivery is not None and self._delivery.goes_first(now) and not self._session.welcomed

    def _receive(self, socket: zmq.Socket[bytes]) -> bool:
        """Hand in what came; return whether there may be more."""
        import zmq

        for _ in range(FRAMES_PER_TURN):
            if not int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:  # unlike `poll` it keeps the interpreter
                return False
            parts = socket.recv_multipart(zmq.DONTWAIT)
            self._session.receive(parts[0] if len(parts) == 1 else b"", time.monotonic())
        return True

    def _send(self, socket: zmq.Socket[bytes]) -> None:
        import zmq

        before = self._outbox.accepted
        while not self._over(time.monotonic()):
            frame = self._session.frame(time.monotonic())
            if frame is None:
                break
            try:
                socket.send(frame, zmq.DONTWAIT)
            except zmq.Again:  # nobody there, or a full queue: later
                break
            self._session.sent(time.monotonic())
        if self._outbox.accepted != before:
            self._put_at = time.monotonic()

    def _over(self, now: float) -> bool:
        """Whether the thread ends; on the way, whether it is time for BYE."""
        session = self._session
        if session.state in (State.REFUSED, State.CLOSED):
            return True
        if self._close_at is None:
            return False
        session.close(self._reason)
        if now >= self._close_at - 2 * LINGER_S:
            session.hurry()
        hopeless = self.warned_absent and not session.welcomed and self._close_at != math.inf
        nothing_to_say = not session.welcomed and self._outbox.settled
        return hopeless or nothing_to_say or now >= self._close_at - LINGER_S

    def _greeting(self, hello: Callable[[], Hello]) -> Hello | None:
        """The HELLO with the secret; None while whoever listens at the endpoint can be no daemon of ours."""
        if self._secret and self._locate is not None and self._locate.gone():
            return None
        return replace(hello(), secret=self._secret)

    def _relocate(self, socket: zmq.Socket[bytes], now: float) -> None:
        """A daemon that was started after us, or elsewhere again, says in its file where it is."""
        if self._locate is None or self._session.state is State.LIVE or now - self._located_at < LOCATE_S:
            return
        self._located_at = now
        found = self._locate()
        if found is None:
            return
        endpoint, self._secret = found
        address, keys = read_endpoint(endpoint)
        if (address, keys) != (self.endpoint, self._keys):
            socket.disconnect(self.endpoint)
            self.endpoint, self._keys = address, keys
            self._encrypt(socket)
            socket.connect(address)

    def _tell_absence(self, now: float) -> None:
        if self._delivery is not None and self._delivery.welcomed:
            return
        if not (self._session.welcomed or self.warned_absent) and now - self._started_at >= ABSENT_S:
            self.warned_absent = True
            LOGGER.warning(
                "gradwatch: no daemon answers at %s. Training goes on; %s is kept until one does. %s",
                self.endpoint,
                "what is collected" if self._outbox.durable else "the newest telemetry",
                "Start one with `gradwatch serve`."
                if self._keys is None
                else "Is it running there, and is this key still in its `gradwatch keys list`?",
            )

    def _tell_refusal(self) -> None:
        if self._session.state is State.REFUSED:
            past = self._close_at == math.inf
            off = "does not send what an earlier attempt left in the spool" if past else "is off for this run"
            LOGGER.warning("gradwatch %s: %s", off, self._session.refusal)
            if self._on_refused is not None:
                self._on_refused(self._session.refusal)

    def _pause_s(self, now: float) -> float:
        if self._close_at is not None and self._close_at != math.inf:
            return CLOSING_INTERVAL_S
        answered = self._session.state is State.LIVE or not self.warned_absent
        return limits.SEND_INTERVAL_S if answered and now - self._put_at < IDLE_AFTER_S else IDLE_INTERVAL_S

    def _on_own_error(self, place: str, text: str) -> None:
        if self._own_error is not None:
            self._own_error(place, text)
