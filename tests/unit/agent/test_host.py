"""What needs no device: user scalars, episode returns, the merging of partial columns."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch

from gradwatch_agent.collect.host import Tally, moments, to_float
from gradwatch_contracts import limits
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring, read

pytestmark = pytest.mark.usefixtures("strict")


@pytest.mark.parametrize("bad", ["text", None, [1.0], {}, object(), 1j, 10**400, Decimal(1), torch.zeros(2), torch.tensor(1j)])
def test_log_of_something_else_than_a_number_says_so(bad: object, caplog: pytest.LogCaptureFixture) -> None:
    """One hint for the author, a status in the data, its neighbours unharmed."""
    with monitoring() as (monitor, record):
        for _ in range(2):
            monitor.log(bad=bad, good=1.0)
            monitor.step()
            assert record.last["user/bad"] is Status.DTYPE
            assert record.last["user/good"] == 1.0
    assert len([line for line in caplog.messages if "bad" in line]) == 1


@pytest.mark.parametrize("key", ["", " lead", "ümlaut", "a" * 65, "semi;colon", 7])
def test_log_of_a_bad_key_is_hinted_and_not_sent(key: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A key is a file name, a path segment and a metrics label elsewhere."""
    with monitoring() as (monitor, record):
        monitor.log({key: 1.0, "fine/key": 2.0})
        monitor.step()
        assert [name for name in record.last if name.startswith("user")] == ["user/fine/key"]
    assert len(caplog.messages) == (0 if key == 7 else 1)


def test_log_beyond_the_number_of_keys_is_hinted_once(caplog: pytest.LogCaptureFixture) -> None:
    """A key with the step number in it must not grow the schema for ever."""
    with monitoring() as (monitor, record):
        for number in range(limits.USER_KEYS_MAX + 5):
            monitor.log({f"key{number}": 1.0})
        monitor.step()
        assert len([name for name in record.last if name.startswith("user/")]) == limits.USER_KEYS_MAX
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "value",
    [2.5, True, 7, np.float32(2.5), np.float64(2.5), np.int64(3), torch.tensor(2.5), torch.tensor([3]), torch.tensor(True)],
)
def test_log_takes_every_kind_of_number(value: Any) -> None:
    """Python, numpy, and tensors of one element, which are not read before the transfer."""
    with monitoring() as (monitor, record):
        monitor.step(number=value)
        assert record.last["user/number"] == float(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_log_of_nonfinite_numbers_keeps_their_kind(value: float) -> None:
    """Bit for bit, from the host and from a device."""
    with monitoring() as (monitor, record):
        monitor.step(host=value, device=torch.tensor(value))
        for key in ("user/host", "user/device"):
            assert str(record.last[key]) == str(value)


def test_log_last_value_of_a_key_wins_whatever_its_kind() -> None:
    """Float after tensor, tensor after float, log and step."""
    with monitoring() as (monitor, record):
        monitor.log(a=1.0, b=torch.tensor(1.0))
        monitor.log({"a": torch.tensor(2.0), "b": 2.0})
        monitor.step(c=3.0)
        assert [record.last[f"user/{key}"] for key in "abc"] == [2.0, 2.0, 3.0]


def test_log_key_that_is_missing_in_an_update_was_not_called() -> None:
    """Never the value of the update before; the columns stay where they are."""
    with monitoring() as (monitor, record):
        updates: list[dict[str, Any]] = [{"a": 1.0, "b": 2.0}, {"b": 3.0}, {"b": 4.0, "a": 5.0}, {"c": 6.0, "a": 7.0, "b": 8.0}]
        for scalars in updates:
            monitor.step(**scalars)
        rows = [read(row) for row in record.rows]
        assert [row.get("user/a") for row in rows] == [1.0, Status.NOT_CALLED, 5.0, 7.0]
        assert [row.get("user/b") for row in rows] == [2.0, 3.0, 4.0, 8.0]
        assert [row.get("user/c") for row in rows] == [None, None, None, 6.0]
        assert record.rows[1].schema.id == record.rows[0].schema.id != record.rows[3].schema.id


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([1.0, 2.0, 6.0], (3.0, 3.0, 14.0)),
        (np.array([1.0, 2.0, 6.0]), (3.0, 3.0, 14.0)),
        (torch.tensor([1.0, 2.0, 6.0]), (3.0, 3.0, 14.0)),
        ([torch.tensor(1.0), torch.tensor(2.0), torch.tensor(6.0)], (3.0, 3.0, 14.0)),
        ((np.float32(4.0),), (1.0, 4.0, 0.0)),
        (4, (1.0, 4.0, 0.0)),
        ([], Status.UNDEFINED),
        (torch.zeros(0), Status.UNDEFINED),
        (None, Status.NOT_CALLED),
        ("high", Status.DTYPE),
        ([1.0, "two"], Status.DTYPE),
        (object(), Status.DTYPE),
    ],
)
def test_episode_returns_of_any_kind(returns: Any, expected: object) -> None:
    """Moments of the episodes that ended, or why there are none."""
    with monitoring(level=Level.MINIMAL) as (monitor, record):
        monitor.step(episode_returns=returns)
        assert record.last["episode.return"] == expected


@pytest.mark.parametrize(
    ("given", "kept"), [(5, 5), (5.9, 5), (np.int64(7), 7), (None, -1), (-1, -1), ("many", -1), (2**70, -1), (math.nan, -1)]
)
def test_env_steps_of_any_kind(given: Any, kept: int) -> None:
    """-1 stands for not given."""
    with monitoring() as (monitor, record):
        monitor.step(env_steps=given)
        assert record.rows[0].env_steps == kept


def test_moments_of_host_values_are_exact() -> None:
    """Also where a sum overflows or is not finite."""
    assert moments([1e16, 1.0, -1e16]) == (3.0, 1 / 3, pytest.approx(2e32))
    n, mean, m2 = moments([math.inf, -math.inf])
    assert (n, math.isnan(mean), math.isnan(m2)) == (2.0, True, True)
    assert moments([1.7e308, 1.7e308])[1] == math.inf


def test_to_float_never_reads_a_tensor() -> None:
    """`float(tensor)` waits for the device."""
    assert to_float(torch.tensor(1.0)) is None


def test_tally_weak_reason_falls_and_strong_one_stands() -> None:
    """Nothing measured there is no news once something was; a refused part is."""
    tally = Tally()
    tally.refuse("value.new", Status.UNDEFINED)
    tally.refuse("adv.used", Status.SHAPE)
    tally.refuse("adv.used", Status.UNDEFINED)
    for name in ("value.new", "adv.used"):
        tally.add(name, (1.0, 2.0, 0.0))
    assert tally.missing() == {("adv.used", ""): Status.SHAPE}


def test_tally_last_follows_the_order_and_not_the_arrival() -> None:
    """Blocks of two shapes are read one after the other."""
    tally = Tally()
    for order, value in ((3, 30.0), (5, 50.0), (4, 40.0)):
        tally.add_last("policy.kl.k3.last", order, value)
    assert tally.parts["policy.kl.k3.last", ""] == (50.0,)
