"""What counts as a change of regime, and what does not; that it mutes what is relative, visibly, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from gradwatch_daemon.detect.context import APART_LEAST, RATE, SAMPLES, Context
from gradwatch_daemon.records import Verdict
from harness.blocks import Watch, signal_block

NAN = float("nan")


def changes(sizes: list[int], rates: list[float] | None = None) -> list[int]:
    """Updates at which the regime changed: `sizes` are environment steps of each update."""
    context = Context()
    steps = np.cumsum(sizes).tolist()
    return [u for u, at in enumerate(steps) if context.step(u, at, rates[u] if rates else NAN)]


def test_context_size_that_was_steady_and_changes_is_a_change_once() -> None:
    """Eight times as many environments, from update 100 on."""
    assert changes([1024] * 100 + [8192] * 100) == [100]
    assert changes([1024] * 100 + [1400] * 100) == []


def test_context_batches_of_whole_episodes_are_no_change() -> None:
    """A size that differs all the time is never steady."""
    rng = np.random.default_rng(0)
    assert changes(rng.integers(500, 3000, size=300).tolist()) == []


def test_context_rate_that_falls_at_once_is_a_change_and_one_that_rises_or_anneals_is_not() -> None:
    """A rate that rises is how runs break, and must not mute what would see it."""
    size = [1024] * 200
    assert changes(size, [1e-3] * 100 + [1e-4] * 100) == [100]
    assert changes(size, [1e-4] * 100 + [1e-2] * 100) == []
    assert changes(size, [1e-3 * (1 - u / 250) for u in range(200)]) == []
    assert changes(size, [1e-3 / 1.5 ** (u % 2) for u in range(200)]) == []


def test_context_changes_close_together_count_once() -> None:
    """A run that changes all the time would be muted for ever."""
    rates = [2.0 ** -(u // 10) for u in range(200)]
    found = changes([1024] * 200, rates)
    assert min(np.diff(found)) >= APART_LEAST


def test_context_state_goes_on_the_same() -> None:
    """Restored in the middle."""
    one = Context()
    for u in range(50):
        one.step(u, 1024 * u, 1e-3)
    other = Context.restored(one.state())
    assert other.state() == one.state()
    assert one.step(50, 99_000, 1e-3)
    assert other.step(50, 99_000, 1e-3)
    assert one.reason == SAMPLES


def test_regime_change_mutes_relative_rules_says_so_and_leaves_backstops_armed() -> None:
    """The learning rate falls tenfold: KL falls with it, then a spike in the mute."""
    watch = Watch()
    watch.check(signal_block(80))
    found = watch.check(signal_block(8, start=80, opt__lr=3e-5, policy__kl__k3=[0.001] * 6 + [0.09, 0.9]))
    assert set(found["kl_spike"].code.tolist()) == {Verdict.LEARNING}
    assert found["kl_spike"].reason == f"muted, for {RATE} at update 80; 4 of 12 updates to learn from"
    assert found["kl_extreme"].code[-1] == Verdict.BREACH


@pytest.mark.parametrize("single", [False, True])
def test_regime_change_is_found_row_by_row_as_in_a_block(single: bool) -> None:
    """The path of one row and that of many."""
    watch = Watch()
    watch.check(signal_block(80))
    after = signal_block(4, start=80, opt__lr=3e-5)
    for block in [after.select(slice(i, i + 1)) for i in range(4)] if single else [after]:
        found = watch.check(block)
    assert found["kl_spike"].reason.startswith("muted")
