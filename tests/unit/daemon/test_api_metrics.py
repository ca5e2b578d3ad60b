"""/metrics: a page that a strict parser takes, bounded, and without a number for what was not measured."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import pytest

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import SIGNALS, Unit
from gradwatch_daemon.api.exposition import Family, expose
from gradwatch_daemon.api.metrics import HEADLINES, RUNS_MAX
from gradwatch_daemon.records import DetectorState
from harness.fake_api import FakeDaemon, make_daemon
from harness.fake_records import T0_NS, make_anomaly, make_newest, make_run, make_view
from harness.prometheus import ReadFamily, read_exposition

if TYPE_CHECKING:
    from gradwatch_daemon.records import RunView


async def _page(daemon: FakeDaemon) -> str:
    async with daemon.client() as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return answer.text


async def _families(*views: RunView, **changes: Any) -> dict[str, ReadFamily]:
    return read_exposition(await _page(make_daemon({view.run.run: view for view in views}, **changes)))


@pytest.mark.parametrize(
    "bad",
    [
        "a 1\n",
        "# HELP a x\n# TYPE a gauge\na 1",
        "# TYPE a gauge\na 1\n",
        "# HELP a x\n# TYPE a gauge\nb 1\n",
        "# HELP a x\n# TYPE a gauge\na 1\na 1\n",
        '# HELP a x\n# TYPE a gauge\na{l="\\x"} 1\n',
        '# HELP a x\n# TYPE a gauge\na{l="x",} 1\n',
        "# HELP a x\n# TYPE a gauge\na inf\n",
        "# HELP a x\n# TYPE a gauge\n\n",
    ],
)
def test_strict_reader_refuses_what_the_format_does_not_allow(bad: str) -> None:
    """The reader that judges the page can say no."""
    with pytest.raises(ValueError, match=r".+"):
        read_exposition(bad)


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", '\\n"', "", "größe", "{}=,"])
def test_exposition_label_and_help_of_any_text_come_back(text: str) -> None:
    """A quote or a line break in a name must not become another sample."""
    family = Family("x_total", "counter", f"Help {text}.")
    family.add(1, name=text, other="y")

    read = read_exposition(expose([family]))["x_total"]

    assert read.value(name=text, other="y") == 1
    assert read.help == f"Help {text}.".replace("\\", r"\\").replace("\n", r"\n")


@pytest.mark.parametrize("value", [0, 1, True, 2**60, 0.1, -1e-300, 1e300, 5e-324, math.inf, -math.inf, math.nan])
def test_exposition_number_comes_back_as_it_was(value: float) -> None:
    """To the last bit; NaN and infinities in Prometheus' own spelling."""
    family = Family("x", "gauge", "Help.")
    family.add(value)

    (read,) = read_exposition(expose([family]))["x"].samples.values()

    assert read == value or (math.isnan(read) and math.isnan(value))


def test_exposition_of_none_has_no_sample() -> None:
    """Not measured is absent, never 0."""
    family = Family("x", "gauge", "Help.")
    family.add(None)

    assert read_exposition(expose([family]))["x"].samples == {}


async def test_metrics_before_any_run_show_the_daemon() -> None:
    """Every figure of its health, each with its own value."""
    daemon = make_daemon({}, profile="classic")
    daemon.reasons.append("the store cannot be written")

    found = read_exposition(await _page(daemon))

    assert found["gradwatch_build_info"].value(version="1.2.3", protocol="1", profile="classic", sqlite="3.40.1") == 1
    assert {name: found[name].value() for name in found if list(found[name].samples) == [()]} == {
        "gradwatch_start_time_seconds": T0_NS / 1e9,
        "gradwatch_ready": 0,
        "gradwatch_frames_total": 77,
        "gradwatch_rows_total": 66,
        "gradwatch_quarantines_total": 2,
        "gradwatch_commits_total": 55,
        "gradwatch_commit_failures_total": 4,
        "gradwatch_data_free_bytes": 3_000_000_000,
        "gradwatch_data_size_bytes": 9_000_000_000,
        "gradwatch_streams": 0,
        "gradwatch_runs_suppressed": 0,
    }
    assert found["gradwatch_frames_refused_total"].value(code="frame-crc") == 3
    assert found["gradwatch_frames_refused_total"].value(code="secret-wrong") == 1
    assert found["gradwatch_runs"].value(state="live") == 0


