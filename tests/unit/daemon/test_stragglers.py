"""Which rank keeps the others waiting, and what is said of ranks that are apart."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch_contracts.columns import Column, Kind, RankRule, RowFlag, Schema, Status
from gradwatch_daemon.derive.gathering import Gathering
from gradwatch_daemon.derive.ranks import RankRow, block_of
from gradwatch_daemon.derive.stragglers import Pace
from gradwatch_daemon.records import RowBlock, Stream

SCHEMA = Schema.of(
    [
        Column("sys.phase_ms", Kind.SUM, RankRule.MAX, "rollout"),
        Column("param.norm", Kind.LAST, RankRule.EQUAL),
    ]
)
MS = 1_000_000


def row(rank: int, update: int, t_ms: float, rollout_ms: float | None, norm: float = 3.0) -> RankRow:
    """One rank's update, ended at `t_ms` by its own clock; None for a rollout that was not timed."""
    values = np.array([0.0 if rollout_ms is None else rollout_ms, norm])
    status = np.array([Status.NOT_CALLED if rollout_ms is None else Status.MEASURED, 0], np.uint8)
    return RankRow(rank, SCHEMA, update, int(t_ms * MS), -1, 2, 0, values, status)


def updates(pace: Pace, *rollouts_ms: float | None, spans_ms: tuple[float, ...] = ()) -> str | None:
    """What is said of the second of two updates, which took every rank 1 s or `spans_ms`; clocks are an hour apart."""
    spans = spans_ms or (1000.0,) * len(rollouts_ms)
    pace.step([row(rank, 0, rank * 3.6e6, ms) for rank, ms in enumerate(rollouts_ms)])
    slow = pace.step([row(rank, 1, rank * 3.6e6 + spans[rank], ms) for rank, ms in enumerate(rollouts_ms)])
    return None if slow is None else str(slow)


@pytest.mark.parametrize(
    ("rollouts", "slow"),
    [
        ((300.0, 300.0), None),
        ((300.0, 449.0), None),
        ((300.0, 450.0), 1),
        ((450.0, 300.0, 290.0, 310.0), 0),
        ((20.0, 60.0), None),  # three times as long, and 4 % of the update
        ((200.0, 299.0), None),
        ((0.0, 100.0), 1),
    ],
)
def test_slow_rank_is_one_whose_rollout_is_half_as_long_again_and_costs_a_tenth(
    rollouts: tuple[float, ...], slow: int | None
) -> None:
    """Below, at and above both bounds; all updates take one second, as ranks wait for each other."""
    said = updates(Pace(), *rollouts)
    assert (said is None) == (slow is None)
    assert said is None or said.startswith(f"rank {slow} keeps the others waiting: its rollout took")


def test_slow_rank_without_timed_rollouts_is_told_by_its_own_updates() -> None:
    """Ranks that do not wait for each other; where one rank times its rollout and the other does not, likewise."""
    said = updates(Pace(), None, None, spans_ms=(1000.0, 1600.0))
    assert said == "rank 1 keeps the others waiting: its update took 1600 ms, theirs 1000 ms"
    assert updates(Pace(), 900.0, None, spans_ms=(1000.0, 1000.0)) is None


def test_slow_rank_is_not_judged_where_an_update_of_a_rank_was_not_seen() -> None:
    """The first update, one rank alone, and a rank that comes back after a gap."""
    pace = Pace()
    assert pace.step([row(0, 0, 0, 10.0), row(1, 0, 0, 900.0)]) is None
    assert pace.step([row(0, 1, 1000, 10.0)]) is None
    assert pace.step([row(0, 2, 2000, 10.0), row(1, 2, 2000, 900.0)]) is None
    assert pace.step([row(0, 3, 3000, 10.0), row(1, 3, 3000, 900.0)]) is not None


def put(gathering: Gathering, one: RankRow) -> None:
    """A row as it came."""
    block = block_of([one], "ant-ppo", 1)
    columns = (block.update, block.t_ns, block.env_steps, block.level, block.flags, block.values, block.status)
    gathering.put(RowBlock(Stream("ant-ppo", 1, one.rank), "s", (0, 0), block.schema, *columns))


def test_gathering_flags_and_names_ranks_that_are_apart() -> None:
    """Slow, then different, then gone; over a restart in between."""
    gathering = Gathering("ant-ppo", 1, 3)
    for update in range(3):
        gathering = Gathering.load("ant-ppo", 1, gathering.dump())
        for rank in range(3):
            if (update, rank) != (2, 2):
                put(gathering, row(rank, update, 1000 * update, 900.0 if rank == 1 else 10.0, norm=3.0 + (update == 1) * rank))
        if update == 2:
            gathering.leave(2)
        (block,) = gathering.take()
        expected = {
            0: (0, {}),
            1: (
                RowFlag.RANKS_DIFFER | RowFlag.RANK_SLOW,
                {
                    1: "ranks differ in param.norm, which must be equal; "
                    "rank 1 keeps the others waiting: its rollout took 900 ms, theirs 10 ms"
                },
            ),
            2: (
                RowFlag.RANKS_MISSING | RowFlag.RANK_SLOW,
                {2: "rank 2 is missing; rank 1 keeps the others waiting: its rollout took 900 ms, theirs 10 ms"},
            ),
        }[update]
        assert (int(block.flags[0]), gathering.apart) == expected


def test_gathering_of_many_missing_ranks_names_some() -> None:
    """A sentence stays one."""
    gathering = Gathering("ant-ppo", 1, 100)
    for rank in range(1, 100):
        gathering.leave(rank)
    put(gathering, row(0, 0, 0, 10.0))
    gathering.take()
    assert gathering.apart == {0: "ranks 1, 2, 3, 4, 5, 6, 7, 8 and 91 more are missing"}
