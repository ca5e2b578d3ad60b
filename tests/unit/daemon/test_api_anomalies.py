"""GET anomalies and anomalies/{id}."""

from __future__ import annotations

import struct
import time

import pytest

from gradwatch_contracts.control import Severity
from gradwatch_daemon.api import models
from gradwatch_daemon.api.events import Event
from gradwatch_daemon.api.evidence_models import AnomalyDetail
from gradwatch_daemon.api.stream import describe
from gradwatch_daemon.records import DetectorState, Stream, TableRecord
from gradwatch_daemon.records.attention import Acknowledgement, Attention
from gradwatch_daemon.store.protocol import AnomalyFilter
from harness.fake_api import make_daemon, problem_of
from harness.fake_records import T0_NS, T0_TEXT, make_anomaly, make_run, make_summary, make_view


async def test_anomaly_unknown_is_not_found() -> None:
    """With the id that was asked for."""
    found = problem_of(await make_daemon().get("/anomalies/zzz"))

    assert (found["status"], found["code"]) == (404, "anomaly-not-found")
    assert "'zzz'" in found["detail"]


async def test_anomalies_of_unknown_run_are_not_an_empty_list() -> None:
    """An empty list of a mistyped run would read as all clear."""
    found = problem_of(await make_daemon().get("/anomalies?run=ant-pp"))

    assert (found["code"], found["did_you_mean"]) == ("run-not-found", "ant-ppo")


@pytest.mark.parametrize("since", ["yesterday", "2026-01-31T12:00:00"])
async def test_anomalies_since_no_time_is_refused(since: str) -> None:
    """The expected form is in the words."""
    found = problem_of(await make_daemon().get(f"/anomalies?since={since}"))

    assert found["code"] == "invalid-parameter"
    assert "2026-01-31T12:00:00Z" in found["detail"]


async def test_anomaly_round_trips_every_field() -> None:
    """Each field of the record arrives with its own value, non-finite ones by name."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly(update_resolved=130, state="resolved", baseline=0.25)]
    daemon.reader.attended = {"a1": Attention("a1", Acknowledgement("ann", T0_NS, "seed"), "s1")}

    document = (await daemon.get("/anomalies/a1")).json()

    AnomalyDetail.model_validate(document)
    window = "from=68&to=120&attempt=2&rank=1"
    assert document == {
        "id": "a1",
        "run": "ant-ppo",
        "attempt": 2,
        "rank": 1,
        "kind": "nonfinite",
        "subject": "actor",
        "severity": "critical",
        "state": "resolved",
        "update_onset": 118,
        "update_fired": 119,
        "update_last": 120,
        "update_resolved": 130,
        "fired_at": T0_TEXT,
        "count": 3,
        "value": "NaN",
        "limit": 0.5,
        "baseline": 0.25,
        "status": {},
        "sentence": "Gradient norm is NaN at update 119.",
        "root": {"update": 118, "minibatch": 4, "stage": "grad"},
        "attached": [
            {
                "kind": "kl-spike",
                "subject": "",
                "severity": "warning",
                "update_onset": 119,
                "update_fired": 120,
                "value": "Infinity",
                "limit": 0.1,
            }
        ],
        "try": ["Lower the learning rate."],
        "evidence": {
            "series": [f"/api/v1/runs/ant-ppo/series?signal=grad.norm.mean&subject=actor&{window}"],
            "events": "/api/v1/runs/ant-ppo/events",
            "rules_hash": "beef",
            "sentence": "What began it cannot be told: no black box holds the updates around the onset; of the signals, 0 "
            "updates before the onset are held; 8 are needed to say what is usual.",
            "updates": {"first": None, "last": None, "before": 0, "since": 0},
            "first_signal": None,
            "first_signal_reason": "0 updates before the onset are held; 8 are needed to say what is usual",
            "first_layer": None,
            "first_layer_reason": "no black box holds the updates around the onset",
            "norms": [],
            "exemplars": [],
            "tables": [],
            "snapshot": "/api/v1/runs/ant-ppo/snapshot?around=118&attempt=2&rank=1",
            "playbook": "/playbook/nonfinite",
        },
        "acknowledged": {"by": "ann", "at": T0_TEXT, "note": "seed"},
        "silenced": "s1",
        "coverage": {"received": 96, "lost": 2, "share": 96 / 98, "thinned": 0},
    }


async def test_anomaly_with_a_black_box_names_the_layer_and_gives_its_norms() -> None:
    """A NaN in one layer at step 1 of update 118, the worst transitions of 119, layers of 120; all of its own rank."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly()]
    stream = Stream("ant-ppo", 2, 1)
    rows = [(f"grad@{update}.{step}", [0.5, 0.2]) for update in range(60, 119) for step in range(2)]
    rows[-1] = ("grad@118.1", [0.5, float("nan")])
    packed = b"".join(struct.pack("<2d", *norms) for _, norms in rows)
    box = TableRecord(stream, "s1", 5, "blackbox", 118, tuple(label for label, _ in rows), ("body", "actor"), packed)
    worst = TableRecord(stream, "s1", 6, "exemplars", 119, ("3:17",), ("ratio", "mask"), struct.pack("<2d", 9.5, float("inf")))
    layers = TableRecord(stream, "s1", 7, "layers", 120, ("body",), ("grad_norm",), struct.pack("<d", 1.0))
    far = TableRecord(stream, "s1", 8, "layers", 400, ("body",), ("grad_norm",), struct.pack("<d", 1.0))
    daemon.reader.sent = [box, worst, layers, far]

    document = (await daemon.get("/anomalies/a1")).json()

    AnomalyDetail.model_validate(document)
    found = document["evidence"]
    assert found["sentence"] == "The gradient of actor deviated first: nan at update 118, step 1 on rank 1 (0.2 was usual)."
    assert found["first_layer"] == {
        "rank": 1,
        "update": 118,
        "step": 1,
        "what": "gradient",
        "layer": "actor",
        "layers": ["actor"],
        "total": 2,
        "value": "NaN",
        "usual": pytest.approx(0.2),
        "score": None,
    }
    (norms,) = found["norms"]
    assert (norms["update"][-2:], norms["norm"][-2:]) == ([117, 118], [0.2, "NaN"])
    assert found["exemplars"] == [
        {"rank": 1, "update": 119, "names": ["ratio", "mask"], "index": ["3:17"], "rows": [[9.5, "Infinity"]]}
    ]
    assert found["tables"] == [
        {"kind": "layers", "rank": 1, "update": 120, "href": "/api/v1/runs/ant-ppo/layers?attempt=2&rank=1&update=120"},
        {"kind": "exemplars", "rank": 1, "update": 119, "href": ""},
    ]


