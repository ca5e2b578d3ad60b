"""null = not measured; "NaN", "Infinity", "-Infinity" = measured so."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.api.numbers import (
    encode,
    integers,
    medians_by_level,
    number,
    numbers,
    parse_time,
    plain,
    time_text,
    times,
    words,
)
from gradwatch_daemon.records import SignalKey
from harness.signal_blocks import make_block

NS_MAX = 4_000_000_000 * 10**9


@given(st.lists(st.tuples(st.floats(), st.booleans())))
def test_numbers_of_any_floats_equal_one_by_one_and_are_json(pairs: list[tuple[float, bool]]) -> None:
    """The vectorised function says what the plain one says, whatever a missing value holds."""
    values = np.array([value for value, _ in pairs], dtype=np.float64)
    absent = np.array([gone for _, gone in pairs], dtype=np.bool_)

    listed = numbers(values, absent)

    assert listed == [None if gone else number(value) for value, gone in pairs]
    assert json.loads(encode(listed)) == listed


@given(st.floats())
def test_number_of_any_float_reads_back_as_itself(value: float) -> None:
    """No value is changed on the way, the sign of zero included."""
    back = json.loads(encode(number(value)))

    read = float(back)
    assert math.isnan(read) if math.isnan(value) else (read, math.copysign(1, read)) == (value, math.copysign(1, value))


def test_number_of_nothing_is_null() -> None:
    """Not measured is neither 0 nor "NaN"."""
    assert number(None) is None
    assert [number(float(text)) for text in ("nan", "inf", "-inf")] == ["NaN", "Infinity", "-Infinity"]


def test_integers_and_words_follow_their_mask() -> None:
    """-1 for "not given" never reaches a client."""
    assert integers(np.array([-1, 5]), np.array([True, False])) == [None, 5]
    assert words(np.array([1, 0], dtype=np.uint8), ("a", "b")) == ["b", "a"]


def test_plain_cleans_floats_at_any_depth() -> None:
    """A config with float('inf') must not turn into a 500."""
    found = plain({"a": [math.inf, {"b": (-math.inf, 1)}], 3: None, "t": True})

    assert found == {"a": ["Infinity", {"b": ["-Infinity", 1]}], "3": None, "t": True}


def test_encode_nonfinite_is_our_bug() -> None:
    """What was not converted must not leave as invalid JSON."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"x": math.nan})


def test_encode_lone_surrogate_is_still_json() -> None:
    """Text of a trainer may hold half a character."""
    assert json.loads(encode({"x": "é\ud800"})) == {"x": "é\ud800"}


@given(st.lists(st.integers(min_value=0, max_value=NS_MAX), min_size=1))
def test_times_of_any_moments_equal_one_by_one(moments: list[int]) -> None:
    """And both read back to the millisecond they were cut to."""
    texts = times(np.array(moments, dtype=np.int64))

    assert texts == [time_text(moment) for moment in moments]
    assert [parse_time(text, "x") for text in texts] == [moment // 10**6 * 10**6 for moment in moments]


@pytest.mark.parametrize(
    "text", ["", "now", "2026-01-31", "2026-01-31T12:00:00", "12:00", "1769860800", "2026-13-01T00:00:00Z"]
)
def test_parse_time_without_date_or_offset_is_refused(text: str) -> None:
    """A time without its offset is another time on another machine."""
    with pytest.raises(GradwatchError) as caught:
        parse_time(text, "since")

    assert caught.value.code.slug == "invalid-parameter"
    assert caught.value.where == "since"


@pytest.mark.parametrize("text", ["2026-01-31T12:00:00Z", "2026-01-31t13:00:00+01:00", "2026-01-31T13:00:00.000 01:00"])
def test_parse_time_in_any_offset_is_one_moment(text: str) -> None:
    """A '+' in an address arrives as a space."""
    assert parse_time(text, "since") == 1_769_860_800 * 10**9


def test_medians_by_level_count_finite_measured_values_only() -> None:
    """Each level of its own rows; a signal that a block lacks adds nothing."""
    key = SignalKey("sys.agent_share")
    block = make_block(range(5))
    share = np.array([[0.1, 0.3, np.nan, 0.9, 0.5]], np.float32)
    level, status = np.array([2, 2, 2, 3, 3], np.uint8), np.array([[0, 0, 0, 0, 1]], np.uint8)
    made = replace(block, level=level, signals=(key,), values=share, status=status)

    found = medians_by_level([made, block], key)
    assert {at: (count, round(median, 3)) for at, (count, median) in found.items()} == {2: (2, 0.2), 3: (1, 0.9)}
