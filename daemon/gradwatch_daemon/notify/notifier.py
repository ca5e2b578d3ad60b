"""The threads that deliver: one for each channel, so that one that hangs keeps neither another nor the pipeline waiting."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.notify.channels import send, send_alerts
from gradwatch_daemon.notify.payload import test_body
from gradwatch_daemon.notify.post import Answer
from gradwatch_daemon.records.notices import ChannelView, Delivery, Outcome, Tried

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gradwatch_daemon.notify.target import Target

LOG = logging.getLogger("gradwatch.notify")

BACKOFF_S = (1.0, 2.0, 5.0, 15.0, 60.0, 300.0)
"""Pauses after failures, the last one again and again."""

GIVE_UP_S = 86_400.0
"""After a day nobody wants to be called about it; the log says that it failed."""

RESEND_S = 60.0
"""An Alertmanager is told again of what fires: it forgets what it does not hear of, as its resolve_timeout has it."""

ALERTS_MAX = 1024
"""Alerts that are sent again and again, the oldest forgotten first."""


class Channel:
    """One target and its thread. `report` is called on that thread and must not block."""

    def __init__(
        self,
        target: Target,
        report: Callable[[Outcome], object],
        *,
        backoff_s: Sequence[float] = BACKOFF_S,
        resend_s: float = RESEND_S,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        self.target = target
        self._report = report
        self._backoff_s, self._resend_s, self._give_up_s = backoff_s, resend_s, give_up_s
        self._wake = threading.Condition()
        self._waiting: deque[Delivery] = deque()
        self._firing: dict[str, dict[str, Any]] = {}
        self._resent_s = time.monotonic()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"gradwatch-notify-{target.name}", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def put(self, delivery: Delivery) -> None:
        """Queue a pending delivery; take note of any other that changes what fires here. Any thread may."""
        with self._wake:
            if delivery.state == "pending":
                self._waiting.append(delivery)
            else:
                self._note(delivery)
            self._wake.notify()

    def drop(self, id_: str) -> None:
        """Forget a delivery that was given up elsewhere. Any thread may."""
        with self._wake:
            self._waiting = deque(delivery for delivery in self._waiting if delivery.id != id_)

    def stop(self, timeout_s: float) -> None:
        """End the thread, or leave it behind in a receiver that hangs: what is pending is delivered by the next daemon."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        attempts, failed_s = 0, 0.0
        while True:
            with self._wake:
                pause_s = self._pause_s(attempts, failed_s)
                if not self._stopping and pause_s > 0:
                    self._wake.wait(pause_s)
                if self._stopping:
                    return
                now_s = time.monotonic()
                due = self._waiting and (not attempts or now_s - failed_s >= self._backoff(attempts))
                delivery = self._waiting[0] if due else None
                again = list(self._firing.values()) if self._firing and now_s - self._resent_s >= self._resend_s else []
            if again:
                self._resent_s = time.monotonic()
                self._try(partial(send_alerts, self.target, again, time.time()))
            if delivery is not None:
                attempts += 1
                attempts = self._deliver(delivery, attempts)
                failed_s = time.monotonic()

    def _deliver(self, delivery: Delivery, attempts: int) -> int:
        """Try once and report; returns the failures in a row, 0 when this delivery is over."""
        answer = self._try(partial(send, self.target, delivery.id, json.loads(delivery.body), time.time()))
        old = time.time() - delivery.made_ns / 1e9 > self._give_up_s
        state = "delivered" if answer.ok else "pending" if answer.again and not old else "failed"
        if state != "pending":
            self.drop(delivery.id)
        if state == "delivered":
            with self._wake:
                self._note(delivery)
        if state == "failed":
            LOG.error("%s was not told of %s %s: %s", self.target.name, delivery.event, delivery.subject, answer.said)
        self._report(Outcome(delivery.id, state, attempts, answer.said, time.time_ns()))
        return attempts if state == "pending" else 0

    def _note(self, delivery: Delivery) -> None:
        """Keep what an Alertmanager has to be told again: delivered, and neither resolved nor silenced since."""
        if self.target.kind == "alertmanager" and delivery.state in {"pending", "delivered"} and delivery.event == "firing":
            self._firing[delivery.subject] = json.loads(delivery.body)
            while len(self._firing) > ALERTS_MAX:
                self._firing.pop(next(iter(self._firing)))
        else:
            self._firing.pop(delivery.subject, None)

    def _try(self, sending: Callable[[], Answer]) -> Answer:
        try:
            return sending()
        except Exception as error:
            LOG.exception("%s: sending failed", self.target.name)
            return Answer(False, True, f"{type(error).__name__} in gradwatch or a plugin; see the daemon's log")

    def _backoff(self, attempts: int) -> float:
        return self._backoff_s[min(attempts, len(self._backoff_s)) - 1]

    def _pause_s(self, attempts: int, failed_s: float) -> float:
        """Until there is something to do. Called with the lock."""
        now_s = time.monotonic()
        pauses = [3600.0]
        if self._waiting:
            pauses.append(failed_s + self._backoff(attempts) - now_s if attempts else 0.0)
        if self._firing:
            pauses.append(self._resent_s + self._resend_s - now_s)
        return max(0.0, min(pauses))


class Notifier:
    """All channels. `report` takes what became of a delivery, on the thread of its channel."""

    def __init__(self, targets: Sequence[Target], report: Callable[[Outcome], object], **pace: Any) -> None:
        self._channels = {target.name: Channel(target, report, **pace) for target in targets}
        self.url = ""

    @property
    def channels(self) -> tuple[ChannelView, ...]:
        """As they are configured."""
        targets = [channel.target for channel in self._channels.values()]
        return tuple(ChannelView(t.name, t.kind, t.address, t.severity.value) for t in targets)

    def start(self) -> None:
        """Begin to deliver."""
        for channel in self._channels.values():
            channel.start()

    def put(self, delivery: Delivery) -> None:
        """Hand over a delivery that is committed; one of a channel that is no longer configured waits in the store."""
        if delivery.channel in self._channels:
            self._channels[delivery.channel].put(delivery)

    def drop(self, delivery: Delivery) -> None:
        """Forget one that was given up."""
        if delivery.channel in self._channels:
            self._channels[delivery.channel].drop(delivery.id)

    def test(self, name: str | None) -> list[Tried]:
        """Send a test now, past every queue, and say what came back. Blocks for as long as the channels take.

        Raises:
            GradwatchError: `channel-not-found`.
        """
        if name is not None and name not in self._channels:
            known = ", ".join(self._channels) or "no channel at all"
            raise GradwatchError("channel-not-found", where="channel", expected=f"one of {known}", got=repr(name[:80]))
        chosen = [channel for key, channel in self._channels.items() if name in {None, key}]
        return [self._test(channel.target) for channel in chosen]

    def _test(self, target: Target) -> Tried:
        begin = time.monotonic()
        try:
            answer = send(target, f"test-{time.time_ns():x}", test_body(self.url), time.time())
        except Exception as error:
            LOG.exception("%s: the test failed", target.name)
            answer = Answer(False, False, f"{type(error).__name__}; see the daemon's log")
        return Tried(target.name, target.kind, answer.ok, answer.said, (time.monotonic() - begin) * 1000)

    def stop(self, timeout_s: float = 1.0) -> None:
        """End all threads; those that hang are left behind."""
        for channel in self._channels.values():
            channel.stop(timeout_s)
