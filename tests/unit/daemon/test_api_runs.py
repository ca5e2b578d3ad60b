"""GET runs, runs/{run}, runs/{run}/events: the bad path first."""

from __future__ import annotations

import math

import pytest

from gradwatch_contracts.collectors import COLLECTORS
from gradwatch_contracts.control import Level, Severity
from gradwatch_daemon.api import models, run_models
from gradwatch_daemon.api.sentences import run_sentence
from gradwatch_daemon.records import DetectorState, EventRecord, LossRecord, Stream
from gradwatch_daemon.records.commands import Allowance
from harness.fake_api import make_daemon, problem_of
from harness.fake_records import T0_TEXT, make_anomaly, make_event, make_newest, make_run, make_view


async def test_run_unknown_is_not_found_and_names_the_nearest() -> None:
    """A mistyped run costs one look, not a search."""
    answer = await make_daemon().get("/runs/ant-pp0")

    found = problem_of(answer)
    assert answer.status_code == 404
    assert found["code"] == "run-not-found"
    assert found["did_you_mean"] == "ant-ppo"
    assert "ant-pp0" in found["detail"]


@pytest.mark.parametrize("path", ["/runs/x/events", "/runs/x/signals", "/runs/x/series?signal=a", "/runs/x/escalations"])
async def test_run_unknown_in_any_address_below_is_not_found(path: str) -> None:
    """Nothing below an unknown run answers an empty list."""
    assert problem_of(await make_daemon().get(path))["code"] == "run-not-found"


async def test_run_state_filter_unknown_names_the_nearest() -> None:
    """`state=live` mistyped must not widen or empty the list."""
    found = problem_of(await make_daemon().get("/runs?state=lives"))

    assert (found["status"], found["did_you_mean"]) == (400, "live")


async def test_run_detail_round_trips_every_field() -> None:
    """Every field of the snapshot arrives with its own value."""
    view = make_view(
        make_run(pin=Level.MINIMAL),
        open_anomalies=(make_anomaly(),),
        agent_version="0.9",
        verbs=("stop",),
        allowance=Allowance(5, 12, 500, 130),
        state="slow",
        evidence="Late.",
        newest=make_newest({"loss.total": 1}),
    )
    daemon = make_daemon({"ant-ppo": view})
    stream = Stream("ant-ppo", 2, 0)
    told = {"level": 2, "updates": 64, "cost.core": 0.004, "cost.probe": 0.001, "cost.ranges": math.nan}
    older = {"level": 2, "updates": 4, "cost.core": 0.5}
    daemon.reader.happened = [
        EventRecord(stream._replace(attempt=1), "s", 9, 90, 5, "costs", "", {"level": 3, "cost.core": 0.9}),
        EventRecord(stream, "s", 8, 64, 4, "costs", "", told),
        EventRecord(stream, "s", 7, 4, 3, "costs", "", older),
    ]
    daemon.reader.lost = [LossRecord(stream, "s", 5, 5, "device busy"), LossRecord(stream, "s", 7, 9, "outbox full")]

    answer = await daemon.get("/runs/ant-ppo")

    document = answer.json()
    run_models.RunDetail.model_validate(document)
    assert document.pop("sentence").startswith("Training more slowly than usual, update 120 of 500.")
    levels = document.pop("levels")
    assert [(one["level"], one["updates"], one["share"]) for one in levels[:2]] == [("off", 0, None), ("minimal", 0, None)]
    shares = [{one["name"]: one["share"] for one in level["collectors"]} for level in levels]
    assert [found["core"] for found in shares] == [None, None, 0.004, None]
    assert (shares[2]["probe"], shares[2]["ranges"]) == (0.001, None)
    assert shares[0].keys() < shares[1].keys() < shares[2].keys() < shares[3].keys() == {"core", *COLLECTORS}
    standings = document.pop("standings")
    assert standings[7] == {"kind": "kind-7", "subject": "", "state": "blind", "reason": "reason 7", "add": ""}
    assert document == {
        "run": "ant-ppo",
        "attempt": 2,
        "group": "ants",
        "state": "slow",
        "evidence": "Late.",
        "level": {"base": "normal", "pin": "minimal", "effective": "debug", "revision": 3},
        "live": True,
        "sessions": 2,
        "world": 2,
        "update_last": 120,
        "updates_total": 500,
        "first_seen_at": T0_TEXT,
        "last_seen_at": "2026-01-31T12:00:09.123Z",
        "coverage": {"received": 96, "lost": 2, "share": 96 / 98, "thinned": 0},
        "detectors": {"armed": 4, "learning": 0, "blind": 3, "firing": 1},
        "anomalies_open": 1,
        "beside": [],
        "launch_id": "launch-7",
        "agent_version": "0.9",
        "verbs": ["stop"],
        "allowance": {"spent": 5, "may": 12, "window": 500, "refill_update": 130},
        "actions": [],
        "row_last": {"made_at": T0_TEXT, "received_at": "2026-01-31T12:00:00.143Z"},
        "tags": {"team": "locomotion"},
        "labels": {"env": "Ant-v5"},
        "config": {"lr": 3e-4, "clip": "Infinity", "anneal": True},
        "losses": [{"reason": "outbox full", "records": 3}, {"reason": "device busy", "records": 1}],
        "overhead": None,
        "crash": None,
    }


