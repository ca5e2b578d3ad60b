"""On a GPU: one transfer an update, no call waits, capture goes on, memory is bounded. What needs none runs on the CPU too."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Level
from harness import gpu_checks

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
gpu = [pytest.mark.cuda, pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device, and there is none here")]
LEVELS = [Level.NORMAL, Level.DEBUG]
BYTES_MAX = 16 * 1024 * 1024
CALL_MS_MAX = 100.0
"""Against 200 ms and more of a stalled GPU: a call that waits is told from a busy machine."""


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own errors are raised; what is under way when a run closes may take its time."""
    monkeypatch.setenv("GRADWATCH_STRICT", "1")
    monkeypatch.setattr("gradwatch_contracts.limits.CLOSE_S", 10.0)


@pytest.mark.parametrize("level", LEVELS)
class TestGpu:
    """Of CUDA alone."""

    pytestmark = gpu

    def test_run_makes_one_copy_to_the_host_per_update_and_never_waits(self, level: Level) -> None:
        """As the profiler counts them, with us less without us."""
        assert +gpu_checks.extra_calls(DEVICE, level, updates=4) == Counter({"copies to the host": 4})

    def test_run_under_sync_debug_errors_goes_through(self, level: Level) -> None:
        """torch raises where a call of it waits for the device."""
        rows = gpu_checks.train_under_sync_errors(DEVICE, level)
        assert [row["grad.norm"][0] for row in rows] == [6.0] * 3

    def test_memory_on_the_device_is_bounded(self, level: Level) -> None:
        """At its peak."""
        assert gpu_checks.device_bytes(DEVICE, level) <= BYTES_MAX


class TestCalls:
    """Of CUDA, at the level that does most."""

    pytestmark = gpu

    def test_calls_while_the_gpu_is_stalled_return(self) -> None:
        """The GPU is still busy when the last of them has returned."""
        slowest_ms, busy = gpu_checks.slowest_call_while_stalled(DEVICE)
        assert busy
        assert slowest_ms < CALL_MS_MAX

    def test_updates_that_end_while_the_gpu_is_stalled_are_told(self) -> None:
        """More of them than there are slots: no step waits for one, and each arrives or is told as lost."""
        slowest_ms, lost, arrived = gpu_checks.updates_while_stalled(DEVICE, 8)
        assert slowest_ms < CALL_MS_MAX
        assert lost > 0
        assert lost + arrived >= 8

    def test_calls_inside_a_graph_capture_leave_it_alone(self) -> None:
        """The graph is captured and replayed; what it would have measured says CAPTURING."""
        row = gpu_checks.capture_graph(DEVICE)
        assert row["value.new"] is row["loss.total"] is row["rnn.h/update"] is Status.CAPTURING


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norm_that_overflows_its_dtype_is_told_in_float64(dtype: torch.dtype, clip: bool) -> None:
    """On the CPU always. On a GPU after clipping torch's own norm is told, since looking at it would wait."""
    told, true = gpu_checks.norm_of_overflow(DEVICE, dtype, clip=clip)
    if DEVICE == "cpu" or not clip:
        assert told == pytest.approx(true, rel=1e-2)
    else:
        assert told == pytest.approx(true, rel=1e-2) or told == float("inf")


@pytest.mark.parametrize("level", LEVELS)
def test_run_on_the_device_is_bit_identical_with_us(level: Level) -> None:
    """Where the GPU is deterministic, as these operators are."""
    assert gpu_checks.is_bit_identical(DEVICE, level)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norm_under_autocast_is_that_of_the_unscaled_gradients(dtype: torch.dtype) -> None:
    """With float16 the loss is scaled, and unscaled before the clip."""
    told, true = gpu_checks.norm_under_autocast(DEVICE, dtype)
    assert told == pytest.approx(true, rel=1e-3)


def test_step_that_grad_scaler_leaves_out_is_told_as_skipped() -> None:
    """Its scaled gradients overflow."""
    assert gpu_checks.skipped_by_scaler(DEVICE) == 1.0


def test_learning_rate_that_is_a_tensor_on_the_device_is_that_of_the_last_step() -> None:
    """A schedule writes to it in place, before and after; nothing waits for it."""
    assert gpu_checks.learning_rate_told(DEVICE) == pytest.approx(0.01)
