"""GET runs/{run}/chart: several signals over one axis."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch_contracts.columns import Status
from gradwatch_daemon.api import chart_models as models
from gradwatch_daemon.api.axis import on_one_axis
from gradwatch_daemon.records import SignalKey
from gradwatch_daemon.store.protocol import Series
from harness.fake_api import make_daemon, problem_of
from harness.fake_records import make_series, make_summary

NAN, INF = float("nan"), float("inf")


def _points(name: str, updates: list[int], values: list[float], bucket: int = 1) -> Series:
    n = len(updates)
    finite = np.isfinite(values)
    return Series(
        key=SignalKey(name, ""),
        bucket=bucket,
        update=np.array(updates, np.int64),
        t_ns=np.array(updates, np.int64) * 1_000_000_000,
        env_steps=np.array(updates, np.int64) * 100,
        low=np.where(finite, values, np.nan),
        high=np.where(finite, values, np.nan),
        last=np.array(values, np.float64),
        measured=np.full(n, bucket, np.int64),
        nonfinite=(~finite).astype(np.int64),
        status=np.zeros(n, np.uint8),
        rows=n * bucket,
    )


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("signals=", "expected 1 to 24"),
        ("signals=" + ",".join(f"user/s{i}" for i in range(25)), "names 25 signals"),
        ("signals=policy.kl.k3&from=9&to=3", "is after `to`"),
        ("", "required"),
    ],
)
async def test_chart_with_a_wrong_parameter_names_it(query: str, said: str) -> None:
    """None, too many, or an empty stretch."""
    found = problem_of(await make_daemon().get(f"/runs/ant-ppo/chart?{query}"))

    assert found["code"] == "invalid-parameter"
    assert said in str(found["errors"])


async def test_chart_of_a_name_that_nobody_has_names_the_nearest() -> None:
    """A mistyped name is refused; a signal that gradwatch knows and this run never sent is listed as absent."""
    daemon = make_daemon()
    daemon.reader.summaries = [make_summary("policy.kl.k3")]

    refused = problem_of(await daemon.get("/runs/ant-ppo/chart?signals=policy.kl.k33"))
    answer = (await daemon.get("/runs/ant-ppo/chart?signals=rnn.h.rms,policy.entropy.norm/arm")).json()

    assert (refused["code"], refused["did_you_mean"]) == ("signal-not-found", "policy.kl.k3")
    assert (answer["series"], answer["absent"]) == ([], ["rnn.h.rms", "policy.entropy.norm/arm"])


async def test_chart_answers_every_field_of_each_signal_in_the_order_asked_for() -> None:
    """NaN is a word, what was not measured is null, and both have their place on the one axis."""
    daemon = make_daemon()
    daemon.reader.stored = make_series([0.5, NAN, INF])

    answer = await daemon.get("/runs/ant-ppo/chart?signals=policy.kl.k3,grad.norm.mean,policy.entropy.norm/a/b&from=1&to=9")
    document = answer.json()

    models.ChartAnswer.model_validate(document)
    assert [(one["signal"], one["subject"]) for one in document["series"]] == [
        ("policy.kl.k3", ""),
        ("grad.norm.mean", ""),
        ("policy.entropy.norm", "a/b"),
    ]
    assert document["series"][0]["last"] == [0.5, "NaN", "Infinity"]
    assert document["series"][0]["low"] is None
    assert document["series"][0]["unit"] == "nats"
    assert len(document["update"]) == len(document["at"]) == len(document["env_steps"]) == 3
    asked = [call for call in daemon.reader.calls if call[0] == "series"]
    assert [(call[3], call[4], call[5]) for call in asked] == [(1, 9, 800)] * 3


async def test_chart_of_the_running_attempt_stops_at_the_newest_known_update() -> None:
    """Rows that are committed while signals are read one after another must not make them differ."""
    daemon = make_daemon()
    daemon.reader.stored = make_series([0.5])

    await daemon.get("/runs/ant-ppo/chart?signals=policy.kl.k3")

    assert next(call for call in daemon.reader.calls if call[0] == "series")[4] == 120


def test_series_of_one_axis_stay_as_they_are() -> None:
    """The ordinary case: every row has every signal."""
    axis, lines = on_one_axis([_points("a", [0, 1, 2], [1.0, NAN, 3.0]), _points("b", [0, 1, 2], [4.0, 5.0, INF])])

    assert (axis.update, axis.env_steps, axis.bucket) == ([0, 1, 2], [0, 100, 200], 1)
    assert lines[1].last == [4.0, 5.0, INF]
    assert lines[0].nonfinite == [0, 1, 0]


def test_series_that_began_later_are_not_measured_before() -> None:
    """A signal that the trainer sends from update 2 on has no value at 0 and 1, and loses none of its own."""
    axis, lines = on_one_axis([_points("late", [2, 3], [7.0, NAN]), _points("all", [0, 1, 2, 3], [1.0, 2.0, 3.0, 4.0])])

    assert axis.update == [0, 1, 2, 3]
    assert (lines[0].measured, lines[0].status[0]) == ([0, 0, 1, 1], Status.NOT_CALLED)
    assert lines[0].last[2] == 7.0
    assert (lines[0].nonfinite, lines[1].last) == ([0, 0, 0, 1], [1.0, 2.0, 3.0, 4.0])


def test_series_of_finer_buckets_keep_their_extremes_and_what_lies_outside() -> None:
    """Points that fall into one bucket become its low, high and last; those before the axis get a place of their own."""
    coarse = _points("coarse", [64, 96], [1.0, 2.0], bucket=32)
    fine = _points("fine", [32, 48, 64, 80, 96], [9.0, 8.0, 5.0, -3.0, NAN], bucket=16)

    axis, lines = on_one_axis([fine, coarse])

    assert (axis.update, axis.bucket) == ([32, 48, 64, 96], 32)
    assert (lines[0].low[2], lines[0].high[2], lines[0].last[2], lines[0].measured[2]) == (-3.0, 5.0, -3.0, 32)
    assert lines[0].nonfinite == [0, 0, 0, 1]
    assert lines[1].measured == [0, 0, 32, 32]