async def test_run_detail_shows_the_first_exception_of_the_present_attempt() -> None:
    """One of an older attempt is not meant; where ranks differ, the first one raised it and the others followed."""
    daemon = make_daemon()
    told = {"type": "ValueError", "message": "nan"}
    first = make_event(1, text="Traceback: x", detail=told)
    later = make_event(2, stream=Stream("ant-ppo", 2, 0), detail={"type": "RuntimeError", "message": "peer is gone"})
    daemon.reader.happened = [later, first, make_event(0, stream=Stream("ant-ppo", 1, 0))]
    assert (await daemon.get("/runs/ant-ppo")).json()["crash"] == {
        "type": "ValueError",
        "message": "nan",
        "traceback": "Traceback: x",
        "update": 118,
        "rank": 1,
        "at": T0_TEXT,
        "updates": "/api/v1/runs/ant-ppo/snapshot?around=118&attempt=2",
    }


async def test_runs_are_found_by_the_state_that_is_shown() -> None:
    """A connected run that is slow is not among the live ones."""
    daemon = make_daemon({"ant-ppo": make_view(state="slow"), "bee": make_view(make_run("bee"))})
    for state, found in (("slow", ["ant-ppo"]), ("live", ["bee"])):
        assert [item["run"] for item in (await daemon.get(f"/runs?state={state}")).json()["items"]] == found


def overhead_event(attempt: int = 2, **detail: object) -> EventRecord:
    """The word of an agent that thinned something."""
    given = {"was": 0.05, "share": 0.008, "budget": 0.01, "every.ranges": 4, **detail}
    return EventRecord(Stream("ant-ppo", attempt, 0), "s", 9, 40, 1_000, "overhead", "too slow", given)  # type: ignore[arg-type]


async def test_run_detail_says_what_the_agent_thinned() -> None:
    """The newest word counts, and only one of this attempt."""
    daemon = make_daemon()
    daemon.reader.happened = [overhead_event(), overhead_event(was=0.5)]

    document = (await daemon.get("/runs/ant-ppo")).json()

    assert document["overhead"] == {
        "update": 40,
        "share_before": 0.05,
        "share": 0.008,
        "budget": 0.01,
        "thinned": {"ranges": 4},
        "sentence": "too slow",
    }
    daemon.reader.happened = [overhead_event(attempt=1)]
    assert (await daemon.get("/runs/ant-ppo")).json()["overhead"] is None


