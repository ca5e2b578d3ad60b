"""GET runs/{run}/signals and /series."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from gradwatch_contracts.columns import STATUS_REASON, Status
from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.api import models
from gradwatch_daemon.records import SignalKey, Stream
from harness.fake_api import make_daemon, problem_of
from harness.fake_records import make_series, make_summary

NAN, INF = float("nan"), float("inf")


async def test_series_of_unknown_signal_names_the_nearest_of_the_run() -> None:
    """404, not an empty series, which would read as "nothing was measured"."""
    daemon = make_daemon()
    daemon.reader.summaries = [make_summary("policy.kl.k3"), make_summary("grad.norm.mean")]

    found = problem_of(await daemon.get("/runs/ant-ppo/series?signal=policy.kl.k4"))

    assert (found["status"], found["code"], found["did_you_mean"]) == (404, "signal-not-found", "policy.kl.k3")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("entropi", "policy.entropy"), ("kl", "policy.kl.k3"), ("policy.kl.k2", "policy.kl.k3"), ("nosuch", None)],
)
async def test_series_by_a_part_of_a_name_is_told_the_whole_name(word: str, meant: str | None) -> None:
    """Names have three parts, and people remember one of them; what resembles nothing gets no guess."""
    daemon = make_daemon()
    daemon.reader.summaries = [make_summary(name) for name in ("policy.kl.k3", "policy.entropy.norm", "policy.entropy")]

    found = problem_of(await daemon.get(f"/runs/ant-ppo/series?signal={word}"))

    assert (found["code"], found["did_you_mean"]) == ("signal-not-found", meant)
    assert meant or "GET /api/v1/runs/RUN/signals" in found["hint"]


async def test_series_of_unknown_subject_lists_the_known_ones() -> None:
    """A signal with heads needs its head."""
    daemon = make_daemon()
    daemon.reader.summaries = [replace(make_summary(), key=SignalKey("policy.entropy.norm", "head:arm"))]

    found = problem_of(await daemon.get("/runs/ant-ppo/series?signal=policy.entropy.norm"))

    assert found["code"] == "signal-not-found"
    assert "'head:arm'" in found["detail"]


async def test_series_of_a_run_without_rows_helps_with_the_registry() -> None:
    """Before its first row the run has no signals to be near to."""
    found = problem_of(await make_daemon().get("/runs/ant-ppo/series?signal=policy.kl.k4"))

    assert found["did_you_mean"] == "policy.kl.k3"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("", "query/signal"),
        ("signal=a&from=5&to=4", "query/from"),
        ("signal=a&from=-1", "query/from"),
        ("signal=a&to=9223372036854775808", "query/to"),
        ("signal=a&from=x", "query/from"),
        ("signal=a&points=0", "query/points"),
        ("signal=a&points=20001", "query/points"),
        ("signal=a&attempt=0", "query/attempt"),
        ("signal=a&attempt=3", "query/attempt"),
        ("signal=a&rank=2", "query/rank"),
        ("signal=a&first=1", "query/first"),
        ("signal=" + "a" * 129, "query/signal"),
    ],
)
async def test_series_parameter_bad_is_refused_at_its_place(query: str, pointer: str) -> None:
    """An attempt or rank that never was is refused too: an empty answer would look like a run that measured nothing."""
    daemon = make_daemon()

    found = problem_of(await daemon.get(f"/runs/ant-ppo/series?{query}"))

    assert (found["status"], [e["pointer"] for e in found["errors"]]) == (400, [pointer])
    assert daemon.reader.calls == []


async def test_series_keeps_every_status_and_nonfinite_kind_apart() -> None:
    """Measured, NaN, ±Inf and each reason for nothing; a missing value is null whatever the array holds."""
    missing = [status for status in Status if status is not Status.MEASURED]
    values = [0.25, NAN, INF, -INF, *([NAN, 0.0, INF] * 4)[: len(missing)]]
    daemon = make_daemon()
    daemon.reader.stored = make_series(values, [0, 0, 0, 0, *missing])

    document = (await daemon.get("/runs/ant-ppo/series?signal=policy.kl.k3")).json()

    models.SeriesAnswer.model_validate(document)
    expected = [0.25, "NaN", "Infinity", "-Infinity", *[None] * len(missing)]
    assert document["low"] == document["high"] == document["last"] == expected
    assert document["status"] == ["measured"] * 4 + [status.name.lower() for status in missing]
    assert document["nonfinite"] == [0, 1, 1, 1, *[0] * len(missing)]
    assert document["measured"] == [1, 1, 1, 1, *[0] * len(missing)]


async def test_series_bucket_of_nothing_but_nan_has_no_low_and_high() -> None:
    """Low and high are of the finite values; the last measured value says NaN."""
    daemon = make_daemon()
    daemon.reader.stored = make_series(
        [NAN, NAN],
        bucket=64,
        measured=np.array([64, 64]),
        nonfinite=np.array([64, 1]),
        low=np.array([NAN, -1.0]),
        high=np.array([NAN, 2.0]),
    )

    document = (await daemon.get("/runs/ant-ppo/series?signal=policy.kl.k3")).json()

    assert (document["low"], document["high"], document["last"]) == ([None, -1.0], [None, 2.0], ["NaN", "NaN"])
    assert (document["bucket"], document["update"]) == (64, [100, 164])


async def test_series_asks_for_exactly_what_was_asked_and_says_what_it_is() -> None:
    """Every parameter reaches the store, off the event loop; every fact of the signal and the coverage come back."""
    daemon = make_daemon()
    daemon.reader.stored = make_series([1.5], rows=7)

    query = "signal=policy.kl.k3&subject=head:arm&from=5&to=9&points=3&attempt=1&rank=1"
    document = (await daemon.get(f"/runs/ant-ppo/series?{query}")).json()

    assert daemon.reader.calls == [("series", Stream("ant-ppo", 1, 1), SignalKey("policy.kl.k3", "head:arm"), 5, 9, 3)]
    assert "MainThread" not in daemon.reader.threads_seen
    assert document == {
        "run": "ant-ppo",
        "attempt": 1,
        "rank": 1,
        "signal": "policy.kl.k3",
        "subject": "head:arm",
        "unit": "nats",
        "estimator": SIGNALS["policy.kl.k3"].estimator,
        "window": SIGNALS["policy.kl.k3"].window,
        "bucket": 1,
        "update": [100],
        "at": ["2026-01-31T12:00:00.123Z"],
        "env_steps": [None],
        "low": [1.5],
        "high": [1.5],
        "last": [1.5],
        "measured": [1],
        "nonfinite": [0],
        "status": ["measured"],
        "end": {"update": 100, "at": "2026-01-31T12:00:00.123Z", "env_steps": 7, "value": 1.5, "status": "measured"},
        "rows": 7,
        "thinned": 0,
        "coverage": {"received": 96, "lost": 2, "share": 96 / 98, "thinned": 0},
    }


@pytest.mark.parametrize(
    ("accept", "query", "csv"),
    [
        ("", "", False),
        ("*/*", "", False),
        ("text/csv", "", True),
        ("application/json, text/csv", "", False),
        ("application/json;q=0.5, text/csv", "", True),
        ("text/csv;q=0.1, application/json;q=0.2", "", False),
        ("text/csv;q=nonsense, application/xml", "", False),
        ("text/csv", "&format=json", False),
        ("application/json", "&format=csv", True),
    ],
)
async def test_series_is_csv_when_asked_for(accept: str, query: str, csv: bool) -> None:
    """The parameter decides, else the header; whoever says nothing gets JSON."""
    daemon = make_daemon()
    daemon.reader.stored = make_series([1.5])
    async with daemon.client(Accept=accept) as client:
        answer = await client.get(f"/api/v1/runs/ant-ppo/series?signal=policy.kl.k3{query}")
    assert answer.headers["content-type"] == ("text/csv; charset=utf-8" if csv else "application/json")
    assert answer.headers["vary"] == "Accept"


async def test_series_in_an_unknown_format_is_refused() -> None:
    """With the nearest that there is."""
    found = problem_of(await make_daemon().get("/runs/ant-ppo/series?signal=a&format=cvs"))
    assert (found["status"], found["did_you_mean"]) == (400, "csv")


async def test_series_csv_keeps_absent_nan_and_infinity_apart() -> None:
    """An empty cell is not measured; what holds for all points is in the headers."""
    daemon = make_daemon()
    daemon.reader.stored = make_series([0.25, NAN, -INF, 9.0], [0, 0, 0, Status.LEVEL], bucket=64)
    answer = await daemon.get("/runs/ant-ppo/series?signal=policy.kl.k3&format=csv")
    assert answer.text.splitlines() == [
        "update,at,env_steps,low,high,last,measured,nonfinite,status",
        "100,2026-01-31T12:00:00.123Z,,0.25,0.25,0.25,1,0,measured",
        "164,2026-01-31T12:00:01.123Z,0,,,NaN,1,1,measured",
        "228,2026-01-31T12:00:02.123Z,1,,,-Infinity,1,1,measured",
        "292,2026-01-31T12:00:03.123Z,2,,,,0,0,level",
    ]
    said = {name: answer.headers[f"gradwatch-{name}"] for name in ("bucket", "unit", "coverage")}
    assert json.loads(said.pop("coverage")) == {"received": 96, "lost": 2, "share": 96 / 98, "thinned": 0}
    assert said == {"bucket": "64", "unit": "nats"}


async def test_series_end_is_the_last_row_as_it_is() -> None:
    """Not measured is null, and a NaN is one; a range without rows has none."""
    daemon = make_daemon()
    ends = []
    for values, status in (([NAN], [0]), ([3.0], [Status.LEVEL]), ([], [])):
        daemon.reader.stored = make_series(values, status)
        daemon.reader.summaries = [make_summary()]
        end = (await daemon.get("/runs/ant-ppo/series?signal=policy.kl.k3")).json()["end"]
        ends.append(end and (end["value"], end["status"]))
    assert ends == [("NaN", "measured"), (None, "level"), None]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["policy.kl.k3", "grad.norm.mean", "user.zzz"]),
        ("stage=grad", ["grad.norm.mean"]),
        ("status=level", ["grad.norm.mean"]),
        ("stage=policy&status=level", []),
    ],
)
async def test_signals_are_narrowed_and_paged_in_their_order(query: str, names: list[str]) -> None:
    """One by one through the pages gives the same as at once."""
    daemon = make_daemon()
    level = make_summary("grad.norm.mean", status_last=int(Status.LEVEL))
    daemon.reader.summaries = [make_summary("policy.kl.k3"), level, make_summary("user.zzz")]
    at_once = (await daemon.get(f"/runs/ant-ppo/signals?{query}")).json()
    seen, cursor = [], ""
    for _ in range(max(1, len(names))):
        document = (await daemon.get(f"/runs/ant-ppo/signals?{query}&limit=1{cursor}")).json()
        seen += [item["signal"] for item in document["items"]]
        cursor = f"&cursor={document['next']}"
    assert [item["signal"] for item in at_once["items"]] == seen == names
    assert document["next"] is None


@pytest.mark.parametrize("query", ["stage=gard", "status=measurd"])
async def test_signals_word_mistyped_is_refused(query: str) -> None:
    """An empty list would read as nothing is measured."""
    assert problem_of(await make_daemon().get(f"/runs/ant-ppo/signals?{query}"))["did_you_mean"] in ("grad", "measured")


async def test_series_known_but_never_measured_is_shown_with_its_reason() -> None:
    """A signal that is never fed is an answer, not an error."""
    daemon = make_daemon()
    daemon.reader.summaries = [make_summary()]
    daemon.reader.stored = make_series([0.0], [Status.NOT_CALLED])

    document = (await daemon.get("/runs/ant-ppo/series?signal=policy.kl.k3")).json()

    assert (document["last"], document["status"]) == ([None], ["not_called"])


@pytest.mark.parametrize("status", list(Status))
async def test_signals_carry_value_or_reason(status: Status) -> None:
    """For every status of the newest row, with its plain clause."""
    daemon = make_daemon()
    daemon.reader.summaries = [make_summary(status_last=int(status), value_last=NAN if status is Status.MEASURED else None)]

    document = (await daemon.get("/runs/ant-ppo/signals?attempt=1&rank=1")).json()

    models.SignalList.model_validate(document)
    assert daemon.reader.calls == [("signals", "ant-ppo", 1, 1)]
    assert document["coverage"]["lost"] == 2
    assert document["items"] == [
        {
            "signal": "policy.kl.k3",
            "subject": "",
            "stage": "policy",
            "unit": "nats",
            "estimator": SIGNALS["policy.kl.k3"].estimator,
            "window": SIGNALS["policy.kl.k3"].window,
            "sign": SIGNALS["policy.kl.k3"].sign,
            "source": "update",
            "level": "normal",
            "call": "ppo",
            "update_last": 120,
            "value_last": "NaN" if status is Status.MEASURED else None,
            "status": status.name.lower(),
            "reason": STATUS_REASON[status],
            "measured": 90,
            "nonfinite": 1,
        }
    ]


async def test_signals_of_an_older_version_are_shown_with_unknown_meaning() -> None:
    """A stored signal that this version no longer has is data all the same."""
    daemon = make_daemon()
    daemon.reader.summaries = [make_summary("policy.retired")]

    item = (await daemon.get("/runs/ant-ppo/signals")).json()["items"][0]

    assert (item["signal"], item["unit"], item["level"]) == ("policy.retired", "unknown", None)
