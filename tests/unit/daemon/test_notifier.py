"""Delivery to real local servers that fail, hang, drip, send elsewhere, and recover; and what each kind of channel sends."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.control import Severity
from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.notify import channels, payload
from gradwatch_daemon.notify.channels import send_apprise
from gradwatch_daemon.notify.notifier import Notifier
from gradwatch_daemon.notify.payload import anomaly_body, write
from gradwatch_daemon.notify.post import post
from gradwatch_daemon.notify.target import Target
from gradwatch_daemon.records.notices import Delivery, Outcome
from harness.fake_records import make_anomaly
from harness.receiver import DRIP, HANG, Receiver
from harness.router import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

SECRET = "0123456789abcdef"
BODY = anomaly_body(make_anomaly(), "firing", "http://here:9470")
QUICK: dict[str, Any] = {"backoff_s": (0.01,), "resend_s": 3600.0}


def delivery(id_: str = "d1", event: str = "firing", **changes: Any) -> Delivery:
    """One that was made now."""
    now_ns = time.time_ns()
    body = write({**BODY, "event": event})
    return replace(Delivery(id_, "ops", "a1", event, "critical", "ant-ppo", now_ns, body, "pending", 0, now_ns), **changes)


class Delivering:
    """A notifier of one channel, and what it reports."""

    def __init__(self, kind: str, url: str, deliveries: Sequence[Delivery], **pace: Any) -> None:
        self.outcomes: list[Outcome] = []
        self.notifier = Notifier([Target(kind, url, "ops", SECRET)], self.outcomes.append, **{**QUICK, **pace})
        for one in deliveries:
            self.notifier.put(one)
        self.notifier.start()

    def __enter__(self) -> Delivering:
        return self

    def __exit__(self, *_: object) -> None:
        self.notifier.stop(5.0)

    def states(self) -> list[tuple[str, str, int]]:
        """Id, state and attempts of everything reported."""
        return [(outcome.id, outcome.state, outcome.attempts) for outcome in self.outcomes]

    def until(self, count: int) -> None:
        """Until so many outcomes were reported."""
        eventually(lambda: len(self.outcomes) >= count, f"{count} outcomes, got {self.states()}")


def test_receiver_that_fails_is_tried_again_in_order_until_it_takes_it() -> None:
    """500 twice, then 200; the next one waits for the first; a repeat has the same id, so the receiver can tell."""
    with Receiver([500, 503]) as receiver, Delivering("webhook", receiver.url, [delivery("d1"), delivery("d2")]) as sending:
        sending.until(4)
    assert sending.states() == [("d1", "pending", 1), ("d1", "pending", 2), ("d1", "delivered", 3), ("d2", "delivered", 1)]
    assert [request.headers["webhook-id"] for request in receiver.received] == ["d1", "d1", "d1", "d2"]
    assert sending.outcomes[0].answer.startswith("500 ")


@pytest.mark.parametrize(
    ("status", "state"), [(400, "failed"), (404, "failed"), (302, "failed"), (429, "pending"), (408, "pending")]
)
def test_receiver_that_says_we_are_wrong_is_not_asked_again(status: int, state: str) -> None:
    """A redirect is one: the signature would go where the answer points."""
    with Receiver([status]) as receiver, Delivering("webhook", receiver.url, [delivery()]) as sending:
        sending.until(1)
        assert sending.states()[0] == ("d1", state, 1)
    assert all(request.path == "/" for request in receiver.received)


def test_nobody_there_is_tried_again_and_given_up_after_its_time() -> None:
    """Refused connections; the log says what was wrong."""
    with Receiver() as gone:
        url = gone.url
    old = delivery(made_ns=time.time_ns() - 10**10)
    with Delivering("webhook", url, [old], give_up_s=5.0) as sending:
        sending.until(1)
    assert sending.states() == [("d1", "failed", 1)]
    assert "refused" in sending.outcomes[0].answer.lower()


def test_channel_that_hangs_keeps_no_other_waiting_and_lets_the_daemon_stop() -> None:
    """One thread each; stopping leaves the hanging one behind."""
    outcomes: list[Outcome] = []
    with Receiver([HANG]) as stuck, Receiver() as well:
        targets = [Target("webhook", stuck.url, "stuck", SECRET), Target("webhook", well.url, "well", SECRET)]
        notifier = Notifier(targets, outcomes.append, **QUICK)
        notifier.start()
        notifier.put(delivery("d1", channel="stuck"))
        eventually(lambda: bool(stuck.received), "the first to hang")
        notifier.put(delivery("d2", channel="well"))
        eventually(lambda: bool(outcomes), "the second")
        notifier.stop(0.01)
    assert [(outcome.id, outcome.state) for outcome in outcomes[:1]] == [("d2", "delivered")]


def test_answer_that_drips_is_cut_off_at_the_deadline() -> None:
    """Every step is in time, the whole never ends."""
    with Receiver([DRIP]) as receiver:
        answer = post(receiver.url, b"{}", {}, deadline_s=0.2)
    assert (answer.ok, answer.again) == (False, True)


def test_answer_that_quotes_the_address_is_kept_without_it() -> None:
    """What a receiver says is shown to whoever may read; the path of a webhook often holds its token."""
    with Receiver([404]) as receiver:
        answer = post(f"{receiver.url}/services/T0K3N?key=abc", b"{}", {})
    assert receiver.received[0].path == "/services/T0K3N?key=abc"
    assert answer.said == "404 Not Found cannot POST /…"


def test_dropped_delivery_is_not_sent() -> None:
    """Too many were pending: the oldest goes, also from the queue of its channel."""
    with Receiver() as receiver:
        sending = Delivering("webhook", receiver.url, [])
        for one in ("d1", "d2"):
            sending.notifier._channels["ops"]._waiting.append(delivery(one))
        sending.notifier.drop(delivery("d1"))
        with sending:
            sending.notifier.put(delivery("d3"))
            sending.until(2)
    assert [id_ for id_, _, _ in sending.states()] == ["d2", "d3"]


def test_webhook_is_signed_so_that_a_receiver_can_verify_it() -> None:
    """Standard Webhooks: HMAC-SHA256 over id.timestamp.body; `whsec_` is base64 of the key. The document is whole."""
    with Receiver() as receiver, Delivering("webhook", f"{receiver.url}/hook?x=1", [delivery()]) as sending:
        sending.until(1)
    request = receiver.received[0]
    stamp = request.headers["webhook-timestamp"]
    mac = hmac.new(SECRET.encode(), f"d1.{stamp}.".encode() + request.body, hashlib.sha256).digest()
    assert request.headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
    assert abs(time.time() - int(stamp)) < 60
    assert request.path == "/hook?x=1"
    assert request.document == {**BODY, "value": "NaN", "try": ["Lower the learning rate."]}
    wrapped = "whsec_" + base64.b64encode(SECRET.encode()).decode()
    assert channels.sign(wrapped, "d1", int(stamp), request.body) == request.headers["webhook-signature"]


def test_alertmanager_is_told_again_while_it_fires_and_of_the_end() -> None:
    """Its second API; each post moves the end, a resolved one ends now and is not sent again, nor is a silenced one."""
    with (
        Receiver() as receiver,
        Delivering("alertmanager", receiver.url, [delivery(), delivery("d2", subject="a2")], resend_s=0.1) as sending,
    ):
        eventually(lambda: len(receiver.received) >= 4, "it to be told again")
        sending.notifier.put(delivery("d3", state="muted", subject="a2"))
        sending.notifier.put(delivery("d4", event="resolved"))
        sending.until(3)
        told = len(receiver.received)
        time.sleep(0.3)
        assert len(receiver.received) == told
    alert = receiver.received[0].document[0]
    assert receiver.received[0].path == "/api/v2/alerts"
    assert alert["labels"] == {
        "alertname": "Gradwatch_nonfinite",
        **{"run": "ant-ppo", "kind": "nonfinite", "subject": "actor", "id": "a1", "severity": "critical"},
    }
    assert alert["annotations"]["description"] == "Gradient norm is NaN at update 119."
    assert len(max((request.document for request in receiver.received), key=len)) == 2
    ended = receiver.received[-1].document[0]
    assert ended["labels"] == alert["labels"]
    assert ended["endsAt"] < alert["endsAt"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the library imports
def test_apprise_posts_where_its_address_says() -> None:
    """Through the library itself, to a real server; an address it does not know is no use trying again."""
    with Receiver() as receiver:
        answer = send_apprise(Target("apprise", receiver.url.replace("http://", "json://"), "a"), BODY)
    assert answer.ok
    assert receiver.received[0].document["title"] == "gradwatch: nonfinite in ant-ppo (critical)"
    assert "Try: Lower the learning rate." in receiver.received[0].document["message"]
    assert not send_apprise(Target("apprise", "nonsense://x", "a"), BODY).again


def test_test_notification_says_what_came_back_of_each_and_passes_the_queue() -> None:
    """Also where sending itself has a bug; an unknown name is refused with the known ones."""
    with Receiver([503]) as bad, Receiver() as good:
        notifier = Notifier([Target("webhook", bad.url, "bad", SECRET), Target("webhook", good.url, "good", SECRET)], print)
        notifier.url = "http://here:9470"
        tried = notifier.test(None)
        assert [(one.channel, one.ok, one.answer[:3]) for one in tried] == [("bad", False, "503"), ("good", True, "200")]
        assert good.received[0].document == payload.test_body("http://here:9470")
        assert [one.channel for one in notifier.test("good")] == ["good"]
    with pytest.raises(GradwatchError, match="one of bad, good"):
        notifier.test("ops")


def test_bodies_are_json_without_numbers_json_does_not_have() -> None:
    """NaN and infinities by name."""
    body = anomaly_body(make_anomaly(value=float("inf"), limit=float("-inf")), "firing", "u")
    assert json.loads(write(body))["value"] == "Infinity"
    assert json.loads(write(body))["limit"] == "-Infinity"
    assert body["severity"] == Severity.CRITICAL.value