@pytest.mark.parametrize("detail", [{"was": "much"}, {"share": None}, {"every.ranges": "often"}])
async def test_run_detail_with_an_overhead_event_of_another_make_is_whole_without(detail: dict[str, object]) -> None:
    """An event is whatever a trainer says."""
    daemon = make_daemon()
    daemon.reader.happened = [overhead_event(**detail)]

    answer = await daemon.get("/runs/ant-ppo")

    assert (answer.status_code, answer.json()["overhead"]) == (200, None)


@pytest.mark.parametrize(
    ("state", "reason", "add"),
    [
        ("blind", "policy.kl.k3 is not sent: mon.ppo(...)", "mon.ppo(...)"),
        ("blind", "policy.kl.k3: not collected at this telemetry level; raise the level to normal", ""),
        ("learning", "12 of 50 updates to learn from", ""),
        ("armed", "mon.ppo(...)", ""),
    ],
)
async def test_run_detail_names_the_line_that_a_blind_detector_lacks(state: str, reason: str, add: str) -> None:
    """A field of its own, so that nobody has to read prose to find it."""
    standing = DetectorState("kl-spike", "arm", state, reason)

    document = (await make_daemon({"ant-ppo": make_view(detectors=(standing,))}).get("/runs/ant-ppo")).json()

    assert document["standings"] == [{"kind": "kl-spike", "subject": "arm", "state": state, "reason": reason, "add": add}]


async def test_run_detail_of_an_undefined_signal_names_what_makes_it_defined() -> None:
    """Entropy of a policy whose action space nobody passed."""
    standing = DetectorState("nonfinite", "", "blind", "grad.norm.mean: not defined for these inputs; take a step")

    document = (await make_daemon({"ant-ppo": make_view(detectors=(standing,))}).get("/runs/ant-ppo")).json()

    assert document["standings"][0]["add"] == "take a step"


async def test_run_before_its_first_update_has_no_coverage_and_no_level() -> None:
    """Nothing received is not full coverage, and a level nobody confirmed is not the base level."""
    view = make_view(update_last=None, effective=None, rows=0, lost=0, detectors=())

    document = (await make_daemon({"ant-ppo": view}).get("/runs/ant-ppo")).json()

    assert document["coverage"] == {"received": 0, "lost": 0, "share": None, "thinned": 0}
    assert document["level"]["effective"] is None
    assert document["update_last"] is None
    assert document["sentence"] == "Connected, no update has come yet. No detector has judged it yet."


async def test_runs_pages_follow_each_other_without_repeating() -> None:
    """Last seen first; a run that appears between two pages shifts nothing."""
    views = {name: make_view(make_run(name, last_seen_ns=seen)) for name, seen in (("a", 30), ("b", 20), ("c", 20), ("d", 10))}
    daemon = make_daemon(views)

    first = (await daemon.get("/runs?limit=2")).json()
    daemon.views["new"] = make_view(make_run("new", last_seen_ns=99))
    second = (await daemon.get(f"/runs?limit=2&cursor={first['next']}")).json()

    assert [item["run"] for item in first["items"]] == ["a", "c"]
    assert [item["run"] for item in second["items"]] == ["b", "d"]
    assert second["next"] is None
    models.RunList.model_validate(second)


async def test_runs_filters_keep_only_what_was_asked() -> None:
    """`state` and `group` narrow the list."""
    views = {
        "a": make_view(make_run("a", state="crashed")),
        "b": make_view(make_run("b", group="other")),
        "c": make_view(make_run("c")),
    }
    daemon = make_daemon(views)

    by_state = (await daemon.get("/runs?state=crashed")).json()["items"]
    by_group = (await daemon.get("/runs?group=other")).json()["items"]

    assert [item["run"] for item in by_state] == ["a"]
    assert [item["run"] for item in by_group] == ["b"]


