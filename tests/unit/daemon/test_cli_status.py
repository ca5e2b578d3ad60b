"""`gradwatch status`: the daemon and its live runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from harness import api_documents as documents

if TYPE_CHECKING:
    from harness.command_line import CommandLine
    from harness.daemon_stub import DaemonStub

RUNS = "/api/v1/runs"
SEVERITIES = ("info", "critical", "warning", "info")
DAEMON = "/api/v1/daemon"


def test_status_of_a_daemon_that_is_not_ready_exits_4_with_the_reason(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """It answers, and still cannot do its work."""
    stub.answer("GET", DAEMON, documents.daemon(ready=False, trouble=["store: the disk is full"]))
    stub.answer("GET", RUNS, documents.listed())

    ended = gradwatch("status")
    document = json.loads(gradwatch("status", "--json").out)

    assert ended.code == 4
    assert ended.out.splitlines()[0].endswith(": store: the disk is full")
    assert ended.err == "No run has connected yet.\n"
    assert (document["daemon"]["ready"], document["items"], document["url"]) == (False, [], stub.url)


def test_status_shows_refusals_and_failed_commits(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """What went wrong since the start stays visible when it is over."""
    stub.answer("GET", DAEMON, documents.daemon(refused={"gap": 2, "frame-crc": 1}, commit_failures=5))
    stub.answer("GET", RUNS, documents.listed())

    health = gradwatch("status").out.splitlines()[1]

    assert "3 frames refused" in health
    assert "5 commits failed" in health


def test_status_shows_the_daemon_and_one_line_for_each_live_run(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Ready, what it did, and the sentence of each run that trains; the others are counted, not hidden."""
    ended_run = documents.run_summary(run="old", live=False, state="crashed", sentence="Crashed after update 9.")
    stub.answer("GET", DAEMON, documents.daemon())
    stub.answer("GET", RUNS, documents.listed(documents.run_summary(), ended_run))
    stub.answer("GET", "/api/v1/anomalies", documents.listed())

    ended = gradwatch("status")

    first, health, line = ended.out.splitlines()
    assert ended.code == 0
    assert first == f"gradwatch {documents.daemon()['version']} at {stub.url}: ready"
    assert health == "profile default, since 2026-01-31T12:00:00.000Z, 118 updates in 60 commits, 50.0 GB free"
    assert line.split()[:3] == ["ant-ppo", "live", "debug"]
    assert line.endswith(documents.run_summary()["sentence"])
    assert ended.err == "Not shown: 1 crashed; `gradwatch status --all` shows them.\n"


def test_status_names_the_worst_that_fires_by_ids_that_can_be_typed(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """Three of a run, gravest first, with the beginning of the id that `explain` and `ack` take; the rest are counted."""
    stub.answer("GET", DAEMON, documents.daemon())
    stub.answer("GET", RUNS, documents.listed(documents.run_summary()))
    found = [documents.anomaly(id=f"{digit * 16}", severity=word) for digit, word in zip("abcd", SEVERITIES, strict=True)]
    stub.answer("GET", "/api/v1/anomalies", documents.listed(*found, documents.anomaly(id="e" * 16, run="other")))

    lines = gradwatch("status").out.splitlines()[3:]

    assert [line.split()[0] for line in lines] == ["bbbbbbbb", "cccccccc", "aaaaaaaa", "and"]
    assert lines[0].split()[1:] == ["critical", "ratio_explosion", "since", "117"]
    assert lines[3] == "  and 1 more: gradwatch anomalies ant-ppo"


def test_status_without_a_live_run_says_so(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """An empty list of live runs is not an empty daemon."""
    stub.answer("GET", DAEMON, documents.daemon())
    stub.answer("GET", RUNS, documents.listed(documents.run_summary(live=False, state="lost")))

    assert gradwatch("status").err.startswith("No run is live. Not shown: 1 lost;")


def test_status_all_shows_ended_runs_too(stub: DaemonStub, gradwatch: CommandLine) -> None:
    """On request."""
    stub.answer("GET", DAEMON, documents.daemon())
    stub.answer("GET", RUNS, documents.listed(documents.run_summary(run="old", live=False, state="finished")))
    stub.answer("GET", "/api/v1/anomalies", documents.listed())

    ended = gradwatch("status", "--all")

    assert ended.out.splitlines()[2].split()[:2] == ["old", "finished"]
    assert ended.err == ""
