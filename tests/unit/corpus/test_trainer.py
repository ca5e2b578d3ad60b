"""The small trainers: they learn, they are watched by the real agent, and what breaks them shows where it should."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from benchmarks.corpus import cases, faults
from benchmarks.corpus.cases import CASES, Case
from benchmarks.corpus.disturbance import Disturbance
from benchmarks.corpus.recorder import record_run
from benchmarks.corpus.replay import derive
from benchmarks.corpus.setup import Setup
from benchmarks.corpus.truth import NAMES

if TYPE_CHECKING:
    from benchmarks.corpus.recording import Recording

TWO_STATE = Setup("TwoState", gamma=0.9, updates=12)


def _series(recording: Recording, name: str) -> list[float]:
    blocks = derive(recording)
    found: list[float] = []
    for block in blocks:
        row = next(row for row, key in enumerate(block.signals) if key.name == name)
        values = np.where(block.status[row] == 0, block.values[row], np.nan)
        found += values.tolist()
    return found


def _run(setup: Setup, disturbance: type[Disturbance] = Disturbance, inject: int = 6, **more: object) -> Recording:
    return record_run(Case("X", "test", setup, disturbance, inject, "abrupt", **more), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "setup",
    [
        TWO_STATE,
        replace(cases.RECALL, updates=4),
        replace(cases.POINTMASS, updates=4),
        replace(cases.PENDULUM, updates=4, raw_std=True, log_std=0.5),
    ],
)
def test_trainer_healthy_begins_each_update_at_ratio_one(setup: Setup) -> None:
    """Acting in numpy and learning in torch is one policy; the agent's own probe says so, and saw every update."""
    recording = _run(setup)

    assert recording.updates == setup.updates
    assert max(_series(recording, "policy.ratio.first_mb_dev")) < 1e-4


def test_trainer_two_states_learns_them() -> None:
    """A trainer that does not learn would be healthy in nothing."""
    recording = _run(TWO_STATE)

    returns = recording.truth[:, NAMES.index("return")]
    assert np.nanmean(returns[-3:]) > 1.5 * np.nanmean(returns[:3])


def test_trainer_same_seed_twice_gives_the_same_rows() -> None:
    """Recordings are made by seed; only the clock differs."""
    first, second = (_run(replace(TWO_STATE, updates=3)) for _ in range(2))

    np.testing.assert_array_equal(first.truth, second.truth)
    assert _series(first, "policy.kl.k3") == _series(second, "policy.kl.k3")


def test_trainer_stale_logp_shows_in_the_first_minibatch() -> None:
    """What is told to the agent is what the trainer believes."""
    recording = _run(TWO_STATE, faults.StaleLogp)

    deviations = _series(recording, "policy.ratio.first_mb_dev")
    assert max(deviations[:6]) < 1e-4
    assert min(deviations[6:8]) > 1e-3


def test_trainer_nan_observation_ends_soon_after_its_weights_are_gone() -> None:
    """A run without finite weights has nothing more to tell."""
    recording = _run(replace(TWO_STATE, updates=40), faults.NanObservation)

    assert recording.updates == 6 + 10
    assert recording.truth[6, NAMES.index("finite")] == 0.0
    assert _series(recording, "obs.input.nonfinite")[5:7] == [0.0, 2.0]


@pytest.mark.parametrize("id", [id for id in CASES if CASES[id].disturbance is not Disturbance])
def test_case_whose_disturbance_begins_at_once_trains_on(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every disturbance finds the knob it turns: three updates of each case, disturbed from the second. The library raises on
    weights that are not finite; the update it broke off is there."""
    # What torch does by itself, until something in the process is compiled: that turns it off for good.
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)
    case = CASES[id]
    recording = record_run(replace(case, setup=replace(case.setup, updates=3, epochs=1), inject=1, resume=None), 1)

    assert recording.updates == (2 if id == "L02" else 3)
    assert len(recording.truth) >= recording.updates
    assert {part.attempt for part in recording.parts} == {1}


def test_case_resumed_has_two_attempts_and_repeats_updates() -> None:
    """A restart is another attempt that begins again at its checkpoint."""
    case = replace(CASES["T11"], setup=replace(CASES["T11"].setup, updates=6), resume=(4, 2))

    parts = record_run(case, 1).parts

    assert [(part.attempt, part.update.tolist()) for part in parts] == [(1, [0, 1]), (1, [2, 3]), (2, [2, 3, 4, 5])]