async def test_events_come_newest_first_with_nonfinite_detail_and_coverage() -> None:
    """The NaN that killed a run arrives as "NaN", not as null and not as a 500."""
    daemon = make_daemon()
    daemon.reader.happened = [make_event(1), make_event(3), make_event(2)]

    first = (await daemon.get("/runs/ant-ppo/events?limit=2")).json()
    second = (await daemon.get(f"/runs/ant-ppo/events?limit=2&cursor={first['next']}")).json()

    models.EventList.model_validate(first)
    assert [item["seq"] for item in first["items"] + second["items"]] == [3, 2, 1]
    assert first["items"][0] == {
        "attempt": 2,
        "rank": 1,
        "session": "s1",
        "seq": 3,
        "update": 118,
        "at": T0_TEXT,
        "kind": "exception",
        "text": "ValueError: nan",
        "detail": {"x": "NaN", "n": 3},
    }
    assert first["coverage"]["lost"] == 2
    assert "MainThread" not in daemon.reader.threads_seen


def test_sentence_with_anomalies_says_the_worst_and_who_is_blind() -> None:
    """The plain words of DESIGN §8."""
    info = make_anomaly(id="a2", severity=Severity.INFO, update_onset=3, sentence="Small thing.")
    view = make_view(open_anomalies=(info, make_anomaly()), lost=0)

    assert run_sentence(view) == (
        "Training, update 120 of 500. 1 critical and 1 info anomalies, the worst since update 118: "
        "Gradient norm is NaN at update 119. 3 of 8 detectors are blind."
    )


def test_sentence_without_anomalies_counts_only_detectors_that_can_judge() -> None:
    """A blind or learning detector finds nothing, which is not the same as nothing to find."""
    states = tuple(DetectorState("k", str(i), state, "") for i, state in enumerate(["armed", "blind", "learning"]))

    assert run_sentence(make_view(detectors=states, lost=0)) == (
        "Training, update 120 of 500. No open anomaly seen by the 1 of 3 detectors that can judge. "
        "1 of 3 detectors is blind. 1 of 3 detectors is still learning."
    )


@pytest.mark.parametrize("state", ["live", "lost", "finished", "stopped", "crashed", "imported"])
@pytest.mark.parametrize("standing", ["armed", "blind", "learning"])
def test_sentence_never_calls_a_run_healthy(state: str, standing: str) -> None:
    """No state and no detectors make us promise health."""
    view = make_view(make_run(state=state), detectors=(DetectorState("k", "", standing, ""),))

    words = run_sentence(view).lower().replace(".", " ").replace(";", " ").split()

    assert not {"healthy", "ok", "fine", "good", "normal"} & set(words)
    assert (standing in ("blind", "learning")) == ("Nothing can be said" in run_sentence(view))


def test_sentence_with_losses_never_rounds_coverage_up_to_all() -> None:
    """1 of 100,000 lost is not 100 %."""
    assert "1 record was lost, so 99.9 % of the run is covered." in run_sentence(make_view(rows=99_999, lost=1))


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        ("kind=note", [1]),
        ("attempt=1", [2]),
        ("from=119", [3]),
        ("to=117", []),
        ("from=118&to=118&kind=exception&attempt=2", [0]),
        ("attempt=9", []),
    ],
)
async def test_events_are_narrowed_by_kind_attempt_and_updates(query: str, seqs: list[int]) -> None:
    """Each filter alone and all together."""
    daemon = make_daemon()
    older = Stream("ant-ppo", 1, 0)
    daemon.reader.happened = [
        make_event(0),
        make_event(1, kind="note"),
        make_event(2, stream=older),
        make_event(3, update=119),
    ]
    found = (await daemon.get(f"/runs/ant-ppo/events?{query}")).json()["items"]
    assert [event["seq"] for event in found] == seqs


@pytest.mark.parametrize(
    ("query", "names"), [("tag=team:a", ["one"]), ("tag=team", []), ("tag=x:a", []), ("live=false", ["two"])]
)
async def test_runs_are_narrowed_by_tag_and_live(query: str, names: list[str]) -> None:
    """A tag counts with its value."""
    one = make_view(make_run("one", tags={"team": "a"}))
    two = make_view(make_run("two", tags={"team": "b"}), live=False)
    found = (await make_daemon({"one": one, "two": two}).get(f"/runs?{query}")).json()["items"]
    assert [run["run"] for run in found] == names
