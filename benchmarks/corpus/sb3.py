"""One arm of the corpus is Stable-Baselines3's own PPO, as it is: disturbed through its environment and a callback only, and
watched by the agent's own adapter, so that the figures are not those of our trainers alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from benchmarks.corpus.environments import ENVIRONMENTS, Discrete
from benchmarks.corpus.truth import relative_move
from gradwatch_agent.adapters import sb3 as adapter

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.corpus.disturbance import Disturbance
    from benchmarks.corpus.setup import Setup
    from gradwatch_agent import Monitor


@dataclass
class Knobs:
    """What a disturbance may turn here: the names are those of `Trainer`."""

    setup: Setup
    policy: Any = None
    update: int = 0
    lr: float = 0.0
    lr_scale: float = 1.0
    ent_coef: float = 0.0
    pause_ms: float = 0.0


class Envs(VecEnv):
    """Our environments in the library's clothes. `returns` are the true ones of the episodes that ended."""

    def __init__(self, setup: Setup, seed: int, disturbed: Disturbance) -> None:
        kind = ENVIRONMENTS[setup.environment]
        self.envs, self.disturbed, self.random = kind(setup.copies, seed), disturbed, np.random.default_rng(seed)
        self.told, self.true = (np.zeros(setup.copies) for _ in range(2))
        self.partial, self.returns = self.envs.age > 0, list[float]()
        space: Any = kind.SPACE
        action = gym.spaces.Discrete(space.n) if isinstance(space, Discrete) else gym.spaces.Box(-1.0, 1.0, space.shape)
        super().__init__(setup.copies, gym.spaces.Box(-np.inf, np.inf, (kind.OBSERVATIONS,)), action)

    def reset(self) -> Any:
        """First observations."""
        return self.envs.see()

    def step_async(self, actions: Any) -> None:
        """Remember them."""
        self.actions = actions

    def step_wait(self) -> Any:
        """One step, as the library wants it told."""
        step = self.envs.step(self.disturbed.action(self.actions))
        reward = self.disturbed.reward(step.reward, self.random)
        self.told += reward
        self.true += step.reward
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for place in np.flatnonzero(step.done):
            infos[place] = {"terminal_observation": step.final[place], "TimeLimit.truncated": bool(step.truncated[place])}
            if not self.partial[place]:
                infos[place]["episode"] = {"r": float(self.told[place]), "l": int(self.envs.LENGTH), "t": 0.0}
                self.returns.append(float(self.true[place]))
        self.told[step.done] = self.true[step.done] = 0.0
        self.partial &= ~step.done
        return self.disturbed.observation(step.obs), reward.astype(np.float32), step.done, infos

    def close(self) -> None:
        """Nothing is held."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The library asks for the way of rendering only."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not used."""

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Not used."""
        return []

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """As if by the library's Monitor: `infos` hold finished episodes."""
        return [True] * self.num_envs


@dataclass
class Arm:
    """What a run leaves: its clock and its truth."""

    clock: list[float] = field(default_factory=list)
    truth: list[list[float]] = field(default_factory=list)


class Hands(BaseCallback):
    """Turns the knobs before each rollout, and notes after each `train()` what was so."""

    def __init__(self, knobs: Knobs, envs: Envs, arm: Arm) -> None:
        super().__init__()
        self.knobs, self.envs, self.arm = knobs, envs, arm
        self.begun = time.process_time()
        self.before: torch.Tensor | None = None
        self.rollout: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_training_start(self) -> None:
        self.knobs.policy, self.knobs.ent_coef = self.model.policy, self.model.ent_coef

    def _on_rollout_start(self) -> None:
        self.note()
        setup, knobs = self.knobs.setup, self.knobs
        knobs.update = len(self.arm.truth)
        knobs.lr = setup.lr * (1.0 - knobs.update / setup.updates if setup.anneal else 1.0)
        self.envs.disturbed.before_update(knobs.update, knobs)  # type: ignore[arg-type]
        self.model.lr_schedule = lambda _: knobs.lr * knobs.lr_scale
        self.model.ent_coef = knobs.ent_coef
        self.envs.returns = []

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        spread, error = float(buffer.returns.var()), float(np.square(buffer.returns - buffer.values).mean())
        self.rollout = [float(buffer.rewards.mean()), float(buffer.values.std()), error / max(spread, 1e-12)]

    def _on_training_end(self) -> None:
        self.note()

    def note(self) -> None:
        """The update that is over, if any."""
        if not self.rollout:
            return
        now = time.process_time()
        self.arm.clock.append((now - self.begun) * 1e3 + self.knobs.pause_ms)
        self.begun = now
        move, self.before, finite = relative_move(self.model.policy, self.before)
        said = self.model.logger.name_to_value
        means = [said["train/approx_kl"], -said["train/entropy_loss"], said["train/value_loss"]]
        returns = float(np.mean(self.envs.returns)) if self.envs.returns else float("nan")
        row = [returns, self.rollout[0], *means, float("nan"), *self.rollout[1:], move]
        self.arm.truth.append([*row, float(finite and bool(np.isfinite([*means, *self.rollout]).all()))])
        self.rollout = []


def train(setup: Setup, seed: int, disturbed: Disturbance, opener: Callable[..., Monitor]) -> Arm:
    """One run. `opener` stands where the adapter calls `watch`. What the library raises on ends the run, as it would."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    arm, envs, knobs = Arm(), Envs(setup, seed, disturbed), Knobs(setup)
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=setup.steps,
        batch_size=setup.steps * setup.copies // setup.minibatches,
        n_epochs=setup.epochs,
        learning_rate=setup.lr,
        gamma=setup.gamma,
        gae_lambda=setup.gae_lambda,
        ent_coef=setup.ent_coef,
        clip_range=setup.clip or 0.2,
        max_grad_norm=setup.max_grad_norm,
        policy_kwargs={"net_arch": [setup.hidden] * 2},
        device="cpu",
        seed=None,
        verbose=0,
    )
    hands = Hands(knobs, envs, arm)
    with patch.object(adapter, "watch", opener), np.errstate(all="ignore"):
        callback = adapter.GradwatchCallback("corpus")
        try:
            model.learn(setup.updates * setup.steps * setup.copies, callback=[hands, callback])
        except ValueError as error:  # "expected parameter logits to satisfy the constraint": NaN
            hands.rollout = []
            arm.truth.append([float("nan")] * 9 + [0.0])
            arm.clock.append(arm.clock[-1])
            if callback.monitor is not None:
                callback.monitor.close_with(error, "exception")
    return arm
