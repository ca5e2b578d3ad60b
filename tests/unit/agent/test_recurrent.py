"""Recurrent states: rollout and update apart, any shape, and everything that can be wrong with one."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from torch import nn

from gradwatch_agent.collect import recurrent as recurrent_module
from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness.recording import monitoring

pytestmark = pytest.mark.usefixtures("strict")

COLUMNS = ("rnn.h", "rnn.h.saturated", "rnn.h.nonfinite", "rnn.c", "rnn.c.absmax", "rnn.c.nonfinite")


def observed(*states: tuple[Any, ...], phase: str = "update", **given: Any) -> dict[str, Any]:
    """The last row of an update in which each of these was given to `recurrent`."""
    with monitoring(**given) as (monitor, record):
        for state in states:
            monitor.recurrent(*state, phase=phase)
        monitor.step()
        return record.last


def columns(row: dict[str, Any], phase: str = "update") -> list[Any]:
    """The columns of a phase."""
    return [row[f"{name}/{phase}"] for name in COLUMNS]


def test_recurrent_state_of_an_lstm_is_reduced_over_all_calls() -> None:
    """Moments over the elements of both calls, counts added, the largest |c|."""
    h, c = torch.tensor([[[0.5, -0.995]]]), torch.tensor([[[2.0, -3.0]]])
    row = observed((h, c), (h, c))
    assert row["rnn.h/update"] == pytest.approx((4.0, -0.2475, 4 * 0.7475**2))
    assert row["rnn.h.saturated/update"] == 2.0
    assert row["rnn.c/update"] == pytest.approx((4.0, -0.5, 4 * 2.5**2))
    assert row["rnn.c.absmax/update"] == 3.0
    assert row["rnn.h.nonfinite/update"] == row["rnn.c.nonfinite/update"] == 0.0


@pytest.mark.parametrize(("value", "saturated"), [(0.99, 0.0), (0.9900001, 1.0), (-0.991, 1.0), (1.0, 1.0)])
def test_recurrent_saturation_counts_beyond_its_bound(value: float, saturated: float) -> None:
    """Strictly above 0.99; exactly 0.99, as float64, is not."""
    row = observed((torch.tensor([value], dtype=torch.float64),))
    assert row["rnn.h.saturated/update"] == saturated


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_recurrent_state_that_is_not_finite_is_counted_not_hidden(value: float) -> None:
    """The largest |c| and the moments hold it, the counts say how much."""
    row = observed((torch.tensor([0.0, value]), torch.tensor([value, value])))
    assert (row["rnn.h.nonfinite/update"], row["rnn.c.nonfinite/update"]) == (1.0, 2.0)
    assert not math.isfinite(row["rnn.c.absmax/update"])
    assert not math.isfinite(row["rnn.h/update"][1])


def test_recurrent_states_of_changing_batch_size_are_one_series() -> None:
    """The last minibatch of an update is often smaller."""
    row = observed(*[(torch.ones(1, batch, 3) / 2, torch.ones(1, batch, 3)) for batch in (4, 2, 7, 4)])
    assert row["rnn.h/update"] == (51.0, 0.5, 0.0)
    assert row["rnn.c/update"] == (51.0, 1.0, 0.0)


def test_recurrent_states_of_different_shape_and_dtype_are_both_measured() -> None:
    """An LSTM with a projection has an h narrower than its c; mixed precision changes the dtype."""
    row = observed((torch.ones(1, 2, 3, dtype=torch.bfloat16), torch.full((1, 2, 5), 2.0, dtype=torch.float64)))
    assert row["rnn.h/update"] == (6.0, 1.0, 0.0)
    assert row["rnn.c/update"] == (10.0, 2.0, 0.0)


def test_recurrent_pair_as_first_argument_is_taken_apart() -> None:
    """What `nn.LSTM` returns is a tuple."""
    _, state = nn.LSTM(3, 4)(torch.ones(2, 5, 3))
    assert columns(observed((state,))) == columns(observed(state))
    assert observed((state,))["rnn.c/update"][0] == 20.0


def test_recurrent_phases_are_apart() -> None:
    """The state met while collecting and the one of the minibatches."""
    with monitoring() as (monitor, record):
        monitor.recurrent(torch.zeros(2), torch.zeros(2), phase="rollout")
        monitor.recurrent(torch.ones(3), torch.ones(3))
        monitor.step()
        assert record.last["rnn.h/rollout"] == (2.0, 0.0, 0.0)
        assert record.last["rnn.h/update"] == (3.0, 1.0, 0.0)


def test_recurrent_state_of_a_gru_has_no_cell() -> None:
    """NOT_CALLED, with its columns in the row."""
    row = observed((torch.ones(2),))
    assert row["rnn.h/update"] == (2.0, 1.0, 0.0)
    assert [row[f"{name}/update"] for name in COLUMNS[3:]] == [Status.NOT_CALLED] * 3


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (None, Status.NOT_CALLED),
        (torch.ones(2, dtype=torch.int64), Status.DTYPE),
        (torch.ones(2, dtype=torch.complex64), Status.DTYPE),
        (torch.ones(2).to_sparse(), Status.DTYPE),
        ([1.0, 2.0, 3.0], Status.DTYPE),
        ("state", Status.DTYPE),
        (torch.ones(2, device="meta"), Status.DEVICE),
        (torch.ones(0, 4), Status.UNDEFINED),
    ],
    ids=str,
)
def test_recurrent_state_that_cannot_be_used_says_why(state: Any, status: Status) -> None:
    """And the other of the two is measured all the same."""
    assert columns(observed((state, torch.ones(2))))[:4] == [status] * 3 + [(2.0, 1.0, 0.0)]
    assert columns(observed((torch.ones(2), state)))[0] == (2.0, 1.0, 0.0)
    assert columns(observed((torch.ones(2), state)))[3:] == [status] * 3


def test_recurrent_bad_call_among_good_ones_is_not_passed_for_the_whole() -> None:
    """A dtype that is refused once makes the update incomplete; None once does not."""
    assert observed((torch.ones(2),), (torch.ones(2).long(),))["rnn.h/update"] is Status.DTYPE
    assert observed((torch.ones(2),), (None,))["rnn.h/update"] == (2.0, 1.0, 0.0)


def test_recurrent_state_too_large_to_stage_is_reduced_in_slices() -> None:
    """The numbers are those of the whole."""
    torch.manual_seed(0)
    h, c = torch.rand(50_000), 3 * torch.rand(50_000)
    small, large = observed((h, c), max_staged_bytes=64 * 1024), observed((h, c))
    for name in COLUMNS:
        assert small[f"{name}/update"] == pytest.approx(large[f"{name}/update"], rel=1e-9)


def test_recurrent_phase_misspelled_gives_one_hint(caplog: pytest.LogCaptureFixture) -> None:
    """It names the nearest, and nothing is measured under the wrong name."""
    with caplog.at_level(logging.WARNING, "gradwatch"), monitoring() as (monitor, record):
        for _ in range(3):
            monitor.recurrent(torch.ones(2), phase="rolout")
        monitor.step()
        assert not [key for key in record.last if key.startswith("rnn")]
    assert [line for line in caplog.messages if "did you mean 'rollout'" in line] == caplog.messages
    assert len(caplog.messages) == 1


def test_recurrent_below_normal_is_not_collected() -> None:
    """And says LEVEL once its columns are known."""
    assert not [key for key in observed((torch.ones(2),), level=Level.MINIMAL) if key.startswith("rnn")]


def test_recurrent_failure_of_ours_is_told_in_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """OUR_ERROR in every column of the phase."""

    def fail(tensor: object) -> None:
        raise ZeroDivisionError

    monkeypatch.delenv("GRADWATCH_STRICT")
    monkeypatch.setattr(recurrent_module, "fault_of", fail)
    assert columns(observed((torch.ones(2), torch.ones(2)))) == [Status.OUR_ERROR] * 6


def test_recurrent_under_autograd_changes_nothing() -> None:
    """The states still require grad, gradients flow, and gradient mode is what it was."""
    lstm = nn.LSTM(2, 3)
    _, (h, c) = lstm(torch.ones(4, 1, 2))
    with monitoring() as (monitor, _):
        monitor.recurrent(h, c)
        assert torch.is_grad_enabled()
        (h.sum() + c.sum()).backward()
        monitor.step()
    assert lstm.weight_hh_l0.grad is not None


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3), (5, 1, 4, 3)])
@pytest.mark.parametrize("pieces", [1, 3])
def test_diversity_equals_the_spread_over_sequences(shape: tuple[int, ...], pieces: int) -> None:
    """Squares of each unit's distance from its mean over the batch, summed over calls, layers and units, in float64."""
    torch.manual_seed(0)
    states = [torch.rand(shape) for _ in range(pieces)]
    with monitoring() as (monitor, record):
        for state in states:
            monitor.recurrent(state, state)
        monitor.step()
        within = sum(float(((one.double() - one.double().mean(-2, keepdim=True)) ** 2).sum()) for one in states)
        assert record.last["rnn.h.within/update"] == pytest.approx(within, rel=1e-9)


