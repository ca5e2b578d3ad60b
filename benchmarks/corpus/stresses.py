"""What is odd but healthy: schedules, plateaus, pauses and heavy tails that tempt a detector."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.corpus.disturbance import Disturbance
from benchmarks.corpus.environments import PointMass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.corpus.trainer import Trainer


class EntropyAnneal(Disturbance):
    """The entropy bonus falls to 0 over the first two thirds of the run, and the policy becomes deterministic."""

    def tamper(self, trainer: Trainer) -> None:
        """Linearly."""
        trainer.ent_coef = trainer.setup.ent_coef * max(0.0, 1.0 - 1.5 * self.age / trainer.setup.updates)


class WarmUpCosine(Disturbance):
    """The learning rate grows over 20 updates and falls along a cosine to 0."""

    def tamper(self, trainer: Trainer) -> None:
        """Needs `anneal=False`."""
        done = (self.age - 20) / max(trainer.setup.updates - 20, 1)
        trainer.lr_scale = (self.age + 1) / 21 if self.age < 20 else 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


class RewardTimesThree(Disturbance):
    """A curriculum rescales rewards by three."""

    def reward(self, reward: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        """From then on."""
        return reward * 3.0 if self.active else reward


class Levels(Disturbance):
    """A curriculum with a harder level every 60 updates: the mass begins a quarter farther away."""

    def tamper(self, trainer: Trainer) -> None:
        """PointMass only."""
        envs = trainer.envs
        assert isinstance(envs, PointMass)
        envs.reach = 1.25 ** (1 + self.age // 60)


class SpreadSchedule(Disturbance):
    """The spread of the policy follows a schedule from 1 to 0.05 and is not learned."""

    def before_update(self, update: int, trainer: Trainer) -> None:
        """Set, not learned."""
        super().before_update(update, trainer)
        share = min(update / (0.8 * trainer.setup.updates), 1.0)
        with torch.no_grad():
            trainer.policy.spread.fill_(math.log(0.05) * share)
        trainer.policy.spread.requires_grad_(False)


class MoreCopies(Disturbance):
    """Eight times as many environments from then on, and with them eight times the minibatch."""

    def tamper(self, trainer: Trainer) -> None:
        """Once."""
        if self.age == 0:
            trainer.set_copies(trainer.copies * 8)


class HeavyTails(Disturbance):
    """Noise on every reward from Student's t with 2.5 degrees of freedom: finite variance, endless outliers."""

    def reward(self, reward: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        """From the start."""
        return reward + 0.3 * random.standard_t(2.5, size=reward.shape)


class Jackpot(Disturbance):
    """One step in a hundred pays fifty times as much."""

    def reward(self, reward: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        """From the start."""
        return np.where(random.random(reward.shape) < 0.01, reward + 50.0 * np.abs(reward), reward)


class Pauses(Disturbance):
    """Evaluation or a checkpoint every 25 updates, ten times as long as an update."""

    def tamper(self, trainer: Trainer) -> None:
        """On the clock of the recording, nobody waits for it."""
        trainer.pause_ms = 150.0 if self.age % 25 == 24 else 0.0
