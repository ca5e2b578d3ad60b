"""Hands a log to a daemon as sessions: greets, sends within the window, waits until all is committed, says goodbye."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import decode, encode
from gradwatch_contracts.errors import CODES, GradwatchError
from gradwatch_contracts.segments import seqs_of
from gradwatch_daemon.importing.session import ORIGIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PATIENCE = 60
"""Times of `receive` without any answer before the daemon counts as gone."""


class Wire(Protocol):
    """The way to a pipeline: the socket of a running daemon, or one in this process."""

    def send(self, frame: bytes) -> None:
        """Hand over one frame."""

    def receive(self) -> list[bytes]:
        """What came back, after a short wait where nothing is there yet."""


def send_session(
    wire: Wire, hello: m.Hello, messages: Callable[[int], Iterable[m.Message]], bye: m.Bye | None = None
) -> tuple[int, int]:
    """One session from HELLO to BYE; (its attempt, records that were committed before). `messages` gives what follows the
    record that the daemon already has; `bye` None is that of a log.

    Raises:
        GradwatchError: what the daemon refuses with, or `daemon-unreachable` when it falls silent.
    """
    answers = _listen(wire)
    wire.send(encode(hello))
    welcome = next(message for message in answers if isinstance(message, m.Welcome))
    committed = last = welcome.last_seq
    flight: deque[tuple[int, int]] = deque()  # last record and their number, of each message that is not acked
    for message in messages(welcome.last_seq):
        while sum(count for _, count in flight) >= welcome.window_records:
            committed = _acked(answers, committed)
            while flight and flight[0][0] <= committed:
                flight.popleft()
        wire.send(encode(message))
        seqs = seqs_of(message)
        if seqs is not None:
            last = max(last, seqs[1])
            flight.append((seqs[1], 1 if isinstance(message, m.Loss) else seqs[1] - seqs[0] + 1))
    while committed < last:
        committed = _acked(answers, committed)
    wire.send(encode(bye or m.Bye(last, ORIGIN)))
    wire.receive()
    return welcome.attempt, welcome.last_seq + 1


def _acked(answers: Iterator[m.Message], committed: int) -> int:
    return max(committed, next(message.seq for message in answers if isinstance(message, m.Ack)))


def _listen(wire: Wire) -> Iterator[m.Message]:
    """Messages of the daemon as they come, without end; a question whether we live is answered."""
    silent = 0
    while silent < PATIENCE:
        frames = wire.receive()
        silent = 0 if frames else silent + 1
        for message in map(decode, frames):
            if isinstance(message, m.Ping):
                wire.send(encode(m.Pong(message.t_ns)))
            elif isinstance(message, m.Refuse):
                slug = message.code if message.code in CODES else "internal"
                raise GradwatchError(slug, where="import", got=message.detail)
            elif isinstance(message, m.Rehello):
                raise _gone("a restart of the daemon")
            else:
                yield message
    raise _gone("none")


def _gone(got: str) -> GradwatchError:
    next_step = "Import again: what was stored counts, and only the rest is sent."
    return GradwatchError("daemon-unreachable", where="import", expected="an answer", got=got, next_step=next_step)
