"""A PPO-shaped DDP training for a daemon: `python ddp_trainer.py RUN STORE_FILE`, once a rank, or once with WORLD_SIZE=1.

Whatever the number of ranks, they train together on the same minibatches: each takes its share of the samples. So one process
alone is the full-tensor result that two of them must add up to.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gradwatch_agent import watch

UPDATES, MINIBATCHES, SAMPLES = 4, 2, 16


class Policy(nn.Module):
    """Action scores and a value from four observations."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.heads = nn.Linear(4, 16), nn.Linear(16, 4)

    def forward(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.heads(torch.tanh(self.body(obs)))
        return torch.log_softmax(out[:, :3], -1), out[:, 3]


def share(whole: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    """The samples of a rank."""
    size = len(whole) // world
    return whole[rank * size : (rank + 1) * size]


def main() -> None:
    """Train and say goodbye."""
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=world)
    torch.manual_seed(0)
    policy = Policy()
    model: Any = DistributedDataParallel(policy) if world > 1 else policy
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    mon = watch(model, optimizer, run=sys.argv[1], updates_total=UPDATES)
    for update in range(UPDATES):
        generator = torch.Generator().manual_seed(update)
        obs = torch.randn(MINIBATCHES * SAMPLES, 4, generator=generator)
        returns = torch.randn(MINIBATCHES * SAMPLES, generator=generator) + obs[:, 0]
        with torch.no_grad():
            old, values = policy(obs)
        advantages = returns - values
        batches = [share(part, rank, world) for part in (obs, returns, advantages, values)]
        mon.rollout(rewards=batches[1], values=batches[3], returns=batches[1], advantages=batches[2], observations=batches[0])
        for minibatch in range(MINIBATCHES):
            part = slice(minibatch * SAMPLES, (minibatch + 1) * SAMPLES)
            mine, target, advantage, before = (share(x[part], rank, world) for x in (obs, returns, advantages, old[:, 0]))
            logits, value = model(mine)
            ratio = (logits[:, 0] - before).exp()
            entropy = -(logits.exp() * logits).sum(-1)
            loss = -(ratio * advantage).mean() + (value - target).square().mean() - 0.01 * entropy.mean()
            mon.ppo(
                new_logp=logits[:, 0],
                old_logp=before,
                entropy=entropy,
                values=value,
                returns=target,
                advantages=advantage,
                clip=0.2,
                loss=loss,
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        mon.step(env_steps=(update + 1) * MINIBATCHES * SAMPLES)
    mon.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
