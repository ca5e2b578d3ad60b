"""The toy environments: their dynamics are those of gymnasium, and every copy lives for itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.corpus.environments import ENVIRONMENTS, Box, CartPole, Discrete, Environment, Recall


def _actions(kind: type[Environment], copies: int, random: np.random.Generator) -> Any:
    if isinstance(kind.SPACE, Discrete):
        return random.integers(kind.SPACE.n, size=copies)
    return random.uniform(-1.0, 1.0, (copies, *kind.SPACE.shape))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environment_same_seed_twice_gives_the_same_steps(name: str) -> None:
    """A recording is reproducible, and shapes and types are those a trainer relies on."""
    kind = ENVIRONMENTS[name]
    seen = []
    for _ in range(2):
        envs, random = kind(5, 3), np.random.default_rng(4)
        steps = [envs.step(_actions(kind, 5, random)) for _ in range(120)]
        seen.append(np.concatenate([step.obs.ravel() for step in steps]))
        assert steps[-1].obs.shape == (5, kind.OBSERVATIONS)
        assert steps[-1].obs.dtype == np.float32
        assert all(np.isfinite(step.reward).all() for step in steps)
    np.testing.assert_array_equal(seen[0], seen[1])


@pytest.mark.parametrize("name", [name for name, kind in ENVIRONMENTS.items() if kind.LENGTH <= 200])
def test_environment_at_its_length_ends_and_begins_again(name: str) -> None:
    """Every copy is cut off within its length, and its next observation is of a new episode, not of the end."""
    kind = ENVIRONMENTS[name]
    envs, random = kind(4, 1), np.random.default_rng(2)
    ended = np.zeros(4, np.bool_)
    for _ in range(kind.LENGTH):
        step = envs.step(_actions(kind, 4, random))
        ended |= step.done
        assert (envs.age[step.done] == 0).all()
        np.testing.assert_array_equal(step.obs[~step.done], step.final[~step.done])
    assert ended.all()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("CartPole", "CartPole-v1"), ("Acrobot", "Acrobot-v1"), ("MountainCar", "MountainCar-v0"), ("Pendulum", "Pendulum-v1")],
)
def test_environment_beside_gymnasium_moves_alike(name: str, theirs: str) -> None:
    """Twenty steps from the same state with the same actions give the same observations and rewards."""
    gym = pytest.importorskip("gymnasium")
    kind = ENVIRONMENTS[name]
    envs, reference, random = kind(1, 0), gym.make(theirs).unwrapped, np.random.default_rng(5)
    reference.reset(seed=1)
    envs.age[:] = 0
    reference.state = envs.state[0].copy()
    for _ in range(20):
        action = _actions(kind, 1, random)
        told = 2.0 * action[0] if isinstance(kind.SPACE, Box) else int(action[0])
        obs, reward, terminated, *_ = reference.step(told)
        step = envs.step(action)
        np.testing.assert_allclose(step.final[0], np.asarray(obs, np.float32), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(step.reward[0], reward, rtol=1e-6)
        assert bool(step.terminated[0]) == terminated
        if terminated:
            break


def test_cartpole_one_copy_falls_others_go_on() -> None:
    """A reset touches the copy that ended and no other."""
    envs = CartPole(3, 0)
    envs.state[1] = [0.0, 0.0, 0.2, 3.0]
    before = envs.state[0].copy()

    step = envs.step(np.array([0, 1, 0]))

    assert step.terminated.tolist() == [False, True, False]
    assert np.abs(envs.state[1]).max() <= 0.05
    assert not np.array_equal(envs.state[0], before)


def test_recall_answer_at_the_go_signal_pays_only_then() -> None:
    """The cue pays at the go signal, and nothing pays before it."""
    envs = Recall(64, 0)
    cue, paid = envs.state[:, 0].copy(), np.zeros(64)
    asked = np.zeros(64, np.bool_)
    for _ in range(3):
        due = envs.state[:, 1] == 0
        step = envs.step(cue.astype(np.int64))
        assert (step.reward[~due] == 0.0).all()
        paid += np.where(due & ~asked, step.reward, 0.0)
        asked |= due
    assert asked.all()
    assert (paid == 1.0).all()