@pytest.mark.promise("coverage")
async def test_metrics_of_a_run_show_every_figure() -> None:
    """Round trip of a snapshot, each figure with its own value."""
    anomalies = (make_anomaly(), make_anomaly(id="a2"), make_anomaly(id="a3", severity=Severity.INFO))
    view = make_view(open_anomalies=anomalies, detectors=(*make_view().detectors, DetectorState("k", "", "learning", "")))

    found = await _families(view)

    figures = {
        name: family.value(run="ant-ppo")
        for name, family in found.items()
        if name.startswith("gradwatch_run_") and (("run", "ant-ppo"),) in family.samples
    }
    assert figures == {
        "gradwatch_run_live": 1,
        "gradwatch_run_sessions": 2,
        "gradwatch_run_update": 120,
        "gradwatch_run_updates_planned": 500,
        "gradwatch_run_last_seen_timestamp_seconds": (T0_NS + 9_000_000_000) / 1e9,
        "gradwatch_run_rows_total": 96,
        "gradwatch_run_lost_records_total": 2,
        "gradwatch_run_thinned_rows": 0,
        "gradwatch_run_coverage_ratio": 96 / 98,
        "gradwatch_run_level": 3,
    }
    counts = {severity.value: 0 for severity in Severity} | {"critical": 2, "info": 1}
    for severity, count in counts.items():
        assert found["gradwatch_run_anomalies_open"].value(run="ant-ppo", severity=severity) == count
    for state, count in {"armed": 4, "learning": 1, "blind": 3, "firing": 1}.items():
        assert found["gradwatch_run_detectors"].value(run="ant-ppo", state=state) == count


async def test_metrics_of_a_run_without_numbers_have_no_samples_of_them() -> None:
    """No update, no level, no total, nothing received: each is absent, and not 0."""
    view = make_view(make_run(updates_total=None), update_last=None, effective=None, rows=0, lost=0)

    found = await _families(view)

    for name in (
        "update",
        "updates_planned",
        "coverage_ratio",
        "level",
        *(h.name.removeprefix("gradwatch_run_") for h in HEADLINES),
    ):
        assert found[f"gradwatch_run_{name}"].samples == {}, name


@pytest.mark.parametrize("headline", HEADLINES, ids=lambda headline: headline.name)
async def test_metrics_headline_shows_the_newest_value_in_base_units(headline: Any) -> None:
    """Scaled from the registry's unit; missing where it was not measured."""
    measured = await _families(make_view(newest=make_newest({headline.signal: 2.5, "user/x": 7})))
    missing = await _families(make_view(newest=make_newest({}, missing=[headline.signal])))

    assert measured[headline.name].value(run="ant-ppo") == pytest.approx(2.5 * headline.scale)
    assert headline.signal in measured[headline.name].help
    assert missing[headline.name].samples == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
async def test_metrics_headline_that_is_not_finite_is_shown_so(value: float) -> None:
    """Measured and not finite is a sample."""
    read = (await _families(make_view(newest=make_newest({"loss.total": value}))))["gradwatch_run_loss"].value(run="ant-ppo")

    assert read == value or (math.isnan(read) and math.isnan(value))


@pytest.mark.parametrize(
    ("values", "least"), [((0.7, 0.2, 0.4), 0.2), ((0.7, math.nan, 0.4), math.nan), ((math.inf, 0.4), 0.4)]
)
async def test_metrics_headline_of_several_heads_is_the_worst(values: tuple[float, ...], least: float) -> None:
    """One sample whatever the policy has of heads; a NaN in one of them is not hidden by another."""
    newest = make_newest({f"policy.entropy.norm/{head}": value for head, value in enumerate(values)})

    read = (await _families(make_view(newest=newest)))["gradwatch_run_entropy_ratio"].value(run="ant-ppo")

    assert read == pytest.approx(least, nan_ok=True)


async def test_metrics_of_more_runs_than_the_cap_show_live_and_new_ones_and_count_the_rest() -> None:
    """Bounded, and what is left out is said; finished runs are counted by state only."""
    views = [make_view(make_run(f"r{i:03}", last_seen_ns=T0_NS + i)) for i in range(RUNS_MAX)]
    lost = [make_view(make_run(f"lost{i}", state="lost", last_seen_ns=T0_NS * 2), live=False) for i in range(3)]
    ended = make_view(make_run("ended", state="finished", last_seen_ns=T0_NS * 2), live=False)

    some = await _families(*views[1:], *lost, ended)
    many = await _families(*views, *lost, ended)

    assert len(some["gradwatch_run_live"].samples) == len(many["gradwatch_run_live"].samples) == RUNS_MAX
    assert some["gradwatch_run_live"].value(run="lost2") == 0
    assert some["gradwatch_runs_suppressed"].value() == 2
    assert many["gradwatch_runs_suppressed"].value() == 3
    assert {labels[0][1] for labels in many["gradwatch_run_live"].samples} == {view.run.run for view in views}
    assert many["gradwatch_runs"].value(state="finished") == 1


async def test_metrics_names_follow_the_conventions() -> None:
    """snake_case with our prefix, `_total` for counters and for nothing else, base units, a HELP that is a sentence."""
    found = await _families(make_view())

    for name, family in found.items():
        assert re.fullmatch(r"gradwatch(_[a-z0-9]+)+", name), name
        assert (family.kind == "counter") == name.endswith("_total"), name
        assert not re.search(r"_(ms|milliseconds|percent|kb|mb)\b", name), name
        assert family.help.endswith("."), name
    for headline in HEADLINES:
        milliseconds = SIGNALS[headline.signal].unit is Unit.MILLISECONDS
        assert headline.name.endswith("_seconds") == milliseconds == (headline.scale == 1e-3)
