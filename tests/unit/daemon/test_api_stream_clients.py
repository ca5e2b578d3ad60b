"""GET stream to clients that are slow, stuck or gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gradwatch_daemon.api import hub as hub_module
from gradwatch_daemon.api import stream as stream_module
from gradwatch_daemon.api.hub import QUEUE_DROPPABLE, QUEUE_MAX
from harness.fake_api import make_daemon
from harness.fake_records import make_anomaly, make_block, make_escalation, make_run, make_view
from harness.stream_client import StreamClient

if TYPE_CHECKING:
    from harness.fake_api import FakeDaemon


@pytest.fixture
def unrested(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rest between rounds: whatever is published goes out at once."""
    for name in ("REST_S", "REST_S_A_CLIENT", "REST_S_AN_EVENT"):
        monkeypatch.setattr(hub_module, name, 0.0)


async def _subscribed(daemon: FakeDaemon, count: int = 1) -> None:
    """Until `count` clients are there."""
    deadline = asyncio.get_running_loop().time() + 5
    while len(daemon.hub.clients) != count:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0)


@pytest.mark.usefixtures("unrested")
async def test_stream_of_a_slow_client_cuts_rows_with_a_gap_and_keeps_evidence() -> None:
    """The gap stands where the rows are missing, before anything later; no anomaly is lost."""
    daemon = make_daemon()
    async with StreamClient(daemon) as client:
        await client.next()
        client.reading.clear()
        # One event is with the blocked writer or still queued; fill the queue for certain.
        for i in range(QUEUE_DROPPABLE):
            daemon.publish(make_block(first=i))
        daemon.publish(*[make_block(f"run-{i}") for i in range(10)])
        daemon.publish(make_view(), make_anomaly(), make_escalation())
        client.reading.set()
        names: list[str] = []
        cut = 0
        while not names or names[-1] != "escalation":
            event = await client.next()
            names.append(event.name)
            cut += event.data["events"] if event.name == "gap" else 0
        daemon.publish(make_block(first=99))
        after = await client.next()

    assert names == ["rows"] * QUEUE_DROPPABLE + ["gap", "anomaly", "escalation"]
    assert cut == 11
    assert (after.name, after.data["update_first"]) == ("rows", 99)


async def test_stream_of_a_client_that_keeps_up_takes_any_round_whole() -> None:
    """Many runs at once are no reason to cut: only what was left from before counts as being behind."""
    daemon = make_daemon()
    async with StreamClient(daemon) as client:
        await client.next()
        daemon.publish(*[make_block(f"run-{i}") for i in range(QUEUE_MAX + 1)])
        names = {(await client.next()).name for _ in range(QUEUE_MAX + 1)}

    assert names == {"rows"}


@pytest.mark.usefixtures("unrested")
async def test_stream_of_a_run_told_anew_keeps_only_the_newest() -> None:
    """For a client that is behind and for one that comes back; what was replaced holds nothing."""
    daemon = make_daemon()
    async with StreamClient(daemon) as client:
        await client.next()
        for rows in (1, 2, 3):
            daemon.publish(make_view(rows=rows, lost=0))
        daemon.publish(make_view(make_run("other")))
        slow = [await client.next() for _ in range(2)]
    async with StreamClient(daemon, last_event_id="cafe-0") as client:
        back = [await client.next() for _ in range(3)]

    assert [(event.id, event.data["run"]) for event in slow] == [("cafe-3", "ant-ppo"), ("cafe-4", "other")]
    assert slow[0].data["coverage"]["received"] == 3
    assert [event.id for event in back] == ["cafe-0", "cafe-3", "cafe-4"]
    assert back[0].data["replayed"] == 2


async def test_stream_of_a_stuck_client_ends_rather_than_drop_an_anomaly() -> None:
    """It comes back with its last id and finds every anomaly in the ring."""
    daemon = make_daemon()
    async with StreamClient(daemon, "topics=anomaly") as client:
        await client.next()
        client.reading.clear()
        for i in range(QUEUE_MAX + 2):
            daemon.publish(make_anomaly(id=f"a{i}"))
        client.reading.set()
        rest = [event async for event in client.rest()]
    async with StreamClient(daemon, "topics=anomaly", "cafe-1") as client:
        hello = await client.next()

    assert [(event.name, event.data) for event in rest] == [("bye", {"reason": "too slow"})]
    assert hello.data["replayed"] == QUEUE_MAX + 1


async def test_stream_of_a_client_that_never_reads_does_not_delay_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its write is blocked for ever; the daemon gives its last words a bound."""
    monkeypatch.setattr(stream_module, "BYE_S", 0.05)
    daemon = make_daemon()
    client = StreamClient(daemon)
    await client.__aenter__()
    await client.next()
    client.reading.clear()
    daemon.publish(make_anomaly())

    daemon.hub.close()
    assert client.task is not None
    await asyncio.wait_for(client.task, 5)

    assert not client.complete
    assert daemon.hub.clients == frozenset()


async def test_stream_left_by_its_client_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is queued for somebody who is gone, and no last words are tried on it."""
    monkeypatch.setattr(stream_module, "BYE_S", 60.0)
    daemon = make_daemon()
    async with StreamClient(daemon) as client:
        await client.next()
        await _subscribed(daemon, 1)
        client.leave()
        await _subscribed(daemon, 0)