def test_diversity_of_a_dead_memory_is_nothing() -> None:
    """All sequences hold the same; the rounding of large sums leaves no more than that."""
    with monitoring() as (monitor, record):
        monitor.recurrent(torch.full((64, 8), 0.7))
        monitor.step()
        assert abs(record.last["rnn.h.within/update"]) < 1e-9


@pytest.mark.parametrize("h", [torch.ones(8), torch.ones(1, 1, 8)])
def test_diversity_of_one_sequence_is_undefined(h: torch.Tensor) -> None:
    """There is nothing to differ from."""
    with monitoring() as (monitor, record):
        monitor.recurrent(h)
        monitor.step()
        assert record.last["rnn.h.within/update"] is Status.UNDEFINED


def test_diversity_of_a_state_too_large_to_be_reduced_whole_is_thinned() -> None:
    """A slice of it has no batch."""
    with monitoring(max_staged_bytes=1024) as (monitor, record):
        monitor.recurrent(torch.rand(40, 16))
        monitor.step()
        assert record.last["rnn.h.within/update"] is Status.THINNED
        assert record.last["rnn.h/update"][0] == 640.0


@pytest.mark.parametrize(
    "reset", [torch.tensor([True, False, True]), torch.tensor([[1.0], [0.0], [1.0]]), torch.tensor([1, 0, 1])]
)
@pytest.mark.parametrize("layers", [(), (2,)])
def test_reset_that_did_not_happen_is_counted(reset: torch.Tensor, layers: tuple[int, ...]) -> None:
    """Two of three sequences begin anew; one of them was not zeroed, in one unit of each layer. NaN is not 0 either."""
    h = torch.zeros(*layers, 3, 2)
    h[..., 1, :] = 0.5
    with monitoring() as (monitor, record):
        monitor.recurrent(h, h.clone(), reset=reset)
        monitor.step()
        assert record.last["rnn.reset.violations/update"] == 0.0
        assert record.last["rnn.reset/update"][1] == pytest.approx(2 / 3)
        h[..., 2, 0] = math.nan
        monitor.recurrent(h, torch.zeros(1), reset=reset)
        monitor.step()
        assert record.last["rnn.reset.violations/update"] == float(math.prod(layers))


@pytest.mark.parametrize(
    ("reset", "status"),
    [
        (torch.zeros(4), Status.SHAPE),
        (torch.zeros(3, dtype=torch.complex64), Status.DTYPE),
        ([0, 1, 0], Status.DTYPE),
        (None, None),
    ],
)
def test_reset_that_does_not_fit_says_why(reset: Any, status: Status | None) -> None:
    """Without one there is no series at all; the state is measured in any case."""
    with monitoring() as (monitor, record):
        monitor.recurrent(torch.zeros(3, 2), reset=reset)
        monitor.step()
        assert record.last.get("rnn.reset.violations/update") is status
        assert record.last["rnn.h/update"][0] == 6.0
