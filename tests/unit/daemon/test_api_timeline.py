"""GET runs/{run}/timeline: what happened, on the axis of updates."""

from __future__ import annotations

from typing import Any

import pytest

from gradwatch_contracts.control import Level
from gradwatch_daemon.api import moment_models as models
from gradwatch_daemon.api.timeline import LOOKED_AT_MAX
from gradwatch_daemon.records import EventRecord, Stream
from gradwatch_daemon.store.protocol import Stretch
from harness.fake_api import FakeDaemon, make_daemon, problem_of
from harness.fake_records import T0_NS, T0_TEXT, make_anomaly, make_event

S_NS = 1_000_000_000


def make_gap(update: int, reason: str, records: int = 3, mark: int = 0) -> EventRecord:
    """The daemon's own word that records never came."""
    detail = {"records": records, "rows": update + 1, "mark": mark}
    return EventRecord(Stream("ant-ppo", 2, -1), "s1", -1, update, T0_NS, "gap", reason, detail)


async def items(daemon: FakeDaemon, query: str = "") -> list[dict[str, Any]]:
    """The items of an answer, whose shape is checked."""
    answer = await daemon.get(f"/runs/ant-ppo/timeline?{query}")
    document: dict[str, Any] = answer.json()
    models.TimelineAnswer.model_validate(document)
    found: list[dict[str, Any]] = document["items"]
    assert len({item["id"] for item in found}) == len(found)
    return found


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("what=levels", "query/what"),
        ("what=", "query/what"),
        ("from=5&to=4", "query/from"),
        ("attempt=3", "query/attempt"),
        ("limit=0", "query/limit"),
        ("cursor=zzz", "query/cursor"),
    ],
)
async def test_timeline_parameter_bad_is_refused_at_its_place(query: str, pointer: str) -> None:
    """A word that is not known would narrow the answer to nothing, which reads as nothing happened."""
    found = problem_of(await make_daemon().get(f"/runs/ant-ppo/timeline?{query}"))
    assert (found["status"], [e["pointer"] for e in found["errors"]]) == (400, [pointer])


async def test_timeline_tells_levels_gaps_and_steps_back_from_the_rows() -> None:
    """What was collected counts, not what was asked for; a gap names its updates and why."""
    daemon = make_daemon()
    daemon.reader.course = [
        Stretch(0, 9, T0_NS, T0_NS + 9 * S_NS, Level.NORMAL),
        Stretch(10, 14, T0_NS + 10 * S_NS, T0_NS + 14 * S_NS, Level.DEBUG),
        Stretch(18, 19, T0_NS + 18 * S_NS, T0_NS + 19 * S_NS, Level.DEBUG),
        Stretch(20, 29, T0_NS + 20 * S_NS, T0_NS + 29 * S_NS, Level.NORMAL),
        Stretch(25, 40, T0_NS + 30 * S_NS, T0_NS + 46 * S_NS, Level.NORMAL),
        Stretch(42, 50, T0_NS + 50 * S_NS, T0_NS + 58 * S_NS, Level.NORMAL),
    ]
    daemon.reader.happened = [make_gap(14, "outbox full"), make_gap(30, "device busy", 1, 1)]

    found = [(i["what"], i["update"], i["update_end"], i["kind"], i["sentence"]) for i in await items(daemon)]

    assert found == [
        ("gap", 41, 41, "", "Update 41 never came."),
        ("gap", 30, None, "", "1 record after update 30 never came: device busy."),
        ("rewind", 25, None, "", "The trainer went back from update 29 to 25."),
        ("level", 20, None, "normal", "Collected at normal, before at debug."),
        ("gap", 15, 17, "", "Updates 15 to 17 never came: outbox full."),
        ("level", 10, 19, "debug", "Collected at debug, before at normal."),
        ("attempt", 0, None, "normal", "The first update that was recorded, at level normal."),
    ]


async def test_timeline_shows_anomalies_and_events_of_the_attempt_alone() -> None:
    """With every field; what belongs to another attempt has another axis."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly(state="resolved", update_resolved=130), make_anomaly(id="a2", attempt=1)]
    other = Stream("ant-ppo", 1, 1)
    tick = make_event(-1, kind="tick", text="", detail={"mark": 3}, update=119)
    daemon.reader.happened = [make_event(4), tick, make_event(5, stream=other)]

    assert await items(daemon) == [
        {
            "what": "event",
            "id": f"event-s1-tick--1-{T0_NS - 1}-3",
            "update": 119,
            "update_end": None,
            "at": T0_TEXT,
            "kind": "tick",
            "subject": "",
            "severity": None,
            "sentence": "No update came within the time that they usually take.",
            "link": None,
        },
        {
            "what": "event",
            "id": f"event-s1-exception-4-{T0_NS + 4}-",
            "update": 118,
            "update_end": None,
            "at": T0_TEXT,
            "kind": "exception",
            "subject": "",
            "severity": None,
            "sentence": "ValueError: nan",
            "link": None,
        },
        {
            "what": "anomaly",
            "id": "a1",
            "update": 118,
            "update_end": 130,
            "at": None,
            "kind": "nonfinite",
            "subject": "actor",
            "severity": "critical",
            "sentence": "Gradient norm is NaN at update 119.",
            "link": "/api/v1/anomalies/a1",
        },
    ]
    assert "MainThread" not in daemon.reader.threads_seen


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("what=anomaly,event", ["a1", "event"]),
        ("what=level", ["level"]),
        ("from=130", ["a1", "level"]),
        ("to=50", ["level", "attempt"]),
        ("from=118&to=118&what=event", ["event"]),
        ("from=119&to=119&what=event", []),
    ],
)
async def test_timeline_is_narrowed_by_what_and_by_updates_touched(query: str, expected: list[str]) -> None:
    """An open anomaly and a level that holds reach to the newest update."""
    daemon = make_daemon()
    daemon.reader.found, daemon.reader.happened = [make_anomaly()], [make_event(4)]
    daemon.reader.course = [Stretch(0, 9, 0, 0, Level.NORMAL), Stretch(10, 120, 0, 0, Level.DEBUG)]
    found = await items(daemon, query)
    assert sorted(i["id"] if i["what"] == "anomaly" else i["what"] for i in found) == sorted(expected)


async def test_timeline_pages_hold_every_item_once() -> None:
    """Also where many are at one update."""
    daemon = make_daemon()
    daemon.reader.happened = [make_event(seq) for seq in range(7)]
    seen, cursor = [], ""
    for _ in range(4):
        document = (await daemon.get(f"/runs/ant-ppo/timeline?limit=2{cursor}")).json()
        seen += [item["id"] for item in document["items"]]
        cursor = f"&cursor={document['next']}"
    assert document["next"] is None
    assert len(seen) == len(set(seen)) == 7


async def test_timeline_of_more_than_is_looked_at_says_so() -> None:
    """What is older is not on the axis."""
    daemon = make_daemon()
    assert (await daemon.get("/runs/ant-ppo/timeline")).json()["truncated"] is False
    daemon.reader.happened = [make_event(seq) for seq in range(LOOKED_AT_MAX)]
    assert (await daemon.get("/runs/ant-ppo/timeline")).json()["truncated"] is True
