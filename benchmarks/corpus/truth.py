"""What is so, by the trainer's own arithmetic: labels come from here, never from what the agent or the daemon say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = ("return", "reward", "kl", "entropy", "value_loss", "grad_norm", "value_std", "nmse", "move", "finite")
"""True episode return (NaN without an episode), reward as met, means over minibatches, spread and error of the critic, the
relative size of the step the weights took, and whether all of it is finite."""


class Truth:
    """One row of `NAMES` per update, f64."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        self._before: torch.Tensor | None = None
        self.begin()

    def begin(self) -> None:
        """An update begins."""
        self._returns: list[float] = []
        self._minibatches: list[torch.Tensor] = []
        self._rollout = [np.nan] * 3

    def episodes(self, returns: NDArray[Any]) -> None:
        """Episodes ended."""
        self._returns += returns.tolist()

    def collected(self, rewards: NDArray[Any], values: torch.Tensor, returns: torch.Tensor) -> None:
        """A rollout is complete."""
        spread = float(returns.var())
        error = float((returns - values).square().mean())
        self._rollout = [float(rewards.mean()), float(values.std()), error / max(spread, 1e-12)]

    @torch.no_grad()
    def learned(self, log_ratio: torch.Tensor, ratio: torch.Tensor, *rest: torch.Tensor) -> None:
        """A minibatch was learned from: entropy, value loss, gradient norm."""
        self._minibatches.append(torch.stack([(ratio - 1.0 - log_ratio).mean(), *rest]))

    def kl_last(self) -> float:
        """KL (k3) of the last minibatch."""
        return float(self._minibatches[-1][0])

    @torch.no_grad()
    def end(self, policy: torch.nn.Module) -> bool:
        """The update is over; whether its weights are finite."""
        move, self._before, weights_finite = relative_move(policy, self._before)
        means = torch.stack(self._minibatches).mean(0).tolist() if self._minibatches else [0.0] * 4
        row = [float(np.mean(self._returns)) if self._returns else np.nan, self._rollout[0], *means, *self._rollout[1:], move]
        self.rows.append([*row, float(weights_finite and bool(np.isfinite(row[1:]).all()))])
        return weights_finite


@torch.no_grad()
def relative_move(policy: torch.nn.Module, before: torch.Tensor | None) -> tuple[float, torch.Tensor, bool]:
    """How far the weights went since `before`, relative to their norm; the weights; whether they are finite."""
    weights = torch.cat([parameter.flatten() for parameter in policy.parameters()])
    norm = float(weights.norm())
    move = float((weights - before).norm()) / max(norm, 1e-12) if before is not None else 0.0
    return move, weights, bool(np.isfinite(norm))
