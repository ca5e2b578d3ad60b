"""Tiny models of Stable-Baselines3, and what may be done to them while they train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sb3_contrib import RecurrentPPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback

from harness.adapters import Walk

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS, BATCH, EPOCHS = 16, 8, 3
MINIBATCHES = STEPS // BATCH * EPOCHS


def make_model(kind: type[Any] = PPO, env: Any = None, **given: Any) -> Any:
    """A tiny model."""
    own: dict[str, Any] = {"n_steps": STEPS, "batch_size": BATCH, "n_epochs": EPOCHS} if kind is not A2C else {"n_steps": STEPS}
    policy = "MlpLstmPolicy" if kind is RecurrentPPO else "MlpPolicy"
    net = {"lstm_hidden_size": 8, "net_arch": [8]} if kind is RecurrentPPO else {"net_arch": [8]}
    return kind(policy, env or Walk(), policy_kwargs=net, device="cpu", seed=0, **{**own, **given})


class Act(BaseCallback):
    """Does something to the model when a rollout begins, given the number of the rollout."""

    def __init__(self, act: Callable[[Any, int], None]) -> None:
        super().__init__()
        self._act, self._rollout = act, -1

    def _on_rollout_start(self) -> None:
        self._rollout += 1
        self._act(self.model, self._rollout)

    def _on_step(self) -> bool:
        return True
