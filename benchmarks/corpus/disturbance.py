"""The hooks by which a case gets its hands on a trainer. Here they do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from benchmarks.corpus.trainer import Trainer


class Disturbance:
    """`active` from update `begin` on; `age` counts from there."""

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.age = -begin

    @property
    def active(self) -> bool:
        """Whether it is on."""
        return self.age >= 0

    def before_update(self, update: int, trainer: Trainer) -> None:
        """Before the rollout."""
        self.age = update - self.begin
        if self.active:
            self.tamper(trainer)

    def tamper(self, trainer: Trainer) -> None:
        """Once an update while active: the knobs, weights and optimizer of the trainer."""

    def action(self, action: NDArray[Any]) -> NDArray[Any]:
        """What the environment is told."""
        return action

    def observation(self, obs: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the trainer sees."""
        return obs

    def reward(self, reward: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
        """What the trainer is rewarded with."""
        return reward

    def old_logp(self, logp: torch.Tensor) -> torch.Tensor:
        """The rollout's log-probabilities, as the update uses them."""
        return logp

    def loss(self, loss: torch.Tensor) -> torch.Tensor:
        """What is differentiated."""
        return loss

    def optimize(self, optimizer: torch.optim.Optimizer) -> None:
        """One optimizer step."""
        optimizer.step()

    def after_update(self, trainer: Trainer) -> None:
        """After the last optimizer step."""
