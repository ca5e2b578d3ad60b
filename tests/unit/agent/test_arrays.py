"""What trainers have beside tensors: arrays of numpy of any kind, lists, and numbers in containers."""

from __future__ import annotations

import warnings
from collections import deque
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from gradwatch_contracts.columns import Status
from harness.recording import monitoring, read

pytestmark = pytest.mark.usefixtures("strict")

SIX = np.arange(6.0)


def frozen(array: Any) -> Any:
    """As every array made of a JAX array is."""
    array = array.copy()
    array.flags.writeable = False
    return array


ARRAYS = {
    "backwards": SIX[::-1],
    "every second": np.arange(12.0)[::2] / 2,
    "read-only": frozen(SIX),
    "big-endian": SIX.astype(">f4"),
    "big-endian integers": SIX.astype(">i8"),
    "half": SIX.astype(np.float16),
    "long double": SIX.astype(np.longdouble),
    "uint16": SIX.astype(np.uint16),
    "uint32": SIX.astype(np.uint32),
    "uint64": SIX.astype(np.uint64),
    "objects": SIX.astype(object),
    "fractions": [Fraction(number) for number in range(6)],
    "a field of records": np.array([(0, number) for number in SIX], dtype=[("a", "i1"), ("b", "f8")])["b"],
    "masked nowhere": np.ma.masked_array(SIX, mask=False),
    "list": SIX.tolist(),
    "deque": deque(SIX.tolist()),
    "list of arrays": [SIX[:3], SIX[3:]],
    "list of read-only arrays": [frozen(SIX[:3]), SIX[5:2:-1]],
    "list of tensors": [torch.tensor(number, requires_grad=True) for number in SIX.tolist()],
    "list of pairs of tensors": [torch.tensor(SIX[:3]), torch.tensor(SIX[3:])],
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_rollout_of_an_array_tells_its_numbers(kind: str) -> None:
    """Six numbers from 0 to 5, whatever holds them; torch says nothing of it in the trainer's log."""
    with (
        warnings.catch_warnings(),
        monitoring(action_space=type("Box", (), {"low": [-9.0], "high": [9.0]})()) as (monitor, record),
    ):
        warnings.simplefilter("error")
        monitor.rollout(rewards=ARRAYS[kind], observations=ARRAYS[kind], actions=ARRAYS[kind])
        monitor.step()
        for column in ("reward.step", "obs.input", "policy.action"):
            assert record.last[column] == (6.0, 2.5, 17.5)


def test_rollout_of_values_and_returns_backwards_explains_them_pair_by_pair() -> None:
    """Returns are summed up from the end and turned round: each still meets its own value."""
    with monitoring() as (monitor, record):
        monitor.rollout(values=SIX, returns=(5.0 - SIX)[::-1])
        monitor.step()
        assert record.last["value.error"] == (6.0, 0.0, 0.0)


def test_rollout_leaves_the_array_it_was_given_as_it_was() -> None:
    """And does not go on looking at it: the trainer fills it anew."""
    array = SIX.copy()
    with monitoring() as (monitor, record):
        monitor.rollout(rewards=array)
        array[:] = 100.0
        monitor.step()
        assert record.last["reward.step"] == (6.0, 2.5, 17.5)
    assert (array == 100.0).all()


@pytest.mark.parametrize(
    "given",
    [
        np.ma.masked_array(SIX, mask=[0, 0, 0, 0, 0, 1]),
        [np.ma.masked_array(SIX, mask=[1, 0, 0, 0, 0, 0])],
        [1.0, np.ma.masked],
        np.array(["a"]),
        np.array([None, 1.0]),
        np.array([1j]),
        np.array(["2026-01-01"], dtype="datetime64[D]"),
        [torch.ones(2), torch.ones(3)],
        [SIX[:1], SIX],
        [torch.ones(1), 2.0],
        {"a": 1.0},
    ],
    ids=str,
)
def test_rollout_of_what_is_no_number_throughout_says_so(given: Any) -> None:
    """An element that is masked is missing: it must not count as the number that lies under the mask."""
    with monitoring() as (monitor, record):
        monitor.rollout(rewards=given, values=torch.zeros(2))
        monitor.step()
        row = read(record.rows[0])
    assert (row["reward.step"], row["value.pred"]) == (Status.DTYPE, (2.0, 0.0, 0.0))


@pytest.mark.parametrize(
    "steps", [7, 7.0, np.int64(7), np.float32(7), np.array(7), torch.tensor(7), torch.tensor([7]), torch.tensor(7.0)], ids=repr
)
def test_env_steps_on_the_host_are_sent_whatever_holds_them(steps: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A count of steps is often the sum of an array or a tensor."""
    with monitoring() as (monitor, record):
        monitor.step(env_steps=steps)
        assert record.rows[0].env_steps == 7
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("steps", "got"),
    [
        (torch.empty((), dtype=torch.int64, device="meta"), "int64[] on meta"),
        (torch.tensor([1, 2]), "int64[2]"),
        (np.array([7]), "int64[1]"),
        ("7", "str"),
        (-1, "-1.0"),
    ],
    ids=str,
)
def test_env_steps_that_cannot_be_read_are_told_of_once(steps: Any, got: str, caplog: pytest.LogCaptureFixture) -> None:
    """A tensor on a device would have to be waited for."""
    with monitoring() as (monitor, record):
        for _ in range(2):
            monitor.step(env_steps=steps)
        assert [row.env_steps for row in record.rows] == [-1, -1]
    assert caplog.messages == [
        f"gradwatch: step(env_steps=…) takes a whole number from 0 that lies on the host, got {got}; not sent."
    ]
