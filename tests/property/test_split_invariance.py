"""However a stream is cut into blocks, and wherever it is saved and loaded: equal verdicts, anomalies and state bytes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_daemon.detect.catalogue import PROFILES
from harness.blocks import Watch, signal_block

if TYPE_CHECKING:
    from gradwatch_daemon.records import Anomaly, SignalBlock, Verdicts

FIELDS = ("code", "severity", "value", "limit", "baseline", "minibatch", "stage")


def stream(seed: int, n: int) -> SignalBlock:
    """A run with noise, bursts, NaN, missing values, cut-short updates and gaps in the update numbers."""
    rng = np.random.default_rng(seed)

    def series(level: float, noise: float, burst: float, share: float) -> list[object]:
        values: list[object] = (level * np.exp(noise * rng.normal(size=n))).tolist()
        for i in range(n):
            draw = rng.random()
            if draw < share:
                for j in range(i, min(n, i + int(rng.integers(1, 5)))):
                    values[j] = burst
            elif draw < share + 0.02:
                values[i] = [np.nan, np.inf, Status.NOT_CALLED, Status.LEVEL][int(rng.integers(4))]
        return values

    counts = [float(rng.random() < 0.02) * 4 for _ in range(n)]
    block = signal_block(
        n,
        flags=[RowFlag.PARTIAL if rng.random() < 0.02 else 0 for _ in range(n)],
        policy__kl__k3=series(0.01, 0.3, 0.4, 0.03),
        policy__ratio__max=series(1.4, 0.1, 30.0, 0.02),
        policy__ratio__min=series(0.7, 0.1, 0.01, 0.02),
        policy__ratio__tail_index=series(1.5, 0.3, 4.5, 0.03),
        policy__logratio__std=series(0.1, 0.3, 0.5, 0.05),
        policy__ratio__first_mb_dev=series(1e-6, 0.3, 0.1, 0.02),
        policy__entropy__norm=series(0.5, 0.05, 0.03, 0.03),
        policy__entropy__norm__of__arm=series(0.4, 0.2, 0.2, 0.03),
        episode__return__mean=series(100.0, 0.2, 300.0, 0.2),
        grad__norm__nonfinite=counts,
        grad__norm__nonfinite_mb=[float(rng.integers(8)) if c else Status.UNDEFINED for c in counts],
    )
    gaps = np.cumsum(1 + (rng.random(n) < 0.02) * rng.integers(1, 40, size=n))
    block.update[:] = gaps
    return block


def run(profile: str, blocks: list[SignalBlock], save_at: set[int]) -> tuple[list[list[Verdicts]], dict[str, Anomaly], bytes]:
    """Feed blocks, saving and loading both states before the blocks in `save_at`."""
    watch, verdicts, anomalies = Watch(profile), [], {}
    for place, block in enumerate(blocks):
        if place in save_at:
            state, lifecycle = watch.state.dump(), watch.lifecycle.dump()
            watch = Watch(watch.profile)
            watch.state.load(state)
            watch.lifecycle.load(lifecycle)
        found = watch.engine.check(watch.state, block)
        verdicts.append(found)
        anomalies.update({anomaly.id: anomaly for anomaly in watch.lifecycle.step(block, found)})
    return verdicts, anomalies, watch.dump()


@pytest.mark.parametrize("profile", PROFILES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), cuts=st.sets(st.integers(1, 259), max_size=40), saves=st.sets(st.integers(0, 40)))
def test_detection_any_split_gives_equal_verdicts_anomalies_and_state(
    profile: str, seed: int, cuts: set[int], saves: set[int]
) -> None:
    """One block of 260 rows against any cut of it, with restarts in between."""
    whole = stream(seed, 260)
    edges = [0, *sorted(cuts), 260]
    parts = [whole.select(slice(first, last)) for first, last in itertools.pairwise(edges)]
    (expected,), anomalies, state = run(profile, [whole], set())
    pieces, split_anomalies, split_state = run(profile, parts, saves)
    for place, verdicts in enumerate(expected):
        for field in FIELDS:
            joined = np.concatenate([getattr(piece[place], field) for piece in pieces])
            assert joined.tobytes() == getattr(verdicts, field).tobytes(), (verdicts.kind, field)
        assert pieces[-1][place].reason == verdicts.reason
    assert repr(split_anomalies) == repr(anomalies)
    assert split_state == state


def test_detection_row_by_row_equals_one_block() -> None:
    """The extreme split, over a stream with every kind of finding."""
    whole = stream(11, 400)
    rows = [whole.select(slice(i, i + 1)) for i in range(400)]
    _, anomalies, state = run("default", [whole], set())
    _, by_row, state_by_row = run("default", rows, {7, 200})
    assert repr(by_row) == repr(anomalies)
    assert state_by_row == state
    found = {a.kind for a in anomalies.values()} | {x.kind for a in anomalies.values() for x in a.attached}
    assert len(found) >= 6, found
