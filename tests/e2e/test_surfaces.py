"""What a running daemon shows: /metrics, status, doctor and explain, over a trainer that passes next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

from harness import small_agent
from harness.command_line import CommandLine
from harness.daemon_process import DaemonProcess, python, wait_for
from harness.prometheus import read_exposition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.prometheus import ReadFamily

RUN = "ant-ppo"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with one live run that sends its update time and a scalar of its own."""
    home = tmp_path_factory.mktemp("surfaces")
    with DaemonProcess(home) as process:
        trainer = python(process, small_agent.__file__, RUN, "5000", "10", str(home / "truth.jsonl"))
        wait_for(lambda: ((process.run(RUN) or {}).get("update_last") or 0) > 3, "the first updates")
        yield process
        trainer.terminate()
        trainer.wait(10)


def _cli(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gradwatch_daemon.cli.main", *arguments],
        env=daemon.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _scrape(daemon: DaemonProcess) -> dict[str, ReadFamily]:
    url = f"{daemon.connection.url}/metrics"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {daemon.token}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return read_exposition(response.read().decode())


def test_doctor_of_a_run_without_its_calls_names_every_blind_detector_with_its_line(daemon: DaemonProcess) -> None:
    """The line is a field of its own over HTTP, and what the doctor says to add."""
    blind = [one for one in daemon.run(RUN)["standings"] if one["state"] == "blind"]
    done = _cli(daemon, "doctor", RUN, "--json")
    found = json.loads(done.stdout)["ailments"]

    assert done.returncode == 10
    assert blind
    watch_all = {"telemetry_frozen", "telemetry_gap"}  # any call would do: they have no line of their own, but a reason
    assert {one["kind"] for one in blind if not one["add"]} == watch_all
    steps = {f"In the trainer: {one['add']}" for one in blind if one["add"]}
    assert {a["next_step"] for a in found if a["code"] == "blind"} == {*steps, ""}
    assert all(one["reason"] for one in blind)
    assert {ailment["code"] for ailment in found} <= {"blind", "sqlite-wal-reset", "disk-full"}


def test_metrics_of_a_live_run_move_and_show_what_it_measured(daemon: DaemonProcess) -> None:
    """Counters grow, the headline that the trainer feeds is there in seconds, the others are absent."""
    before = _scrape(daemon)
    seen = max(before["gradwatch_run_rows_total"].value(run=RUN), before["gradwatch_rows_total"].value())
    # What was received is counted before what is shown of a run: of one scrape the two may be a row apart.
    wait_for(lambda: _scrape(daemon)["gradwatch_run_rows_total"].value(run=RUN) > seen, "more rows")
    found = _scrape(daemon)

    assert found["gradwatch_ready"].value() == 1
    assert found["gradwatch_run_live"].value(run=RUN) == 1
    assert found["gradwatch_rows_total"].value() > before["gradwatch_rows_total"].value()
    update = found["gradwatch_run_update"].value(run=RUN)
    # The small agent sends the number of the update as its time in ms.
    assert found["gradwatch_run_update_seconds"].value(run=RUN) == pytest.approx(update / 1000, abs=1e-3)
    assert found["gradwatch_run_kl_nats"].samples == {}


def test_status_of_a_ready_daemon_exits_0_with_a_line_for_the_run(daemon: DaemonProcess) -> None:
    """The daemon, its health, the run."""
    done = _cli(daemon, "status")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith(": ready")
    assert done.stdout.splitlines()[2].startswith(RUN)


def test_explain_of_every_kind_says_meaning_and_source(
    daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each entry of the catalogue arrives with every field, from its file to the command line."""
    gradwatch = CommandLine(monkeypatch, capsys, daemon.runtime_dir)
    for item in daemon.get("/api/v1/detectors")["items"]:
        document = json.loads(gradwatch("explain", item["kind"], "--json").out)
        assert document == {"profile": "default", "detector": item, "anomaly": None, "moment": []}
        assert [name for name in ("meaning", "source", "formula", "fails_when", "try", "votes") if not item[name]] == []