async def test_loss_that_was_not_finite_before_any_gradient_blames_no_layer() -> None:
    """Every gradient of the update follows from it, whichever layer the black box has."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly(stage="loss")]
    rows = [(f"grad@{update}.0", float("nan") if update == 118 else 0.2) for update in range(60, 119)]
    packed = b"".join(struct.pack("<d", norm) for _, norm in rows)
    labels = tuple(label for label, _ in rows)
    daemon.reader.sent = [TableRecord(Stream("ant-ppo", 2, 1), "s1", 5, "blackbox", 118, labels, ("actor",), packed)]

    found = (await daemon.get("/anomalies/a1")).json()["evidence"]

    assert (found["first_layer"], found["norms"]) == (None, [])
    assert found["first_layer_reason"] == "it began in stage loss, before any gradient of its update"


async def test_anomaly_without_limit_and_baseline_says_that_the_rule_has_none() -> None:
    """NaN stands for "none" there; a null needs its reason beside it. A minibatch of -1 is none."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly(limit=float("nan"), baseline=None, minibatch=-1)]

    document = (await daemon.get("/anomalies/a1")).json()

    assert (document["limit"], document["baseline"]) == (None, None)
    assert document["status"] == {"limit": "the rule has none", "baseline": "the rule has none"}
    assert document["root"]["minibatch"] is None


async def test_anomaly_of_a_run_no_longer_held_has_no_coverage() -> None:
    """Not full coverage."""
    daemon = make_daemon({})
    daemon.reader.found = [make_anomaly()]

    assert (await daemon.get("/anomalies/a1")).json()["coverage"] is None


