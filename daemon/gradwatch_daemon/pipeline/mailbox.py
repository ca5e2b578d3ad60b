"""The way from HTTP to the pipeline thread: requests in, futures of committed records out."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.records.attention import Acknowledge, CreateSilence, EndSilence
from gradwatch_daemon.records.notices import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradwatch_daemon.pipeline.attending import Attending
    from gradwatch_daemon.pipeline.control import Control
    from gradwatch_daemon.pipeline.work import Now, Work
    from gradwatch_daemon.records.attention import AttentionRequest
    from gradwatch_daemon.records.commands import ControlRequest
    from gradwatch_daemon.records.notices import Delivery

REQUESTS_MAX = 1024
"""Requests waiting for the pipeline thread: beyond it HTTP answers 503 at once instead of later. What became of a delivery is
always taken: each channel has one under way, and nobody would say it again."""


class Mailbox:
    """`submit` belongs to any thread, the rest to the pipeline's. They meet in a deque, whose ends are atomic."""

    def __init__(
        self, attending: Attending, control: Control, settle: Callable[[Outcome, Work], Delivery], wake: Callable[[], None]
    ) -> None:
        self._attending, self._control, self._settle = attending, control, settle
        self._wake = wake
        self._waiting: deque[tuple[ControlRequest | AttentionRequest | Outcome, Future[Any]]] = deque()
        self._closed = False

    def submit(self, request: ControlRequest | AttentionRequest | Outcome) -> Future[Any]:
        """Hand in a request; its future holds the committed record, or a GradwatchError."""
        answer: Future[Any] = Future()
        full = len(self._waiting) >= REQUESTS_MAX and not isinstance(request, Outcome)
        if self._closed or full:
            answer.set_exception(GradwatchError("overloaded"))
            return answer
        self._waiting.append((request, answer))
        self._wake()
        return answer

    def close(self) -> None:
        """Refuse what waits and what comes."""
        self._closed = True
        while self._waiting:
            self._waiting.popleft()[1].set_exception(
                GradwatchError("overloaded", next_step="The daemon is stopping; ask again when it is back.")
            )

    def take(self, work: Work, now: Now) -> None:
        """Grant or refuse everything that waits. Granted requests are answered after the commit."""
        while self._waiting:
            request, answer = self._waiting.popleft()
            try:
                record = self._grant(request, work, now)
            except GradwatchError as error:
                answer.set_exception(error)
                continue
            work.answers.append((answer, record))

    def _grant(self, request: ControlRequest | AttentionRequest | Outcome, work: Work, now: Now) -> object:
        if isinstance(request, (Acknowledge, CreateSilence, EndSilence)):
            return self._attending.grant(request, work, now)
        if isinstance(request, Outcome):
            return self._settle(request, work)
        return self._control.grant(request, work, now)
