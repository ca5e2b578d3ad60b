"""Ranks together: the combination of their shares is the reduction of the whole, in whatever order and pieces they come."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gradwatch_contracts.columns import Column, Kind, RankRule, RowFlag, Schema, Status
from gradwatch_daemon.derive.gathering import PATIENCE_UPDATES, Gathering
from gradwatch_daemon.derive.ranks import Combination, RankRow, rows_of
from gradwatch_daemon.records import ALL_RANKS, RowBlock, Stream

SCHEMA = Schema.of(
    [
        Column("moments", Kind.MOMENTS, RankRule.MERGE),
        Column("moments4", Kind.MOMENTS4, RankRule.MERGE),
        Column("total", Kind.SUM, RankRule.SUM),
        Column("count", Kind.COUNT, RankRule.SUM),
        Column("least", Kind.MIN, RankRule.MIN),
        Column("most", Kind.MAX, RankRule.MAX),
        Column("same", Kind.LAST, RankRule.EQUAL),
        Column("first", Kind.LAST, RankRule.RANK0),
        Column("own", Kind.LAST, RankRule.NONE),
    ]
)
KEPT = Schema.of(column for column in SCHEMA.columns if column.rank_rule is not RankRule.NONE)

numbers = st.floats(-1e6, 1e6, allow_nan=False, width=32)
shares = st.lists(st.lists(numbers, min_size=1, max_size=12), min_size=1, max_size=5)


def _moments(values: list[float], order: int) -> list[float]:
    x = np.array(values, np.float64)
    mean = float(x.mean())
    return [float(len(x)), mean, *(float(((x - mean) ** k).sum()) for k in range(2, order + 1))]


def _slots(values: list[float], rank: int) -> list[float]:
    """What a rank sends of its share."""
    total = [float(np.sum(np.array(values, np.float64))), float(len(values))]
    return [*_moments(values, 2), *_moments(values, 4), *total, min(values), max(values), 7.5, float(rank), float(rank)]


def _row(values: list[float], rank: int, update: int = 0, schema: Schema = SCHEMA, **changed: Any) -> RankRow:
    shared = {"t_ns": 1000 * update + rank, "env_steps": 10 * update, "level": 2, "flags": 0, **changed}
    made = np.array(_slots(values, rank))
    return RankRow(rank, schema, update, **shared, values=made, status=np.zeros(len(schema.columns), np.uint8))


def _of(row: RankRow, name: str) -> list[float]:
    place = [column.name for column in row.schema.columns].index(name)
    start = row.schema.offsets[place]
    end = row.schema.offsets[place + 1] if place + 1 < len(row.schema.offsets) else row.schema.slots
    return [float(value) for value in row.values[start:end]]


@given(shares)
def test_combination_of_shares_is_the_reduction_of_the_whole(parts: list[list[float]]) -> None:
    """Against the same reductions of all values in one float64 array."""
    rows = [_row(part, rank) for rank, part in enumerate(parts)]
    whole = [value for part in parts for value in part]
    combined = Combination([row.schema for row in rows]).combine(rows, len(rows))

    assert combined.schema.id == KEPT.id
    assert (combined.rank, combined.flags, combined.status.any()) == (ALL_RANKS, 0, False)
    scale = max(1.0, *(abs(value) for value in whole))
    for name, order in (("moments", 2), ("moments4", 4)):
        for power, (found, wanted) in enumerate(zip(_of(combined, name), _moments(whole, order), strict=True)):
            assert math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-9 * len(whole) * scale ** max(power, 1))
    assert math.isclose(_of(combined, "total")[0], math.fsum(whole), rel_tol=1e-9, abs_tol=1e-9 * len(whole) * scale)
    assert _of(combined, "count") == [len(whole)]
    assert (_of(combined, "least"), _of(combined, "most")) == ([min(whole)], [max(whole)])
    assert (_of(combined, "same"), _of(combined, "first")) == ([7.5], [0.0])


@given(shares, st.data())
def test_combination_skips_what_a_rank_did_not_measure_and_keeps_why_when_none_did(
    parts: list[list[float]], data: st.DataObject
) -> None:
    """Over those that measured it; the worst reason where nobody did; a NaN of one is a NaN of all."""
    rows = [_row(part, rank) for rank, part in enumerate(parts)]
    reasons = data.draw(st.lists(st.sampled_from([0, 1, 4, 9]), min_size=len(rows), max_size=len(rows)))
    most = SCHEMA.columns.index(next(c for c in SCHEMA.columns if c.name == "most"))
    for row, reason in zip(rows, reasons, strict=True):
        row.status[most] = reason
        row.values[SCHEMA.offsets[most]] = 1e30 if reason else row.values[SCHEMA.offsets[most]]
    broken = data.draw(st.integers(0, len(rows) - 1))
    rows[broken].values[SCHEMA.offsets[SCHEMA.columns.index(next(c for c in SCHEMA.columns if c.name == "least"))]] = math.nan
    combined = Combination([row.schema for row in rows]).combine(rows, len(rows))

    place = [column.name for column in combined.schema.columns].index("most")
    measured = [max(part) for part, reason in zip(parts, reasons, strict=True) if not reason]
    if measured:
        assert (combined.status[place], _of(combined, "most")) == (0, [max(measured)])
    else:
        assert (combined.status[place], _of(combined, "most")) == (max(reasons), [0.0])
    assert math.isnan(_of(combined, "least")[0])


def test_combination_says_when_ranks_differ_in_what_must_be_equal_or_are_missing() -> None:
    """Gradients that left each other are the first sign of a broken all-reduce."""
    rows = [_row([1.0], 0), _row([2.0], 1)]
    same = SCHEMA.offsets[[column.name for column in SCHEMA.columns].index("same")]
    make = Combination([SCHEMA, SCHEMA])

    rows[1].values[same] = 7.5 * (1 + 1e-9)
    assert make.combine(rows, 2).flags == 0
    rows[1].values[same] = 7.6
    assert make.combine(rows, 2).flags == RowFlag.RANKS_DIFFER
    rows[1].values[same] = math.nan
    assert make.combine(rows, 4).flags == RowFlag.RANKS_DIFFER | RowFlag.RANKS_MISSING
    rows[0].values[same] = math.nan
    assert make.combine(rows, 2).flags == 0
    assert _of(make.combine(rows[:1] + rows[1:], 2), "first") == [0.0]
    alone = Combination([SCHEMA]).combine(rows[1:], 2)
    assert alone.status[[column.name for column in alone.schema.columns].index("first")] == Status.INCOMPLETE


def test_combination_of_schemas_that_differ_has_the_columns_of_all() -> None:
    """A head that only one rank has met so far is that rank's."""
    narrow = Schema.of([SCHEMA.columns[2], SCHEMA.columns[4]])
    row = RankRow(1, narrow, 0, 0, 0, 2, 1, np.array([5.0, -3.0]), np.zeros(2, np.uint8))
    combined = Combination([SCHEMA, narrow]).combine([_row([1.0, 2.0], 0), row], 2)

    assert combined.schema.id == KEPT.id
    assert (_of(combined, "total"), _of(combined, "least"), _of(combined, "most")) == ([8.0], [-3.0], [2.0])
    assert combined.flags == 1