async def test_anomalies_pass_every_filter_to_the_store() -> None:
    """One row more than asked for is read, to know whether there is a next page."""
    daemon = make_daemon()

    query = "run=ant-ppo&kind=kl-spike&severity=warning&state=pending&since=2026-01-31T12:00:00Z&limit=7"
    await daemon.get(f"/anomalies?{query}")

    expected = AnomalyFilter("ant-ppo", "kl-spike", "warning", "pending", 1_769_860_800 * 10**9, 8, None)
    assert daemon.reader.calls == [("anomalies", expected), ("attention",)]
    assert "MainThread" not in daemon.reader.threads_seen


async def test_anomalies_pages_follow_each_other_without_repeating() -> None:
    """Newest first by (time, id); equal times neither repeat nor vanish, and a new one shifts nothing."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly(id=f"a{i}", t_ns=T0_NS + i // 2) for i in range(5)]

    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        page = (await daemon.get(f"/anomalies?limit=2{cursor}")).json()
        models.AnomalyList.model_validate(page)
        seen += [item["id"] for item in page["items"]]
        daemon.reader.found.append(make_anomaly(id=f"new{len(seen)}", t_ns=T0_NS + 99))
        cursor = f"&cursor={page['next']}"

    assert seen == ["a4", "a3", "a2", "a1", "a0"]
    assert page["next"] is None


async def test_anomalies_list_shows_each_as_it_is_alone() -> None:
    """The list is put together from kept JSON; what is in it is what PATCH anomalies/{id} answers, field by field in order."""
    daemon = make_daemon()
    daemon.reader.found = [
        make_anomaly(id="b", subject='a/"b"\n', limit=float("nan"), attached=(), tries=()),
        make_anomaly(id="a", run="gone", kind="unknown", minibatch=-1),
        make_anomaly(id="Z", value=float("-inf"), sentence="Größe"),
    ]

    for _ in range(2):
        listed = await daemon.get("/anomalies")
        async with daemon.client() as client:
            body = {"acknowledged": False}
            alone = [(await client.patch(f"/api/v1/anomalies/{id_}", json=body)).text for id_ in ("b", "a", "Z")]

        models.AnomalyList.model_validate(listed.json())
        assert listed.headers["content-type"] == "application/json"
        assert listed.text.startswith(f'{{"items":[{",".join(alone)}],"next":null,')


async def test_anomalies_list_asked_again_shows_what_changed() -> None:
    """The record, the rows of its run, and its detectors each change between two answers."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly(), make_anomaly(id="a0")]
    before = (await daemon.get("/anomalies")).json()
    daemon.reader.found[0] = make_anomaly(state="resolved", update_resolved=130)
    daemon.views["ant-ppo"] = make_view(rows=98, lost=0, detectors=(DetectorState("k", "", "learning", ""),))

    after = (await daemon.get("/anomalies")).json()

    assert [item["state"] for item in before["items"]] == ["firing", "firing"]
    assert [item["state"] for item in after["items"]] == ["resolved", "firing"]
    assert [item["coverage"] for item in after["items"]] == [{"received": 98, "lost": 0, "share": 1.0, "thinned": 0}] * 2
    assert after["coverage"] == {"received": 98, "lost": 0, "share": 1.0, "thinned": 0}
    assert after["detectors"] == {"armed": 0, "learning": 1, "blind": 0, "firing": 0}


async def test_anomalies_of_runs_without_rows_have_no_share() -> None:
    """Nothing made is not everything received."""
    daemon = make_daemon({"ant-ppo": make_view(rows=0, lost=0)})
    daemon.reader.found = [make_anomaly()]

    document = (await daemon.get("/anomalies")).json()

    assert document["coverage"] == document["items"][0]["coverage"] == {"received": 0, "lost": 0, "share": None, "thinned": 0}


async def test_anomalies_empty_list_says_what_could_not_be_seen() -> None:
    """No anomaly, but 3 of 8 detectors are blind and rows were lost: over the run asked for, else over all."""
    views = {"ant-ppo": make_view(), "b": make_view(make_run("b"), rows=4, lost=0, detectors=())}
    daemon = make_daemon(views)

    of_all = (await daemon.get("/anomalies")).json()
    of_run = (await daemon.get("/anomalies?run=b")).json()

    assert of_all["items"] == []
    assert of_all["coverage"] == {"received": 100, "lost": 2, "share": 100 / 102, "thinned": 0}
    assert of_all["detectors"] == {"armed": 4, "learning": 0, "blind": 3, "firing": 1}
    assert of_run["coverage"] == {"received": 4, "lost": 0, "share": 1.0, "thinned": 0}
    assert of_run["detectors"]["blind"] == 0


