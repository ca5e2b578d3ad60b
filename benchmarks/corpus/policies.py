"""Policies of the small trainers. They act in numpy, on views of torch's weights, and are scored and trained in torch.

A step of 16 copies through two layers of 64 costs 30 us in numpy and four times that in torch. What the update compares with is
scored in torch after the rollout, so that the ratio of the first minibatch is 1 as in any PPO.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import torch
from torch import nn

from benchmarks.corpus.environments import Discrete

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from benchmarks.corpus.environments import Environment
    from benchmarks.corpus.setup import Setup

    Rows = Union[torch.Tensor, tuple[slice, torch.Tensor]]

LOG_2PI = math.log(2 * math.pi)


class Scores:
    """What a policy says of actions taken: log-probability, entropy and value, all of one shape; `state` is (h, c) or None."""

    __slots__ = ("entropy", "logp", "state", "value")

    def __init__(self, logp: torch.Tensor, entropy: torch.Tensor, value: torch.Tensor, state: Any = None) -> None:
        self.logp, self.entropy, self.value, self.state = logp, entropy, value, state


class Policy(nn.Module):
    """Actor and critic. `discrete` or Gaussian with a spread that does not depend on the state.

    The spread is exp(log_std); with `raw_std` it is a parameter of its own, which nothing keeps above zero, as in the rsl_rl
    family.
    """

    def __init__(self, setup: Setup, kind: type[Environment], inputs: int) -> None:
        super().__init__()
        space = kind.SPACE
        self.discrete = isinstance(space, Discrete)
        self.outputs = space.n if isinstance(space, Discrete) else space.shape[0]
        self.actor = nn.Linear(inputs, self.outputs)
        self.critic = nn.Linear(inputs, 1)
        _orthogonal(self.actor, 0.01)
        _orthogonal(self.critic, 1.0)
        self.raw_std = setup.raw_std
        if not self.discrete:
            first = math.exp(setup.log_std) if setup.raw_std else setup.log_std
            spread = nn.Parameter(torch.full((self.outputs,), first))
            self.register_parameter("std" if setup.raw_std else "log_std", spread)

    @property
    def probe(self) -> nn.Module | None:
        """None where there is no trunk to look into."""
        return None

    @property
    def spread(self) -> torch.Tensor:
        """The parameter behind the spread of a Gaussian policy."""
        return self.get_parameter("std" if self.raw_std else "log_std")

    def begin_rollout(self, copies: int) -> None:
        """Episodes may begin here: forget."""

    def act(self, obs: NDArray[np.float32], random: np.random.Generator) -> NDArray[Any]:
        """Sampled actions of one step of all copies."""
        head = self._features(obs) @ _array(self.actor.weight).T + _array(self.actor.bias)
        if self.discrete:
            return (head + random.gumbel(size=head.shape)).argmax(1)
        spread = _array(self.spread)
        spread = spread if self.raw_std else np.exp(spread)
        return (head + spread * random.standard_normal(head.shape)).astype(np.float32)

    def score(self, obs: torch.Tensor, actions: torch.Tensor) -> Scores:
        """Of actions taken, as the policy is now."""
        raise NotImplementedError

    def view(self, rollout: torch.Tensor) -> torch.Tensor:
        """A rollout [steps, copies, ...] as `batches` indexes it."""
        raise NotImplementedError

    def batches(self, steps: int, copies: int, count: int) -> Iterator[Rows]:
        """`count` random parts of a rollout."""
        raise NotImplementedError

    def _features(self, obs: NDArray[np.float32]) -> NDArray[Any]:
        raise NotImplementedError

    def _judge(self, features: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy."""
        head = self.actor(features)
        if self.discrete:
            logits = head - head.logsumexp(-1, keepdim=True)
            return logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1), -(logits * logits.exp()).sum(-1)
        log_std = self.spread.log() if self.raw_std else self.spread
        scaled = (actions - head) * (-log_std).exp()
        logp = -0.5 * scaled.square().sum(-1) - log_std.sum() - 0.5 * self.outputs * LOG_2PI
        entropy = (log_std.sum() + 0.5 * self.outputs * (1.0 + LOG_2PI)).expand(logp.shape)
        return logp, entropy


