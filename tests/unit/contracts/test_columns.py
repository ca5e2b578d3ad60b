"""Columns: merging parts gives the whole, schemas are content, statuses have reasons."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch_contracts import limits
from gradwatch_contracts.columns import STATUS_REASON, Column, Kind, RankRule, Schema, Status, merge
from gradwatch_contracts.errors import ContractError

_VALUES = st.lists(st.floats(-1e6, 1e6), max_size=30)


def _reduce(kind: Kind, values: list[float]) -> tuple[float, ...]:
    """The oracle: one column of all values, in plain Python."""
    if kind is Kind.MOMENTS:
        mean = math.fsum(values) / len(values) if values else 0.0
        return float(len(values)), mean, math.fsum((value - mean) ** 2 for value in values)
    if kind is Kind.MOMENTS4:
        mean = math.fsum(values) / len(values) if values else 0.0
        return float(len(values)), mean, *(math.fsum((value - mean) ** k for value in values) for k in (2, 3, 4))
    return {
        Kind.SUM: lambda: (math.fsum(values),),
        Kind.COUNT: lambda: (float(len(values)),),
        Kind.MIN: lambda: (min(values),),
        Kind.MAX: lambda: (max(values),),
        Kind.LAST: lambda: (values[-1],),
    }[kind]()


@given(_VALUES, _VALUES)
def test_merged_moments_equal_moments_of_the_whole(left: list[float], right: list[float]) -> None:
    """Also with an empty part on either side."""
    n, mean, m2 = merge(Kind.MOMENTS, _reduce(Kind.MOMENTS, left), _reduce(Kind.MOMENTS, right))
    whole = _reduce(Kind.MOMENTS, left + right)
    assert n == whole[0]
    assert mean == pytest.approx(whole[1], rel=1e-9, abs=1e-6)
    assert m2 == pytest.approx(whole[2], rel=1e-6, abs=1e-3)


@given(st.lists(st.floats(-1e3, 1e3), max_size=30), st.lists(st.floats(-1e3, 1e3), max_size=30))
def test_merged_moments4_equal_moments_of_the_whole(left: list[float], right: list[float]) -> None:
    """Sums of second, third and fourth powers, also with an empty part on either side."""
    merged = merge(Kind.MOMENTS4, _reduce(Kind.MOMENTS4, left), _reduce(Kind.MOMENTS4, right))
    whole = _reduce(Kind.MOMENTS4, left + right)
    assert merged[:2] == pytest.approx(whole[:2], rel=1e-9, abs=1e-6)
    for power, found, expected in zip((2, 3, 4), merged[2:], whole[2:], strict=True):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * 60 * 2e3**power)


def test_moments4_of_enormous_parts_merge_to_no_finite_number() -> None:
    """A power would raise where a product overflows."""
    assert not math.isfinite(merge(Kind.MOMENTS4, (1.0, 1e200, 0.0, 0.0, 0.0), (1.0, -1e200, 0.0, 0.0, 0.0))[4])


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in {Kind.MOMENTS, Kind.MOMENTS4}])
@given(left=st.lists(st.floats(-1e6, 1e6), min_size=1), right=st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_merged_part_equals_reduction_of_the_whole(kind: Kind, left: list[float], right: list[float]) -> None:
    """For every kind of one slot."""
    merged = merge(kind, _reduce(kind, left), _reduce(kind, right))
    assert merged == pytest.approx(_reduce(kind, left + right), abs=1e-6)


@pytest.mark.parametrize("kind", [Kind.MIN, Kind.MAX, Kind.SUM])
@pytest.mark.parametrize("parts", [((math.nan,), (1.0,)), ((1.0,), (math.nan,))])
def test_nan_in_one_part_makes_the_whole_nan(kind: Kind, parts: tuple[tuple[float], tuple[float]]) -> None:
    """Python's min and max would drop it, depending on the order."""
    assert math.isnan(merge(kind, *parts)[0])


def test_schema_id_is_content() -> None:
    """The same columns give the same id; another order, name, subject, kind or rule another."""
    base = Column("a", Kind.SUM, RankRule.SUM)
    variants = [
        [base],
        [Column("b", Kind.SUM, RankRule.SUM)],
        [Column("a", Kind.MAX, RankRule.SUM)],
        [Column("a", Kind.SUM, RankRule.MAX)],
        [Column("a", Kind.SUM, RankRule.SUM, "head")],
        [base, Column("b", Kind.SUM, RankRule.SUM)],
        [Column("b", Kind.SUM, RankRule.SUM), base],
    ]
    assert len({Schema.of(columns).id for columns in variants}) == len(variants)
    assert Schema.of([base]) == Schema.of([base])


def test_schema_offsets_give_moments_three_slots_and_moments4_five() -> None:
    """The layout of a row."""
    schema = Schema.of(
        [
            Column("a", Kind.LAST, RankRule.NONE),
            Column("b", Kind.MOMENTS, RankRule.MERGE),
            Column("c", Kind.MIN, RankRule.MIN),
            Column("d", Kind.MOMENTS4, RankRule.MERGE),
        ]
    )
    assert (schema.offsets, schema.slots) == ((0, 1, 4, 5), 10)


@pytest.mark.parametrize(
    "columns",
    [
        [],
        [Column("a", Kind.SUM, RankRule.SUM)] * 2,
        [Column("", Kind.SUM, RankRule.SUM)],
        [Column("x" * (limits.NAME_CHARS_MAX + 1), Kind.SUM, RankRule.SUM)],
        [Column(str(i), Kind.SUM, RankRule.SUM) for i in range(limits.COLUMNS_MAX + 1)],
    ],
    ids=["empty", "duplicate", "nameless", "long name", "too many"],
)
def test_schema_out_of_bounds_is_refused(columns: list[Column]) -> None:
    """Each bound has its refusal."""
    with pytest.raises(ContractError, match="schema"):
        Schema.of(columns)


def test_every_status_has_a_reason() -> None:
    """A status without words would be shown as nothing."""
    assert set(STATUS_REASON) == set(Status)
    assert all(STATUS_REASON.values())
