"""Who is waited for, how long, and what becomes of rows that come too late."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch_contracts.columns import Column, Kind, RankRule, RowFlag, Schema
from gradwatch_daemon.derive.gathering import PATIENCE_UPDATES, Gathering
from gradwatch_daemon.records import ALL_RANKS, RowBlock, Stream

SCHEMA = Schema.of([Column("n", Kind.COUNT, RankRule.SUM)])


def _block(rank: int, *updates: int) -> RowBlock:
    wide = [np.array(updates, np.int64)] * 3
    narrow = [np.full(len(updates), 2, np.uint8), np.zeros(len(updates), np.uint8)]
    values, status = np.ones((len(updates), 1)), np.zeros((len(updates), 1), np.uint8)
    return RowBlock(Stream("r", 3, rank), "s", (0, len(updates) - 1), SCHEMA, *wide, *narrow, values, status)


def _taken(gathering: Gathering) -> list[tuple[int, float, int]]:
    """(update, ranks in it, flags) of what is due."""
    blocks = gathering.take()
    assert {block.stream for block in blocks} <= {Stream("r", 3, ALL_RANKS)}
    return [
        (int(block.update[i]), float(block.values[i, 0]), int(block.flags[i]))
        for block in blocks
        for i in range(len(block.update))
    ]


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x01"])
def test_load_of_other_bytes_is_an_error(data: bytes) -> None:
    """A damaged store must not become a guess."""
    with pytest.raises((ValueError, TypeError)):
        Gathering.load("r", 3, data)


def test_update_waits_for_every_rank_and_goes_when_the_last_came() -> None:
    """In order of updates, whatever the order of ranks."""
    gathering = Gathering("r", 3, 3)
    gathering.put(_block(2, 0, 1))
    gathering.put(_block(0, 0, 1))
    assert _taken(gathering) == []
    gathering.put(_block(1, 0))
    assert _taken(gathering) == [(0, 3.0, 0)]
    gathering.put(_block(1, 1))
    assert _taken(gathering) == [(1, 3.0, 0)]


def test_update_goes_without_a_rank_that_is_eight_behind_flagged_then_does_not_wait_for_it() -> None:
    """One update before the patience ends nothing goes; afterwards the others are not held up again."""
    gathering = Gathering("r", 3, 2)
    gathering.put(_block(0, *range(PATIENCE_UPDATES)))
    assert _taken(gathering) == []
    gathering.put(_block(0, PATIENCE_UPDATES))
    assert _taken(gathering) == [(update, 1.0, RowFlag.RANKS_MISSING) for update in range(PATIENCE_UPDATES + 1)]
    gathering.put(_block(0, PATIENCE_UPDATES + 1))
    assert _taken(gathering) == [(PATIENCE_UPDATES + 1, 1.0, RowFlag.RANKS_MISSING)]


def test_rank_that_comes_back_is_waited_for_again_and_its_late_rows_are_counted() -> None:
    """What was combined stays as it was."""
    gathering = Gathering("r", 3, 2)
    gathering.put(_block(0, *range(PATIENCE_UPDATES + 1)))
    _taken(gathering)
    gathering.put(_block(1, 3, 4, PATIENCE_UPDATES + 1))
    assert gathering.late == 2
    assert _taken(gathering) == []
    gathering.put(_block(0, PATIENCE_UPDATES + 1))
    assert _taken(gathering) == [(PATIENCE_UPDATES + 1, 2.0, 0)]


def test_rank_that_left_is_not_waited_for() -> None:
    """The last updates of a run are combined when its ranks say goodbye one after the other."""
    gathering = Gathering("r", 3, 2)
    gathering.put(_block(0, 0, 1))
    gathering.put(_block(1, 0))
    assert _taken(gathering) == [(0, 2.0, 0)]
    gathering.leave(1)
    assert _taken(gathering) == [(1, 1.0, RowFlag.RANKS_MISSING)]
    assert gathering.waiting == 0


def test_world_that_no_memory_holds_is_not_waited_for() -> None:
    """A HELLO may claim any number of ranks."""
    gathering = Gathering("r", 3, 10**18)
    gathering.put(_block(0, *range(PATIENCE_UPDATES + 1)))
    assert len(_taken(gathering)) == PATIENCE_UPDATES + 1
    assert len(gathering.dump()) < 10_000


def test_rows_that_cannot_be_combined_are_counted_and_the_next_ones_go_on() -> None:
    """A peer may send a schema with nothing to combine, or counts that cancel out; the daemon lives."""
    gathering = Gathering("r", 3, 2)
    own = Schema.of([Column("own", Kind.LAST, RankRule.NONE)])
    gathering.put(replace(_block(0, 0), schema=own))
    gathering.put(replace(_block(1, 0), schema=own))
    moments = Schema.of([Column("m", Kind.MOMENTS, RankRule.MERGE)])
    for rank, count in ((0, 1.0), (1, -1.0)):
        gathering.put(replace(_block(rank, 1), schema=moments, values=np.array([[count, 0.0, 0.0]])))
    gathering.put(_block(0, 2))
    gathering.put(_block(1, 2))

    assert _taken(gathering) == [(2, 2.0, 0)]
    assert gathering.failed == 2


def test_run_that_resumes_late_begins_where_its_first_rank_does() -> None:
    """There is nothing to wait for before it."""
    gathering = Gathering("r", 3, 2)
    gathering.put(_block(1, 300))
    gathering.put(_block(0, 300))
    assert _taken(gathering) == [(300, 2.0, 0)]