class Feedforward(Policy):
    """Two hidden layers each for actor and critic, as in CleanRL; `relu` instead of tanh where the case says so."""

    def __init__(self, setup: Setup, kind: type[Environment]) -> None:
        super().__init__(setup, kind, setup.hidden)
        self.relu = setup.relu
        self.trunk, self.value_trunk = (_layers(kind.OBSERVATIONS, setup) for _ in range(2))

    @property
    def probe(self) -> nn.Module | None:
        """What `watch(probe=)` looks into."""
        return self.trunk

    def score(self, obs: torch.Tensor, actions: torch.Tensor) -> Scores:
        """See Policy."""
        return Scores(*self._judge(self.trunk(obs), actions), self.critic(self.value_trunk(obs)).squeeze(-1))

    def view(self, rollout: torch.Tensor) -> torch.Tensor:
        """Every step for itself."""
        return rollout.flatten(0, 1)

    def batches(self, steps: int, copies: int, count: int) -> Iterator[Rows]:
        """See Policy."""
        yield from torch.randperm(steps * copies).chunk(count)

    def _features(self, obs: NDArray[np.float32]) -> NDArray[Any]:
        found: NDArray[Any] = obs
        for layer in self.trunk:
            if isinstance(layer, nn.Linear):
                found = found @ _array(layer.weight).T + _array(layer.bias)
                found = np.maximum(found, 0.0) if self.relu else np.tanh(found)
        return found


class Recurrent(Policy):
    """One LSTM layer under both heads. A rollout is one whole episode of every copy, so the state begins at zero."""

    def __init__(self, setup: Setup, kind: type[Environment]) -> None:
        super().__init__(setup, kind, setup.hidden)
        self.lstm = nn.LSTM(kind.OBSERVATIONS, setup.hidden)
        self.hidden = setup.hidden
        self.h = self.c = np.zeros((0, setup.hidden), np.float32)

    def begin_rollout(self, copies: int) -> None:
        """Every copy begins an episode."""
        self.h, self.c = (np.zeros((copies, self.hidden), np.float32) for _ in range(2))

    def score(self, obs: torch.Tensor, actions: torch.Tensor) -> Scores:
        """See Policy; over whole episodes [steps, copies]. Of the cell states torch gives only the last ones."""
        hidden, (_, cell) = self.lstm(obs)
        return Scores(*self._judge(hidden, actions), self.critic(hidden).squeeze(-1), (hidden, cell))

    def view(self, rollout: torch.Tensor) -> torch.Tensor:
        """Whole episodes."""
        return rollout

    def batches(self, steps: int, copies: int, count: int) -> Iterator[Rows]:
        """See Policy."""
        for part in torch.randperm(copies).chunk(count):
            yield slice(None), part

    def _features(self, obs: NDArray[np.float32]) -> NDArray[Any]:
        lstm = self.lstm
        gates = obs @ _array(lstm.weight_ih_l0).T + _array(lstm.bias_ih_l0)
        gates = gates + self.h @ _array(lstm.weight_hh_l0).T + _array(lstm.bias_hh_l0)
        take, keep, new, show = np.split(gates, 4, 1)
        self.c = _sigmoid(keep) * self.c + _sigmoid(take) * np.tanh(new)
        self.h = _sigmoid(show) * np.tanh(self.c)
        return self.h


def _layers(inputs: int, setup: Setup) -> nn.Sequential:
    bend = nn.ReLU if setup.relu else nn.Tanh
    one, two = nn.Linear(inputs, setup.hidden), nn.Linear(setup.hidden, setup.hidden)
    for layer in (one, two):
        _orthogonal(layer, math.sqrt(2))
    return nn.Sequential(one, bend(), two, bend())


def _orthogonal(layer: nn.Linear, gain: float) -> None:
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)


def _array(parameter: torch.Tensor) -> NDArray[Any]:
    """The weights themselves, not a copy."""
    found: NDArray[Any] = parameter.detach().numpy()
    return found


def _sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return 0.5 * (np.tanh(0.5 * x) + 1.0)
