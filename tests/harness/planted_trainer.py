"""A small PPO-shaped trainer that breaks one known layer at update 40: `python planted_trainer.py RUN FAULT`.

`gradient`: from step 2 of update 40 on, the gradient of body.2.weight is 1,000 times what it is. `nan`: at step 1 of update 40
one element of the gradient of actor.weight is NaN. `weights`: at the end of update 39 critic.weight is multiplied by 1,000.
`exception`: `nan`, and the trainer fails on what follows in the same update. `kill`: `nan`, then SIGKILL before the update is
over. It prints `broken` once the update of the fault is, and trains on, slowly, until it is ended.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import torch
from torch import nn

from gradwatch_agent import watch

AT = 40
STEPS = 4
UPDATES_MAX = 2000


class Model(nn.Module):
    """Five layers whose names a test knows."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.actor, self.critic = nn.Linear(8, 2), nn.Linear(8, 1)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and values."""
        hidden = self.body(obs)
        return torch.log_softmax(self.actor(hidden), -1), self.critic(hidden)[:, 0]


class Plant:
    """Changes one gradient where it is told to."""

    def __init__(self, model: Model, fault: str) -> None:
        self.place = (0, 0)
        chosen = model.body[2].weight if fault == "gradient" else model.actor.weight
        if fault != "weights":
            chosen.register_hook(self._multiply if fault == "gradient" else self._spoil)

    def _multiply(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 1000.0 if self.place >= (AT, 2) else gradient

    def _spoil(self, gradient: torch.Tensor) -> torch.Tensor:
        spoilt = gradient.clone()
        if self.place == (AT, 1):
            spoilt[0, 0] = torch.nan
        return spoilt


def main() -> None:
    """Train until something ends it."""
    run, fault = sys.argv[1:]
    torch.manual_seed(7)
    torch.set_num_threads(1)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    plant = Plant(model, fault)
    mon = watch(model, optimizer, run=run, overhead=None)  # what rests on a busy machine would be another run
    for update in range(UPDATES_MAX):
        obs = torch.randn(64, 4)
        actions = torch.randint(0, 2, (64,))
        rewards = torch.randn(64) + obs[:, 0]
        mon.rollout(rewards=rewards, observations=obs)
        with torch.no_grad():
            old = model(obs)[0].gather(1, actions[:, None])[:, 0]
        for step in range(STEPS):
            plant.place = (update, step)
            logp, values = model(obs)
            if fault == "exception" and not bool(torch.isfinite(logp).all()):
                raise ValueError("logits are not finite")
            new = logp.gather(1, actions[:, None])[:, 0]
            ratio = torch.exp(new - old)
            advantages = (rewards - rewards.mean()) / rewards.std()
            loss = -(ratio * advantages).mean() + 0.5 * ((values - rewards) ** 2).mean()
            mon.ppo(new_logp=new, old_logp=old, values=values, returns=rewards, advantages=advantages, clip=0.2, loss=loss)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        if fault == "kill" and update == AT:
            sys.stdin.readline()  # what was measured before is on its way: the test says when it has arrived
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "weights" and update == AT - 1:
            with torch.no_grad():
                model.critic.weight.mul_(1000.0)
        mon.step(env_steps=64 * (update + 1), episode_returns=[float(rewards.sum())])
        if update >= AT:
            print("broken", flush=True)
            time.sleep(0.02)


if __name__ == "__main__":
    main()
