"""What breaks a run: one `Disturbance` per mechanism. Which case uses which, and from which update, is in `cases`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.corpus.disturbance import Disturbance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.corpus.trainer import Trainer


class LearningRateSpike(Disturbance):
    """The learning rate a hundred times too large for three updates."""

    def tamper(self, trainer: Trainer) -> None:
        """Up, and down again."""
        trainer.lr_scale = 100.0 if self.age < 3 else 1.0


class LearningRateHigh(Disturbance):
    """The learning rate thirty times too large, and no longer annealed."""

    def tamper(self, trainer: Trainer) -> None:
        """Against the annealing."""
        trainer.lr_scale = 30.0 * trainer.setup.lr / max(trainer.lr, 1e-12)


class EntropyPenalty(Disturbance):
    """A sign error: entropy is punished."""

    def tamper(self, trainer: Trainer) -> None:
        """From 0.01."""
        trainer.ent_coef = -0.1


class RewardScale(Disturbance):
    """Rewards a thousand times as large."""

    def reward(self, reward: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        """As in a change of units."""
        return reward * 1000.0 if self.active else reward


class NanObservation(Disturbance):
    """A sensor glitch: one observation of one environment is no number, once."""

    pending = True

    def observation(self, obs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first one."""
        if self.active and self.pending:
            self.pending = False
            obs = obs.copy()
            obs[0] = math.nan
        return obs


class InfiniteReward(Disturbance):
    """One reward is infinite, once."""

    pending = True

    def reward(self, reward: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        """The first one."""
        if self.active and self.pending:
            self.pending = False
            reward = reward.copy()
            reward[0] = math.inf
        return reward


class RewardSign(Disturbance):
    """Rewards with the wrong sign."""

    def reward(self, reward: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        """From then on."""
        return -reward if self.active else reward


class StaleLogp(Disturbance):
    """The log-probabilities of the rollout before: the same shape, other actions."""

    last: torch.Tensor | None = None

    def old_logp(self, logp: torch.Tensor) -> torch.Tensor:
        """One rollout late."""
        stale, self.last = self.last, logp.clone()
        return stale if self.active and stale is not None else logp


class FreshCritic(Disturbance):
    """The head of the critic is initialised again, ten times as large."""

    def tamper(self, trainer: Trainer) -> None:
        """Once."""
        if self.age == 0:
            torch.nn.init.orthogonal_(trainer.policy.critic.weight, 10.0)
            torch.nn.init.zeros_(trainer.policy.critic.bias)


class LostNormalizer(Disturbance):
    """Observations a thousand times as large."""

    def observation(self, obs: NDArray[np.float32]) -> NDArray[np.float32]:
        """From then on."""
        return obs * np.float32(1000.0) if self.active else obs


class DeadUnits(Disturbance):
    """Every hidden unit is pushed below zero: with ReLU they are dead."""

    def tamper(self, trainer: Trainer) -> None:
        """Once."""
        if self.age == 0:
            with torch.no_grad():
                for name, parameter in trainer.policy.named_parameters():
                    if "trunk" in name and name.endswith("bias"):
                        parameter.sub_(10.0)


class Unclipped(Disturbance):
    """No clipping of the ratio, and forty passes over each rollout."""

    def tamper(self, trainer: Trainer) -> None:
        """From then on."""
        trainer.clip, trainer.epochs = None, 40


class OpenGates(Disturbance):
    """An LSTM that forgets nothing and takes everything in: its cell state only grows."""

    def tamper(self, trainer: Trainer) -> None:
        """Once. torch keeps the gates as input, forget, cell, output."""
        if self.age == 0:
            bias: Any = trainer.policy.get_parameter("lstm.bias_ih_l0")
            with torch.no_grad():
                bias[: bias.numel() // 2] += 20.0


class FastSpread(Disturbance):
    """Entropy is punished a little, and the spread, a raw parameter with a learning rate of its own, goes to zero and below."""

    def tamper(self, trainer: Trainer) -> None:
        """Not annealed with the rest."""
        trainer.ent_coef = -0.05
        if self.age == 0:
            trainer.free_spread(1e-2)