@pytest.mark.parametrize("severity", list(Severity))
async def test_anomalies_of_each_severity_are_told_apart(severity: Severity) -> None:
    """Every word of the closed list passes."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly(id=s.value, severity=s) for s in Severity]

    items = (await daemon.get(f"/anomalies?severity={severity.value}")).json()["items"]

    assert [(item["id"], item["severity"]) for item in items] == [(severity.value, severity.value)]


@pytest.mark.parametrize(
    ("sent", "linked"),
    [
        (("policy.kl.k3.last",), "policy.kl.k3.last"),
        (("policy.kl.k3.last", "policy.kl.k3"), "policy.kl.k3"),
        ((), "policy.kl.k3"),
    ],
)
async def test_anomaly_links_to_the_signal_that_was_judged(sent: tuple[str, ...], linked: str) -> None:
    """A stand-in is judged only where the signal itself is not sent; list, stream and the anomaly itself say the same."""
    daemon = make_daemon()
    daemon.reader.found = [make_anomaly(kind="kl-spike")]
    daemon.reader.summaries = [make_summary(name) for name in sent]

    alone = (await daemon.get("/anomalies/a1")).json()["evidence"]["series"]
    (listed,) = (await daemon.get("/anomalies")).json()["items"]
    told = describe(daemon.app.state.context, Event("anomaly", "ant-ppo", daemon.reader.found[0]))["evidence"]["series"]

    assert alone == listed["evidence"]["series"] == told
    assert [f"signal={linked}&" in link for link in alone] == [True]


async def test_anomalies_link_to_the_signal_that_came_later_though_they_did_not_change_and_a_stream_is_read_once() -> None:
    """Whether one is sent is a matter of the stream, however far along it each anomaly was seen last."""
    views = {"ant-ppo": make_view(rows=100)}
    daemon = make_daemon(snapshots=lambda: views)
    daemon.reader.found = [make_anomaly(id=f"a{i}", kind="kl-spike", update_last=last) for i, last in enumerate((90, 10, 50))]

    async def linked(*sent: str) -> tuple[set[str], int]:
        daemon.reader.summaries = [make_summary(name) for name in sent]
        daemon.reader.calls.clear()
        items = (await daemon.get("/anomalies")).json()["items"]
        signals = {link.partition("signal=")[2].partition("&")[0] for item in items for link in item["evidence"]["series"]}
        return signals, sum(call[0] == "signals" for call in daemon.reader.calls)

    assert await linked("policy.kl.k3.last") == ({"policy.kl.k3.last"}, 1)
    assert await linked("policy.kl.k3.last") == ({"policy.kl.k3.last"}, 0)
    views["ant-ppo"] = make_view(rows=120)
    assert await linked("policy.kl.k3.last", "policy.kl.k3") == ({"policy.kl.k3"}, 1)


@pytest.mark.parametrize(
    ("state", "away_s", "shown"),
    [("live", 0, "firing"), ("lost", 59, "firing"), ("lost", 61, "ended"), ("finished", 0, "ended"), ("crashed", 0, "ended")],
)
async def test_anomaly_that_stood_when_its_run_ended_is_not_firing(state: str, away_s: int, shown: str) -> None:
    """In the list, by itself and by the filter of either state; the record is not touched, and what was resolved stays that."""
    run = make_run(state=state, last_seen_ns=time.time_ns() - away_s * 10**9)
    daemon = make_daemon({"ant-ppo": make_view(run, state=state, live=state == "live")})
    daemon.reader.found = [make_anomaly(), make_anomaly(id="a2", state="resolved", update_resolved=130)]

    listed = (await daemon.get("/anomalies")).json()["items"]
    alone = (await daemon.get("/anomalies/a1")).json()
    found = {word: [one["id"] for one in (await daemon.get(f"/anomalies?state={word}")).json()["items"]] for word in SHOWN}

    assert {one["id"]: one["state"] for one in listed} == {"a1": shown, "a2": "resolved"}
    assert alone["state"] == shown
    assert found == {word: ["a1"] if word == shown else [] for word in SHOWN}
    assert daemon.reader.found[0].state == "firing"


SHOWN = ("firing", "ended")
