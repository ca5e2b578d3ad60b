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
from gradwatch_daemon.records import Verdict
from harness.blocks import Seen, Watch, signal_block

if TYPE_CHECKING:
    from gradwatch_daemon.records import Anomaly, SignalBlock

BREACH = Verdict.BREACH
FIELDS = ("severity", "value", "limit", "baseline", "minibatch", "stage")
"""What is read where a row is in breach."""


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
        episode__count=series(6.0, 0.3, 0.0, 0.1),
        value__nmse=series(0.5, 0.3, 20.0, 0.04),
        value__explained_variance=series(0.4, 0.5, -3.0, 0.05),
        value__target__std=series(5.0, 0.2, 0.1, 0.05),
        grad__norm__mean=series(0.5, 0.3, 90.0, 0.04),
        grad__health=series(0.8, 0.05, 0.2, 0.05),
        grad__tensor_norm__min=series(1e-3, 0.5, 1e-9, 0.04),
        grad__tensor_norm__over_clip=series(1.0, 0.5, 40.0, 0.04),
        rnn__h__rms__of__rollout=series(0.3, 0.1, 1e-8, 0.03),
        rnn__h__saturation__of__rollout=series(0.1, 0.3, 0.9, 0.05),
        rnn__c__rms__of__rollout=series(0.8, 0.1, 30.0, 0.03),
        rnn__c__absmax__of__rollout=series(3.0, 0.2, 60.0, 0.05),
        rnn__h__rms__of__update=series(0.3, 0.1, 20.0, 0.03),
        opt__steps=[0.0 if rng.random() < 0.05 else 16.0 for _ in range(n)],
        opt__skipped=[float(rng.integers(1, 17)) if rng.random() < 0.05 else 0.0 for _ in range(n)],
        loss__total=[Status.NOT_CALLED if n // 2 < i < n // 2 + 20 else 0.3 for i in range(n)],
        grad__norm__nonfinite=counts,
        grad__norm__nonfinite_mb=[float(rng.integers(8)) if c else Status.UNDEFINED for c in counts],
    )
    block.flags[-1] = 0  # as the pipeline cuts blocks: see `end_whole`
    gaps = np.cumsum(1 + (rng.random(n) < 0.02) * rng.integers(1, 40, size=n))
    if seed % 3 == 0:  # a trainer that goes back to a checkpoint, twice
        gaps[n // 3 :] -= 60
        gaps[n // 2 :] -= 10
    block.update[:] = gaps
    return block


def run(
    profile: str, blocks: list[SignalBlock], save_at: set[int]
) -> tuple[dict[tuple[str, str], list[tuple[int, Seen]]], dict[str, Anomaly], bytes]:
    """Feed blocks, saving and loading both states before the blocks in `save_at`; verdicts by subject, with their first row."""
    watch, anomalies, row = Watch(profile), {}, 0
    verdicts: dict[tuple[str, str], list[tuple[int, Seen]]] = {}
    for place, block in enumerate(blocks):
        if place in save_at:
            state, lifecycle = watch.state.dump(), watch.lifecycle.dump()
            watch = Watch(watch.profile)
            watch.state.load(state)
            watch.lifecycle.load(lifecycle)
        found = watch.engine.check(watch.state, block, watch.updates_total)
        for v in found:
            verdicts.setdefault((v.kind, v.subject), []).append((row, Seen(v)))
        anomalies.update({anomaly.id: anomaly for anomaly in watch.lifecycle.step(block, found)})
        row += len(block)
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
    expected, anomalies, state = run(profile, [whole], set())
    pieces, split_anomalies, split_state = run(profile, parts, saves)
    assert expected.keys() == pieces.keys()
    for key, ((_, verdicts),) in expected.items():
        first = pieces[key][0][0]  # a subject that a detector meets later has no verdicts before
        assert not (verdicts.code[:first] == BREACH).any()
        code = np.concatenate([seen.code for _, seen in pieces[key]])
        assert code.tobytes() == verdicts.code[first:].tobytes(), key
        for field in FIELDS:
            joined = np.concatenate([getattr(seen, field) for _, seen in pieces[key]])[code == BREACH]
            assert joined.tobytes() == getattr(verdicts, field)[first:][code == BREACH].tobytes(), (key, field)
        assert pieces[key][-1][1].reason == verdicts.reason
    assert repr(split_anomalies) == repr(anomalies)
    assert split_state == state


@pytest.mark.parametrize("seed", [11, 12])
def test_detection_row_by_row_equals_one_block(seed: int) -> None:
    """The extreme split, over a stream with every kind of finding."""
    whole = stream(seed, 400)
    rows = [whole.select(slice(i, i + 1)) for i in range(400)]
    _, anomalies, state = run("default", [whole], set())
    _, by_row, state_by_row = run("default", rows, {7, 200})
    assert repr(by_row) == repr(anomalies)
    assert state_by_row == state
    found = {a.kind for a in anomalies.values()} | {x.kind for a in anomalies.values() for x in a.attached}
    assert len(found) >= 12, found
