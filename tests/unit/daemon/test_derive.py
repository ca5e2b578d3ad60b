"""Rows to signals: which signals, their status, their rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch_contracts.columns import Column, Kind, RankRule, Schema, Status
from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.derive.derive import SMALL_ROWS, Deriver
from gradwatch_daemon.records import RowBlock, SignalKey
from harness.blocks import STREAM, every_column, row_block

F32_MAX = float(np.finfo(np.float32).max)


def test_derive_value_beyond_float32_saturates_and_infinity_stays() -> None:
    """Storage never makes an infinity out of a finite number, nor hides a real one."""
    rows = row_block({("param.norm", ""): [[1e300], [-1e300], [np.inf], [-np.inf], [np.nan], [3.4028235677973366e38]]})
    values = Deriver().derive(rows).values[0]
    assert values[0] == F32_MAX
    assert values[1] == -F32_MAX
    assert np.isposinf(values[2])
    assert np.isneginf(values[3])
    assert np.isnan(values[4])
    assert values[5] == F32_MAX


def test_derive_missing_column_hides_the_value_behind_the_worst_status() -> None:
    """The worst status of a signal's columns is its own, and nothing can be read there."""
    rows = row_block(
        {("policy.clipped", ""): [[3.0]], ("policy.logratio", ""): [[10.0, 0.0, 1.0]]},
        {"policy.clipped": Status.LEVEL, "policy.logratio": Status.SHAPE},
    )
    block = Deriver().derive(rows)
    place = block.signals.index(SignalKey("policy.clip_fraction"))
    assert block.status[place, 0] == Status.SHAPE
    assert block.values[place, 0] == 0.0
    only_level = block.signals.index(SignalKey("policy.logratio.std"))
    assert block.status[only_level, 0] == Status.SHAPE


def test_derive_undefined_formula_is_undefined_only_where_measured() -> None:
    """n = 0 is UNDEFINED when it was measured; a column that was not measured keeps its own reason."""
    cells = {("episode.return", ""): [[0.0, 0.0, 0.0], [2.0, 5.0, 0.0]]}
    block = Deriver().derive(row_block(cells))
    mean, count = (block.signals.index(SignalKey(name)) for name in ("episode.return.mean", "episode.count"))
    assert block.status[mean].tolist() == [Status.UNDEFINED, 0]
    assert block.status[count].tolist() == [0, 0]
    assert block.values[count].tolist() == [0.0, 2.0]
    hidden = Deriver().derive(row_block(cells, {"episode.return": Status.NOT_CALLED}))
    assert hidden.status[mean].tolist() == [Status.NOT_CALLED, Status.NOT_CALLED]


def test_derive_all_columns_gives_every_signal_once_in_registry_order() -> None:
    """Nothing of the registry is lost; per-head signals come per head, with the head's own limit."""
    block = Deriver().derive(every_column())
    names = [key.name for key in block.signals if not key.subject]
    assert names == list(SIGNALS)
    assert [key for key in block.signals if key.subject] == [
        SignalKey("policy.entropy.raw", "arm"),
        SignalKey("policy.entropy.norm", "arm"),
        SignalKey("policy.action.dominance", "arm"),
    ]
    assert block.values.dtype == np.float32
    assert block.status.dtype == np.uint8
    assert not block.status.any()


def test_derive_head_without_own_limit_uses_the_one_of_the_whole() -> None:
    """A second column falls back to subject '' where the head has none of its own."""
    block = Deriver().derive(row_block({("policy.entropy", "arm"): [[4.0, 0.5, 0.0]], ("policy.entropy.limit", ""): [[2.0]]}))
    assert block.values[block.signals.index(SignalKey("policy.entropy.norm", "arm")), 0] == pytest.approx(0.25)


def test_derive_signal_with_a_column_absent_is_not_there() -> None:
    """Without the limit there is no normalised entropy, not a wrong one."""
    block = Deriver().derive(row_block({("policy.entropy", ""): [[4.0, 0.5, 0.0]]}))
    assert block.signals == (SignalKey("policy.entropy.raw"),)


def test_derive_column_of_a_foreign_kind_or_name_is_not_used() -> None:
    """A column another agent reduced differently is never read as if it were ours."""
    schema = Schema.of(
        (
            Column("policy.kl.k3", Kind.MAX, RankRule.MAX),
            Column("from.the.future", Kind.LAST, RankRule.NONE),
            Column("opt.lr", Kind.LAST, RankRule.EQUAL),
        )
    )
    one, zero = np.array([0]), np.zeros(1, np.uint8)
    rows = RowBlock(
        STREAM, "s1", (0, 0), schema, one, one, one, zero, zero, np.array([[1.0, 2.0, 3e-4]]), np.zeros((1, 3), np.uint8)
    )
    block = Deriver().derive(rows)
    assert block.signals == (SignalKey("opt.lr"),)
    assert block.values[0, 0] == np.float32(3e-4)


def test_derive_same_schema_twice_shares_the_signals_tuple() -> None:
    """The plan is worked out once per schema; detection keys its layout by that very tuple."""
    deriver = Deriver()
    assert deriver.derive(every_column()).signals is deriver.derive(every_column()).signals


def test_derive_split_rows_give_the_same_bytes() -> None:
    """Batching changes nothing, to the last bit."""
    rng = np.random.default_rng(3)
    rows = every_column(40)
    rows.values[:] = np.abs(rng.normal(size=rows.values.shape)) * np.exp(rng.normal(size=rows.values.shape) * 4) + 1.0
    deriver = Deriver()
    whole = deriver.derive(rows)
    parts = []
    for first, last in ((0, 1), (1, 2), (2, 17), (17, 40)):
        cut = slice(first, last)
        arrays = (rows.update[cut], rows.t_ns[cut], rows.env_steps[cut], rows.level[cut], rows.flags[cut])
        parts.append(
            deriver.derive(RowBlock(STREAM, "s1", (first, last - 1), rows.schema, *arrays, rows.values[cut], rows.status[cut]))
        )
    assert np.concatenate([part.values for part in parts], axis=1).tobytes() == whole.values.tobytes()
    assert np.concatenate([part.status for part in parts], axis=1).tobytes() == whole.status.tobytes()


def test_derive_all_gives_what_each_block_gives_by_itself() -> None:
    """Blocks of two schemas in turns, a large one among them, every status and what is no number: bit for bit, in order."""
    deriver, rng = Deriver(), np.random.default_rng(3)
    other = row_block({("policy.clipped", ""): [[3.0], [4.0]], ("user", "x"): [[np.nan], [1e300]]})
    blocks = []
    for number, n in enumerate((1, SMALL_ROWS, 3, 2)):
        made = every_column(n)
        values = np.where(rng.random(made.values.shape) < 0.05, np.inf, made.values * rng.normal(1, 0.1, made.values.shape))
        status = rng.choice(np.arange(12, dtype=np.uint8), made.status.shape, p=[0.89, *[0.01] * 11])
        blocks += [replace(made, stream=made.stream._replace(run=f"run-{number}"), values=values, status=status), other]
    together = deriver.derive_all(blocks)
    assert [block.stream for block in together] == [block.stream for block in blocks]
    for block, alone in zip(together, map(deriver.derive, blocks), strict=True):
        assert block.signals is alone.signals
        assert block.update is alone.update
        assert block.values.tobytes() == alone.values.tobytes()
        assert block.status.tobytes() == alone.status.tobytes()
        assert block.values.base is None, "keeps the rows of others alive"
