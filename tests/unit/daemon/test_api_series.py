"""GET runs/{run}/signals and /series."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch_contracts.columns import STATUS_REASON, Status
from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.api import models
from gradwatch_daemon.records import SignalKey, Stream
from harness.fake_api import make_daemon, make_series, make_summary, problem_of

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
        "rows": 7,
        "coverage": {"received": 96, "lost": 2, "share": 96 / 98},
    }


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
