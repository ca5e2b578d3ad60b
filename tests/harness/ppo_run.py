"""A small PPO-like run for comparing a trainer with and without the agent: seeded, no environment, two seconds at most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Network(nn.Module):
    """Policy and value on one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 32), nn.Tanh())
        self.policy = nn.Linear(32, 3)
        self.value = nn.Linear(32, 1)

    def forward(self, obs: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probability of the action, entropy, value; each [B]."""
        hidden = self.trunk(obs)
        logp = torch.log_softmax(self.policy(hidden), -1)
        return logp.gather(1, action[:, None])[:, 0], -(logp * logp.exp()).sum(-1), self.value(hidden)[:, 0]


Watch = Callable[[nn.Module, torch.optim.Optimizer], Any]


def train(
    updates: int,
    watch: Watch | None,
    clip: bool = True,
    *,
    device: str = "cpu",
    at_end: Callable[[int], None] = lambda update: None,
) -> list[torch.Tensor]:
    """Run `updates` updates of 2 epochs x 3 minibatches, the last one ragged. `at_end` is called after each, with how many
    are done.

    Returns all parameters and the next random number. Whatever is passed to the agent is computed without it too. Everything
    is put on the device by name: a default device would also take what optimizers keep on the host.
    """
    on: dict[str, Any] = {"device": device}
    torch.set_num_threads(1)  # test machines are shared; the tensors are small
    torch.manual_seed(3)
    network = Network().to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    mon = watch(network, optimizer) if watch else None
    for done in range(1, updates + 1):
        obs, action, rewards = torch.randn(80, 4, **on), torch.randint(3, (80,), **on), torch.randn(80, **on)
        with torch.no_grad():
            old_logp, _, values = network(obs, action)
        advantages = rewards - values
        if mon:
            mon.rollout(rewards=rewards, values=values, returns=rewards, advantages=advantages, observations=obs)
        for rows in (*torch.split(torch.randperm(80, **on), 32), *torch.split(torch.randperm(80, **on), 32)):
            logp, entropy, value = network(obs[rows], action[rows])
            adv, old, target = advantages[rows], old_logp[rows], rewards[rows]
            ratio = (logp - old).exp()
            loss = -torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean() + (value - target).square().mean()
            if mon:
                mon.ppo(
                    new_logp=logp,
                    old_logp=old,
                    entropy=entropy,
                    values=value,
                    returns=target,
                    advantages=adv,
                    clip=0.2,
                    loss=loss,
                )
            optimizer.zero_grad()
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()
        last_loss = loss.detach()
        if mon:
            mon.step(env_steps=80, episode_returns=[1.0, 2.0], learning=1.0, tensor=last_loss)
        at_end(done)
    if mon:
        mon.close()
    return [*(parameter.detach().clone() for parameter in network.parameters()), torch.rand(1, **on)]
