"""What `doctor` makes of the API's documents: each mistake found, and nothing found in a run without any."""

from __future__ import annotations

from typing import Any

import pytest

from gradwatch_contracts import __version__
from gradwatch_daemon.cli.ailments import GIB, check_daemon, check_run, has_wal_reset_bug
from harness import api_documents as documents

WHOLE: dict[str, Any] = {"losses": [], "standings": []}


def _of_daemon(**changes: Any) -> list[tuple[str, bool]]:
    return [(ailment.code, ailment.grave) for ailment in check_daemon(documents.daemon(**changes), __version__)]


def _of_run(**changes: Any) -> list[str]:
    return [ailment.code for ailment in check_run(documents.run_detail(**{**WHOLE, **changes}), documents.daemon())]


def _disk(free_gib: float, size_gib: float) -> dict[str, Any]:
    return {"path": "/d", "free_bytes": int(free_gib * GIB), "size_bytes": int(size_gib * GIB)}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ready": False, "trouble": ["the store cannot be written"]}, "not-ready"),
        ({"version": "0.0.1"}, "version-differs"),
        ({"data_dir": _disk(0.9, 8)}, "disk-full"),
        ({"data_dir": _disk(4.9, 100)}, "disk-full"),
        ({"data_dir": _disk(9.9, 10_000)}, "disk-full"),
        ({"refused": {"secret-wrong": 1}}, "agent-refused"),
        ({"refused": {"protocol-unsupported": 1}}, "agent-refused"),
        ({"quarantines": 1, "refused": {"frame-crc": 8}}, "quarantine"),
        ({"commit_failures": 1}, "commit-failed"),
    ],
)
def test_daemon_with_a_mistake_is_found(changes: dict[str, Any], code: str) -> None:
    """One finding, a grave one."""
    assert _of_daemon(**changes) == [(code, True)]


def test_daemon_with_an_affected_sqlite_is_a_note_only() -> None:
    """One writing and checkpointing connection is not exposed to the bug."""
    assert _of_daemon(sqlite="3.40.1") == [("sqlite-wal-reset", False)]


@pytest.mark.parametrize("disk", [_disk(1.1, 8), _disk(5.1, 100), _disk(10.1, 10_000)])
def test_daemon_without_a_mistake_has_none(disk: dict[str, Any]) -> None:
    """Room enough is a GiB, then a twentieth, and never more than ten."""
    assert _of_daemon(data_dir=disk, refused={"gap": 3}) == []


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        *(("3.6.23", False), ("3.7.0", True), ("3.40.1", True), ("3.44.5", True), ("3.44.6", False), ("3.45.0", True)),
        *(("3.50.6", True), ("3.50.7", False), ("3.51.2", True), ("3.51.3", False), ("3.53", False)),
    ],
)
def test_wal_reset_bug_is_in_these_releases(version: str, affected: bool) -> None:
    """3.7.0 to 3.51.2, but for the back-ports 3.44.6 and 3.50.7."""
    assert has_wal_reset_bug(version) is affected


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"state": "lost", "live": False}, "run-lost"),
        ({"update_last": None}, "no-update"),
        ({"agent_version": "0.0.1"}, "agent-version-differs"),
        ({"row_last": {"made_at": "2026-01-31T12:00:02.001Z", "received_at": "2026-01-31T12:00:00.000Z"}}, "clock-ahead"),
        ({"row_last": {"made_at": "2026-01-31T12:00:00.000Z", "received_at": "2026-01-31T12:00:30.001Z"}}, "rows-late"),
        ({"losses": [{"reason": "outbox full", "records": 2}]}, "lost-records"),
    ],
)
def test_run_with_a_mistake_is_found(changes: dict[str, Any], code: str) -> None:
    """One finding, with the name of the run."""
    (found,) = check_run(documents.run_detail(**{**WHOLE, **changes}), documents.daemon())

    assert (found.code, found.run, found.grave) == (code, "ant-ppo", True)
    assert found.next_step


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"agent_version": "", "row_last": None},
        {"row_last": {"made_at": "2026-01-31T12:00:02.000Z", "received_at": "2026-01-31T12:00:00.000Z"}},
        {"row_last": {"made_at": "2026-01-31T12:00:00.000Z", "received_at": "2026-01-31T12:00:30.000Z"}},
        {"state": "finished", "live": False, "update_last": None},
        {"standings": [{"kind": "a", "subject": "", "state": "learning", "reason": "1 of 50", "add": ""}]},
    ],
)
def test_run_without_a_mistake_has_none(changes: dict[str, Any]) -> None:
    """At each limit, and while detectors learn."""
    assert _of_run(**changes) == []


def test_run_with_blind_detectors_gets_one_finding_for_each_line_to_add() -> None:
    """What one line opens stands together; where no line helps, the reason stands instead."""
    blind = [("a", "", "pass x"), ("b", "arm", "pass x"), ("c", "", "pass y"), ("d", "", "")]
    standings = [
        {"kind": kind, "subject": subject, "state": "blind", "reason": f"why {kind}", "add": add}
        for kind, subject, add in blind
    ]

    first, second, third = check_run(documents.run_detail(**{**WHOLE, "standings": standings}), documents.daemon())

    assert first.what == "ant-ppo: 2 detectors are blind: a, b [arm]."
    assert (first.why, first.next_step) == ("", "In the trainer: pass x")
    assert second.what == "ant-ppo: 1 detector is blind: c."
    assert (third.why, third.next_step) == ("why d", "")
