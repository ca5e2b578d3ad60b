"""Channels, the log of deliveries, and the test notification, over HTTP and on the command line."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api import notify_models as models
from gradwatch_daemon.records.notices import ChannelView, Delivery, Tried
from harness.fake_api import make_daemon, problem_of
from harness.fake_records import T0_NS, T0_TEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.command_line import CommandLine
    from harness.daemon_stub import DaemonStub

LOG = [
    Delivery("02", "ops", "a1", "resolved", "warning", "ant-ppo", T0_NS, '{"kind":"kl_spike"}', "failed", 3, T0_NS, "404 gone"),
    Delivery("01", "old", "a1", "firing", "warning", "ant-ppo", T0_NS - 1, '{"kind":"kl_spike"}', "muted", 0, T0_NS, "x", "s1"),
]
TRIED = {"channel": "ops", "kind": "webhook", "ok": False, "answer": "503 no", "took_ms": 12.0}


class FakeChannels:
    """One channel that does not take the test."""

    channels: Sequence[ChannelView] = (ChannelView("ops", "webhook", "https://hooks.lab", "warning"),)

    def test(self, name: str | None) -> Sequence[Tried]:
        """As asked."""
        if name not in {None, "ops"}:
            raise GradwatchError("channel-not-found", where="channel", got=repr(name))
        return [Tried("ops", "webhook", False, "503 no", 12.0)]


async def test_unknown_channel_and_field_are_refused() -> None:
    """404 and 422, with the nearest field."""
    daemon = make_daemon(notifier=FakeChannels())
    async with daemon.client() as client:
        missing = await client.post("/api/v1/notify/test", json={"channel": "nope"})
        wrong = await client.post("/api/v1/notify/test", json={"chanel": "ops"})
    assert problem_of(missing)["code"] == "channel-not-found"
    assert problem_of(wrong)["did_you_mean"] == "channel"


class HangingChannels(FakeChannels):
    """A receiver that takes a test and says nothing until it is let go."""

    def __init__(self) -> None:
        self.tests = 0
        self.asked, self.let_go = threading.Event(), threading.Event()

    def test(self, name: str | None) -> Sequence[Tried]:
        """Hang."""
        self.tests += 1
        self.asked.set()
        self.let_go.wait(60)
        return super().test(name)


async def test_second_test_beside_one_that_hangs_is_refused_and_reading_goes_on() -> None:
    """Each holds a thread, and whoever reads the store waits for one too."""
    channels = HangingChannels()
    daemon = make_daemon(notifier=channels)
    async with daemon.client() as client:
        first = asyncio.create_task(client.post("/api/v1/notify/test", json={}))
        while not channels.asked.is_set():
            await asyncio.sleep(0)
        more = [asyncio.create_task(client.post("/api/v1/notify/test", json={})) for _ in range(45)]
        refused = await asyncio.wait_for(asyncio.gather(*more), 30)
        read = await asyncio.wait_for(client.get("/api/v1/deliveries"), 30)
        channels.let_go.set()
        done = await first
        again = await client.post("/api/v1/notify/test", json={})

    assert {problem_of(answer)["code"] for answer in refused} == {"overloaded"}
    assert (read.status_code, done.status_code, again.status_code, channels.tests) == (200, 200, 200, 2)


async def test_channels_are_listed_with_how_their_deliveries_stand() -> None:
    """Neither secret nor path; without configuration the list is empty."""
    daemon = make_daemon(notifier=FakeChannels())
    daemon.reader.log = LOG
    answer = (await daemon.get("/notify")).json()
    models.ChannelList.model_validate(answer)
    counts = {"pending": 0, "delivered": 0, "failed": 1, "dropped": 0, "muted": 0}
    assert answer["items"] == [
        {"name": "ops", "kind": "webhook", "address": "https://hooks.lab", "severity": "warning", "deliveries": counts}
    ]
    assert (await make_daemon().get("/notify")).json()["items"] == []


async def test_metrics_count_deliveries_by_channel_and_state() -> None:
    """A rule can see a channel that fails."""
    daemon = make_daemon()
    daemon.reader.log = LOG
    async with daemon.client() as client:
        text = (await client.get("/metrics")).text
    assert 'gradwatch_deliveries{channel="ops",state="failed"} 1' in text


async def test_log_round_trips_every_field_and_is_filtered() -> None:
    """Also of a channel that is no longer configured."""
    daemon = make_daemon()
    daemon.reader.log = LOG
    listed = (await daemon.get("/deliveries")).json()["items"]
    assert [item["id"] for item in listed] == ["02", "01"]
    assert listed[0] == {
        "id": "02",
        "channel": "ops",
        "subject": "a1",
        "event": "resolved",
        "severity": "warning",
        "run": "ant-ppo",
        "state": "failed",
        "attempts": 3,
        "made_at": T0_TEXT,
        "changed_at": T0_TEXT,
        "answer": "404 gone",
        "silenced": None,
        "body": {"kind": "kl_spike"},
    }
    assert [item["silenced"] for item in (await daemon.get("/deliveries?channel=old&state=muted")).json()["items"]] == ["s1"]
    assert problem_of(await daemon.get("/deliveries?state=mutet"))["did_you_mean"] == "muted"


@pytest.mark.parametrize(
    ("items", "code", "said"),
    [
        ([], 5, "No channel is configured"),
        ([TRIED], 5, "ops (webhook) did not take it after 12 ms: 503 no"),
        ([{**TRIED, "ok": True, "answer": "200 OK"}], 0, "ops (webhook) took it after 12 ms: 200 OK"),
    ],
)
def test_test_verb_says_what_came_back_and_its_exit_code_is_that(
    stub: DaemonStub, gradwatch: CommandLine, items: list[dict[str, Any]], code: int, said: str
) -> None:
    """5 where a channel did not take it, or there is none to take it."""
    stub.answer("POST", "/api/v1/notify/test", {"items": items, "next": None})
    ended = gradwatch("notify", "test", "ops")
    assert (ended.code, said in ended.out + ended.err) == (code, True)
    assert stub.requests[0].body == {"channel": "ops"}


def test_list_and_log_verbs_show_tables(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """One row each; a name has no place in the list."""
    counts = {"pending": 0, "delivered": 2, "failed": 1, "dropped": 0, "muted": 0}
    item = {"name": "ops", "kind": "webhook", "address": "https://hooks.lab", "severity": "warning", "deliveries": counts}
    stub.answer("GET", "/api/v1/notify", {"items": [item], "next": None})
    assert gradwatch("notify", "list").out.splitlines()[1].split() == [
        "ops",
        "webhook",
        "https://hooks.lab",
        "warning",
        *"20100",
    ]
    made = {"made_at": T0_TEXT, "channel": "ops", "state": "failed", "attempts": 3, "event": "firing", "run": "ant-ppo"}
    stub.answer("GET", "/api/v1/deliveries", {"items": [{**made, "answer": "404", "body": {"kind": "kl_spike"}}], "next": None})
    assert "kl_spike in ant-ppo" in gradwatch("notify", "log", "ops").out
    assert stub.requests[-1].query == {"channel": "ops", "limit": "50"}
    assert gradwatch("notify", "list", "ops").code == 2
