"""Random kill -9 of daemon and trainers under load: a checker that is no part of the product compares what is left."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from harness.crashes import Campaign, Life, check, run_campaign

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 12


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.promise("committed", "same-transaction", "in-order", "loss-told", "loss-closes", "spool-next", "spool-full")
def test_random_kills_leave_every_acked_record_once_and_every_other_told(tmp_path: Path, seed: int) -> None:
    """24 kills in all; `make torture` does 200."""
    verdict, _ = run_campaign(tmp_path, seed, KILLS)

    assert verdict.violations == []
    assert verdict.counts["stored"] > 0
    assert verdict.counts["acked"] > 0


@pytest.mark.promise("term-drains", "committed")
def test_sigterm_under_load_ends_the_daemon_with_all_it_acked(tmp_path: Path) -> None:
    """Exit code 0, and the next one goes on where it was."""
    with Campaign(tmp_path, 1) as campaign:
        for _ in range(2):
            assert campaign.daemon.stop() == 0
            campaign.daemon.start()
        campaign.settle()
    verdict = check(tmp_path)

    assert verdict.violations == []
    assert verdict.counts["acked"] > 0


@pytest.mark.campaign
@pytest.mark.timeout(300)
def test_checker_sees_what_is_planted(tmp_path: Path) -> None:
    """The checker can fail: a row less, a loss less, a diary that knows more."""
    with Campaign(tmp_path, 2) as campaign:
        campaign.strike(3)
        campaign.settle()
    assert check(tmp_path).violations == []
    diary = next(path for path in tmp_path.glob("*roomy*.diary") if (life := Life.of(path)) and life.acked > 10)
    diary.write_text(diary.read_text() + "p 999999\na 999999\n")
    assert any("neither stored nor told as lost" in what for what in check(tmp_path).violations)
    with sqlite3.connect(tmp_path / "data/gradwatch.db") as db:
        db.execute("DELETE FROM tail WHERE id = (SELECT min(id) FROM tail)")
    db.close()
    assert len(check(tmp_path).violations) > 1
