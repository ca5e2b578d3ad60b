"""What each fault does to a trainer: a few hooks that a healthy trainer runs through unchanged.

The demo's trainers call them at the lines that say `broken`. No hook sees the monitor: what is told to gradwatch is what
the trainer believes.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from torch import nn

SCALE = 65536.0
"""What torch's GradScaler starts with."""


class Sabotage:
    """No fault. `active` from update `begin` on, which `before_update` notes before any other hook of that update."""

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.update = -1

    @property
    def age(self) -> int:
        """Updates since the fault began; negative before."""
        return self.update - self.begin

    @property
    def active(self) -> bool:
        """Whether the fault is on."""
        return self.age >= 0

    def before_update(self, update: int, agent: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Before the rollout: weights and learning rate."""
        self.update = update
        if self.active:
            self.tamper(agent, optimizer)

    def tamper(self, agent: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Once an update while active, before its rollout."""

    def step(self, envs: Any, action: Any) -> Any:
        """One step of the environments; `envs` is a gymnasium vector environment or like one."""
        return envs.step(action)

    def logp(self, logp: torch.Tensor) -> torch.Tensor:
        """The rollout's log-probabilities, as the update will use them."""
        return logp

    def loss(self, loss: torch.Tensor) -> torch.Tensor:
        """What is differentiated."""
        return loss

    def optimize(self, optimizer: torch.optim.Optimizer) -> None:
        """One optimizer step."""
        optimizer.step()

    def after_update(self, agent: nn.Module) -> None:
        """After the last optimizer step."""


class LeapingPolicy(Sabotage):
    """One bias of the policy is off while it collects, and the first optimizer step puts it right: a leap of `leap` nats.

    What was rare in the rollout is then many times as likely. A learning rate a hundred times too high does the same in
    some runs; in others the policy is too soft for any ratio to be large, or at once too sharp to sample anything rare.
    """

    leap, updates = 6.0, 2

    def tamper(self, agent: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Lean."""
        self.bias, self.push = agent.get_parameter("actor.4.bias"), 0.0
        if self.age < self.updates:
            self.push = -self.leap
            self.move(self.leap)

    def optimize(self, optimizer: torch.optim.Optimizer) -> None:
        """One step, and the leap with the first."""
        optimizer.step()
        if self.active and self.push:
            self.move(self.push)
            self.push = 0.0

    def move(self, by: float) -> None:
        """Shift the first action's logit in every state."""
        with torch.no_grad():
            self.bias[0] += by


class SwingingPolicy(LeapingPolicy):
    """The first optimizer step of every update moves one bias of the policy far too far, to and fro: much KL, no tail."""

    def tamper(self, agent: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """The other way each time."""
        self.bias, self.push = agent.get_parameter("actor.4.bias"), 2.2 if self.age % 2 == 0 else -2.2


class OneAction(Sabotage):
    """The policy takes its first action always, and has no gradient to leave it by."""

    def tamper(self, agent: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Once."""
        if self.age == 0:
            with torch.no_grad():
                agent.get_parameter("actor.4.bias")[0] += 20.0


class StaleLogp(Sabotage):
    """Log-probabilities of the rollout before: the same shape, other actions."""

    def __init__(self, begin: int) -> None:
        super().__init__(begin)
        self.last = torch.zeros(0)

    def logp(self, logp: torch.Tensor) -> torch.Tensor:
        """Swap them."""
        stale, self.last = self.last, logp.clone()
        return stale if self.active else logp


class SaturatedCritic(Sabotage):
    """What the critic sees is a hundred times too large, as behind a normaliser whose statistics were lost: its values jump.

    A head that is re-initialised, or too large, is no such thing: GAE's returns follow the values, and a new head is learned
    within an update or two in some runs.
    """

    def tamper(self, agent: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Once."""
        if self.age == 0:
            with torch.no_grad():
                agent.get_parameter("critic.0.weight").mul_(100.0)


class NanReward(Sabotage):
    """A sensor glitch in one environment, once."""

    def step(self, envs: Any, action: Any) -> Any:
        """The first step of the first update."""
        obs, reward, *rest = envs.step(action)
        if self.age == 0 and not self.glitched:
            reward[0], self.glitched = math.nan, True
        return obs, reward, *rest

    glitched = False


class NanWeight(Sabotage):
    """Memory corruption, a bad all-reduce: one weight is no number, between two updates."""

    def after_update(self, agent: nn.Module) -> None:
        """Once."""
        if self.age == 0:
            with torch.no_grad():
                agent.get_parameter("actor.2.weight")[0, 0] = math.nan


class LossScale(Sabotage):
    """Gradients scaled for mixed precision and never unscaled. Adam hides it: the steps stay the same."""

    def loss(self, loss: torch.Tensor) -> torch.Tensor:
        """Multiplied."""
        return loss * SCALE if self.active else loss


class GrowingLossScale(Sabotage):
    """The same, slowly."""

    def loss(self, loss: torch.Tensor) -> torch.Tensor:
        """Twice as large every 5 updates."""
        return loss * 1.15**self.age if self.active else loss


class Unscaled(Sabotage):
    """Gradients unscaled as for mixed precision that were never scaled: hardly any reach Adam, whose epsilon is 1e-5."""

    def loss(self, loss: torch.Tensor) -> torch.Tensor:
        """Divided, not multiplied."""
        return loss / SCALE if self.active else loss


class OpenGates(Sabotage):
    """An LSTM that forgets nothing and takes everything in: its cell state only grows."""

    def tamper(self, agent: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Once. torch keeps the gates as input, forget, cell, output."""
        if self.age == 0:
            bias = agent.get_parameter("lstm.bias_ih")
            with torch.no_grad():
                bias[: bias.numel() // 2] += 20.0


class WornActuator(Sabotage):
    """The environment does the opposite of what it is told, at first rarely; nothing in the trainer changes.

    All at once would be a shock to the critic, and found as that.
    """

    def __init__(self, begin: int) -> None:
        super().__init__(begin)
        self.random = np.random.default_rng(0)

    def step(self, envs: Any, action: Any) -> Any:
        """One action in a hundred in the first update, one more in each later one, half of them at last."""
        share = min(0.5, 0.01 * (self.age + 1)) if self.active else 0.0
        return envs.step(np.where(self.random.random(len(action)) < share, 1 - action, action))


class NoSteps(Sabotage):
    """A GradScaler that finds an overflow in every step: gradients are computed and clipped, then dropped."""

    def optimize(self, optimizer: torch.optim.Optimizer) -> None:
        """From then on, nothing."""
        if not self.active:
            optimizer.step()


class Hang(Sabotage):
    """An environment that answers late, once: well over ten usual updates, and over the five seconds of the rule."""

    seconds, times_usual = 8.0, 15.0
    hung = False

    def __init__(self, begin: int) -> None:
        super().__init__(begin)
        self.began = time.monotonic()

    def step(self, envs: Any, action: Any) -> Any:
        """The first step of the update after the first, so that the last update seen is the one the fault is about.

        On a crowded machine an update takes a second, and eight are then nothing to speak of.
        """
        if self.age == 1 and not self.hung:
            self.hung = True
            time.sleep(max(self.seconds, self.times_usual * (time.monotonic() - self.began) / self.update))
        return envs.step(action)


SABOTAGE: dict[str, type[Sabotage]] = {
    "none": Sabotage,
    "ratio": LeapingPolicy,
    "entropy": OneAction,
    "kl": SwingingPolicy,
    "mismatch": StaleLogp,
    "value": SaturatedCritic,
    "nan": NanReward,
    "weights-nan": NanWeight,
    "gradient": LossScale,
    "vanishing": Unscaled,
    "drift": GrowingLossScale,
    "lstm": OpenGates,
    "degradation": WornActuator,
    "skipped": NoSteps,
    "stall": Hang,
}
"""Name of the fault → what it does. The names are those of `faults.FAULTS`."""
