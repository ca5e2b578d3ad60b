"""GET stream: hello, replay, gap, heartbeat, bye."""

from __future__ import annotations

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api import hub as hub_module
from gradwatch_daemon.api import models
from gradwatch_daemon.api import stream as stream_module
from gradwatch_daemon.api.access import NEVER_NS, OWNER
from gradwatch_daemon.api.hub import CLIENTS_MAX, Holder, Hub
from gradwatch_daemon.records import Published, SignalBlock
from harness.fake_api import make_daemon, problem_of
from harness.fake_records import make_anomaly, make_block, make_escalation, make_run, make_view
from harness.stream_client import StreamClient


@pytest.fixture
def unrested(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rest between rounds: whatever is published goes out at once."""
    for name in ("REST_S", "REST_S_A_CLIENT", "REST_S_AN_EVENT"):
        monkeypatch.setattr(hub_module, name, 0.0)


@pytest.fixture
def resting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rest that no test sits out."""
    monkeypatch.setattr(hub_module, "REST_S", 3600.0)
    monkeypatch.setattr(hub_module, "REST_S_MAX", 3600.0)


@pytest.mark.parametrize(
    ("query", "pointer", "nearest"),
    [
        ("topics=anomalys", "query/topics", "anomaly"),
        ("topics=", "query/topics", None),
        ("topics=rows,,run", "query/topics", None),
        ("runs=Not%20A%20Run", "query/runs", None),
        ("topic=rows", "query/topic", "topics"),
    ],
)
async def test_stream_of_unknown_topics_is_refused(query: str, pointer: str, nearest: str | None) -> None:
    """A stream that would stay silent for ever is refused at once."""
    found = problem_of(await make_daemon().get(f"/stream?{query}"))

    assert (found["code"], found["did_you_mean"]) == ("invalid-parameter", nearest)
    assert [error["pointer"] for error in found["errors"]] == [pointer]


async def test_stream_beyond_the_limit_is_overloaded() -> None:
    """The one that came too late, not the ones that are served."""
    daemon = make_daemon()
    clients = [daemon.hub.subscribe({"rows"}, holder=Holder(OWNER, lambda: NEVER_NS)) for _ in range(CLIENTS_MAX)]

    answer = await daemon.get("/stream")
    daemon.hub.unsubscribe(clients[0])
    daemon.hub.close()

    assert (answer.status_code, problem_of(answer)["code"]) == (503, "overloaded")


async def test_stream_after_close_is_not_ready() -> None:
    """A daemon that shuts down takes no new streams."""
    daemon = make_daemon()
    daemon.hub.close()

    assert problem_of(await daemon.get("/stream"))["code"] == "not-ready"


async def test_stream_begins_with_hello_and_ends_with_bye() -> None:
    """Headers that keep proxies from holding it back; shutdown ends it at once, in order."""
    daemon = make_daemon()
    daemon.publish(make_anomaly())

    async with StreamClient(daemon, "topics=anomaly,rows&runs=ant-ppo,b") as client:
        hello = await client.next()
        daemon.hub.close()
        rest = [event async for event in client.rest()]

    assert client.headers["content-type"].startswith("text/event-stream")
    assert client.headers["cache-control"] == "no-store"
    assert client.headers["x-accel-buffering"] == "no"
    assert "content-length" not in client.headers
    assert (hello.name, hello.id) == ("hello", "cafe-1")
    assert hello.data == {
        "version": "1.2.3",
        "epoch": "cafe",
        "topics": ["anomaly", "rows"],
        "runs": ["ant-ppo", "b"],
        "replayed": 0,
        "heartbeat_s": 15.0,
    }
    assert [(event.name, event.data) for event in rest] == [("bye", {"reason": "shutdown"})]
    assert client.complete
    assert daemon.hub.clients == frozenset()


async def test_stream_sends_each_topic_as_get_answers_it() -> None:
    """One document per resource, whichever way it is read; ids grow by one."""
    daemon = make_daemon()
    daemon.reader.found, daemon.reader.raised = [make_anomaly()], [make_escalation()]

    async with StreamClient(daemon) as client:
        await client.next()
        daemon.publish(make_block(), make_anomaly(), make_escalation(), make_view())
        events = [await client.next() for _ in range(4)]

    assert [(event.name, event.id) for event in events] == [
        ("rows", "cafe-1"),
        ("run", "cafe-2"),
        ("anomaly", "cafe-3"),
        ("escalation", "cafe-4"),
    ]
    rows = {"run": "ant-ppo", "attempt": 2, "rank": 1, "update_first": 10, "update_last": 12, "n": 3}
    assert events[0].data == {**rows, "coverage": events[1].data["coverage"]}
    assert events[0].data["coverage"] == events[2].data["coverage"]
    got = (await daemon.get("/anomalies/a1")).json()
    assert events[2].data == {**got, "evidence": events[2].data["evidence"]}
    assert got["evidence"].items() >= events[2].data["evidence"].items()
    assert events[3].data == (await daemon.get("/runs/ant-ppo/escalations/e1")).json()
    assert events[1].data == (await daemon.get("/runs")).json()["items"][0]
    models.RunSummary.model_validate(events[1].data)


@pytest.mark.usefixtures("resting")
async def test_stream_during_a_rest_sends_evidence_and_holds_rows() -> None:
    """The first rows go out; an anomaly does not wait for those that follow."""
    daemon = make_daemon()

    async with StreamClient(daemon) as client:
        await client.next()
        daemon.publish(make_block(first=10))
        daemon.publish(make_block(first=13), make_view())
        daemon.publish(make_anomaly())
        events = [await client.next() for _ in range(2)]
        daemon.hub.close()
        rest = [event.name async for event in client.rest()]

    assert [(event.name, event.id) for event in events] == [("rows", "cafe-1"), ("anomaly", "cafe-2")]
    assert rest == ["bye"]


async def test_stream_after_a_rest_sends_what_came_meanwhile_as_one() -> None:
    """Rows of a stream by their extent, also after a step back, and the newest word of a run; other streams by themselves."""
    daemon = make_daemon()

    async with StreamClient(daemon) as client:
        await client.next()
        daemon.publish(make_block(first=10))
        daemon.publish(make_block(first=13), make_view(rows=1))
        daemon.publish(make_block(first=12, n=2), make_block("b"), make_view(rows=2, lost=2))
        events = [await client.next() for _ in range(4)]

    assert [(event.name, event.id) for event in events] == [
        ("rows", "cafe-1"),
        ("rows", "cafe-2"),
        ("run", "cafe-3"),
        ("rows", "cafe-4"),
    ]
    assert [event.data["n"] for event in (events[0], events[1], events[3])] == [3, 5, 3]
    assert (events[1].data["update_first"], events[1].data["update_last"]) == (12, 15)
    assert events[2].data["coverage"] == {"received": 2, "lost": 2, "share": 0.5, "thinned": 0}


async def test_stream_resumed_between_rounds_misses_nothing() -> None:
    """What waits has no number yet: it comes to who returns, as to who stayed."""
    daemon = make_daemon()
    daemon.publish(make_block(first=10))
    daemon.publish(make_block(first=13))

    async with StreamClient(daemon, last_event_id="cafe-1") as client:
        hello, rows = await client.next(), await client.next()

    assert (hello.id, hello.data["replayed"]) == ("cafe-1", 0)
    assert (rows.id, rows.data["update_first"], rows.data["update_last"]) == ("cafe-2", 13, 15)


async def test_stream_filters_topics_and_runs() -> None:
    """Neither another topic nor another run, live or replayed."""
    daemon = make_daemon()
    wanted = make_anomaly(id="mine")
    noise = (make_block(), make_anomaly(run="other"), make_escalation(), make_view(make_run("other")))
    daemon.publish(*noise, wanted)

    async with StreamClient(daemon, "topics=anomaly&runs=ant-ppo", "cafe-1") as client:
        hello, replayed = await client.next(), await client.next()
        daemon.publish(*noise, wanted)
        live = await client.next()

    assert hello.data["replayed"] == 1
    assert (replayed.id, live.id) == ("cafe-5", "cafe-10")


@pytest.mark.usefixtures("unrested")
async def test_stream_resumed_replays_what_was_missed_once_and_in_order() -> None:
    """Both rings, merged by id; hello stands at the id the client came with, so a second break loses nothing."""
    daemon = make_daemon()
    for payload in (make_anomaly(), make_block(), make_escalation(), make_block(), make_anomaly()):
        daemon.publish(payload)

    async with StreamClient(daemon, last_event_id="cafe-1") as client:
        events = [await client.next() for _ in range(5)]
        daemon.publish(make_block())
        events.append(await client.next())

    assert [event.id for event in events] == ["cafe-1", "cafe-2", "cafe-3", "cafe-4", "cafe-5", "cafe-6"]
    assert [event.name for event in events] == ["hello", "rows", "escalation", "rows", "anomaly", "rows"]


@pytest.mark.parametrize("last", ["dead-0", "cafe-9", "cafe", "cafe-", "cafe-x", "cafe--1", "", "cafe-²", "cafe-" + "9" * 5000])
async def test_stream_resumed_with_an_id_not_ours_begins_with_a_gap(last: str) -> None:
    """Another epoch, the future, or no id at all: the client is told to read anew, and nothing is replayed."""
    daemon = make_daemon()
    daemon.publish(make_anomaly())

    async with StreamClient(daemon, last_event_id=last) as client:
        hello, gap = await client.next(), await client.next()
        daemon.publish(make_escalation())
        live = await client.next()

    assert (hello.id, hello.data["replayed"]) == ("cafe-1", 0)
    assert (gap.name, gap.id) == ("gap", "")
    assert live.id == "cafe-2"


async def test_stream_resumed_too_late_begins_with_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ring still has follows the gap; evidence outlives a flood of rows."""
    monkeypatch.setattr(hub_module, "RING_EVENTS", 4)
    daemon = make_daemon()
    daemon.publish(make_anomaly(), make_anomaly())
    daemon.publish(*[make_block(f"run-{i}") for i in range(6)])

    async with StreamClient(daemon, last_event_id="cafe-1") as client:
        late = [await client.next() for _ in range(7)]
    async with StreamClient(daemon, "topics=anomaly", "cafe-1") as client:
        evidence = [await client.next() for _ in range(2)]
    async with StreamClient(daemon, last_event_id="cafe-4") as client:
        in_time = [await client.next() for _ in range(5)]

    assert [event.name for event in late] == ["hello", "gap", "anomaly", *["rows"] * 4]
    assert [event.name for event in evidence] == ["hello", "anomaly"]
    assert [event.name for event in in_time] == ["hello", *["rows"] * 4]


async def test_stream_without_events_sends_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment, which browsers ignore and proxies count as life."""
    monkeypatch.setattr(stream_module, "HEARTBEAT_S", 0.01)
    async with StreamClient(make_daemon()) as client:
        await client.next()
        assert await client.raw() == ": still here\n\n"


async def test_stream_that_saw_only_hello_resumes_without_gap() -> None:
    """Also when hello came before the first event of all."""
    daemon = make_daemon()
    async with StreamClient(daemon) as client:
        hello = await client.next()
    daemon.publish(make_anomaly())

    async with StreamClient(daemon, last_event_id=hello.id) as client:
        events = [await client.next() for _ in range(2)]

    assert [(event.name, event.id) for event in events] == [("hello", "cafe-0"), ("anomaly", "cafe-1")]


async def test_hub_keeps_no_arrays() -> None:
    """Rows in the ring are six numbers, not the block they came from."""
    hub = Hub("cafe")
    hub.publish([Published("rows", "ant-ppo", make_block())])

    (event,) = hub.resume("cafe-0", hub.subscribe({"rows"})).replay

    assert not isinstance(event.payload, SignalBlock)


def test_hub_epoch_with_a_dash_is_refused() -> None:
    """Ids are split at the dash."""
    with pytest.raises(GradwatchError, match="letters and digits"):
        Hub("a-b")
