"""Random kill -9 of daemon and trainers under load: a checker that is no part of the product compares what is left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from gradwatch_daemon.records import Commit, LossRecord, Session, SignalKey, Stream
from gradwatch_daemon.store.sqlite import SqliteStore
from harness.crash_trainer import noise
from harness.crashes import Campaign, check, run_campaign
from harness.signal_blocks import make_block
from harness.stores import RUN

if TYPE_CHECKING:
    from collections.abc import Sequence
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


def leave(
    home: Path,
    *,
    rows: Sequence[int] = (0, 1, 2, 3, 4, 7, 8, 9),
    other: int = -1,
    losses: Sequence[tuple[int, int]] = ((5, 6),),
    last_seq: int = 9,
    diary: str = "p 9\na 9\nd 6\n",
    session: str = "s1",
) -> None:
    """What a life of ten records leaves, of which two were lost: in the store and in its diary; row `other` has a number that
    it was not given."""
    stream = Stream("crash-roomy", 1, 0)
    values = [[noise("s1", update) + (update == other) for update in rows]]
    block = make_block(rows, stream=stream, signals=(SignalKey("user", "noise"),), values=np.array(values, np.float32))
    store = SqliteStore.open(home / "data")
    store.commit(
        Commit(
            blocks=(block,),
            runs=(replace(RUN, run=stream.run),),
            sessions=(Session("s1", stream, "launch", last_seq, "host", 1),),
            losses=tuple(LossRecord(stream, "s1", first, last, "spool full") for first, last in losses),
        )
    )
    store.close()
    (home / "crash-roomy.1.diary").write_text(f"s {session}\n{diary}")


@pytest.mark.parametrize(
    ("planted", "blamed"),
    [
        ({"rows": (0, 1, 2, 4, 7, 8, 9)}, "neither stored nor told as lost: 1, first [3]"),
        ({"losses": ()}, "neither stored nor told as lost: 2, first [5, 6]"),
        ({"last_seq": 11}, "neither stored nor told as lost: 2, first [10, 11]"),
        ({"diary": "p 11\na 11\n"}, "neither stored nor told as lost: 2, first [10, 11]"),
        ({"diary": "p 11\na 9\nd 11\n"}, "neither stored nor told as lost: 2, first [10, 11]"),
        ({"rows": (0, 1, 2, 3, 3, 4, 7, 8, 9)}, "rows twice or out of order"),
        ({"rows": (0, 1, 3, 2, 4, 7, 8, 9)}, "rows twice or out of order"),
        ({"other": 3}, "a row with another number than it was given"),
        ({"losses": ((5, 6), (6, 6))}, "told as lost twice: [6]"),
        ({"losses": ((4, 6),)}, "stored and told as lost: [4]"),
        ({"diary": "p 8\na 8\n"}, "records that were never put"),
        ({"session": "s2"}, "acked or spooled, and unknown to the store"),
    ],
)
def test_checker_blames_what_is_planted_and_nothing_else(tmp_path: Path, planted: dict[str, Any], blamed: str) -> None:
    """One thing wrong at a time: a checker that finds nothing must mean that nothing is wrong."""
    leave(tmp_path / "whole")
    assert check(tmp_path / "whole").violations == []
    leave(tmp_path / "planted", **planted)
    (violation,) = check(tmp_path / "planted").violations
    assert blamed in violation