def _blocks(world: int, updates: int) -> list[RowBlock]:
    """One row a block: each rank's updates in order, ranks one after the other."""
    made = []
    for rank in range(world):
        for update in range(updates):
            row = _row([float(rank), float(update)], rank, update)
            columns = ([update], [row.t_ns], [row.env_steps])
            wide = [np.array(column, np.int64) for column in columns]
            narrow = [np.array([2], np.uint8), np.array([0], np.uint8)]
            stream = Stream("r", 1, rank)
            made.append(
                RowBlock(stream, f"s{rank}", (update, update), SCHEMA, *wide, *narrow, row.values[None], row.status[None])
            )
    return made


def _bits(blocks: list[RowBlock]) -> list[tuple[Any, ...]]:
    return [
        (row.update, row.t_ns, row.env_steps, row.level, row.flags, row.values.tobytes(), row.status.tobytes())
        for block in blocks
        for row in rows_of(block)
    ]


@given(st.integers(1, 4), st.integers(1, 12), st.data())
def test_gathering_gives_the_same_rows_in_any_order_and_over_any_restart(world: int, updates: int, data: st.DataObject) -> None:
    """Ranks in lockstep within the patience, frames in any interleaving, a restart between any two."""
    queues = [[block for block in _blocks(world, updates) if block.stream.rank == rank] for rank in range(world)]
    gathering, done = Gathering("r", 1, world), []
    while any(queues):
        least = updates - max(len(queue) for queue in queues)
        ready = [q for q in queues if q and updates - len(q) - least < PATIENCE_UPDATES]
        gathering.put(data.draw(st.sampled_from(ready)).pop(0))
        if data.draw(st.booleans()):
            gathering = Gathering.load("r", 1, gathering.dump())
        done += gathering.take()
        again = Gathering.load("r", 1, gathering.dump())
        assert again.dump() == gathering.dump()

    together = Gathering("r", 1, world)
    for block in _blocks(world, updates):
        if block.update[0] < PATIENCE_UPDATES:
            together.put(block)
    expected = Combination([SCHEMA] * world)
    wanted = [
        expected.combine([_row([float(rank), float(update)], rank, update) for rank in range(world)], world)
        for update in range(updates)
    ]
    assert [row.update for block in done for row in rows_of(block)] == list(range(updates))
    assert [b[5] for b in _bits(done)] == [row.values.tobytes() for row in wanted]
    assert {b[4] for b in _bits(done)} == {0}
    assert gathering.waiting == 0
