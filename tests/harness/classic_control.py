"""PPO as people run it on three tasks of gymnasium's classic control, with the published hyperparameters of each, watched.

    python -m harness.classic_control Pendulum-v1 0

Written as CleanRL's ppo.py and ppo_continuous_action.py are; the hyperparameters are those of RL Baselines3 Zoo. Nothing is
chosen so that a detector is quiet. The last line printed is one JSON list: the mean return of the episodes of each update.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

from gradwatch_agent import watch

UPDATES = 150
LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Task:
    """How one task is trained. `learned` is a mean return that an untrained policy never has."""

    envs: int
    steps: int
    epochs: int
    minibatches: int
    lr: float
    gamma: float
    gae_lambda: float
    ent_coef: float
    learned: float
    normalize: bool = False


TASKS = {
    "CartPole-v1": Task(8, 32, 20, 1, 1e-3, 0.98, 0.8, 0.0, 120.0),
    "Acrobot-v1": Task(16, 64, 4, 16, 3e-4, 0.99, 0.94, 0.0, -150.0, normalize=True),
    "Pendulum-v1": Task(8, 128, 10, 8, 1e-3, 0.9, 0.95, 0.0, -600.0),
}


class Agent(nn.Module):
    """Separate tanh networks for policy and value; a Gaussian with a spread of its own where actions are real."""

    def __init__(self, observations: int, space: Any) -> None:
        super().__init__()
        self.discrete = isinstance(space, gym.spaces.Discrete)
        outputs = int(space.n) if isinstance(space, gym.spaces.Discrete) else int(np.prod(space.shape))
        self.actor, self.critic = _network(observations, outputs, 0.01), _network(observations, 1, 1.0)
        self.log_std = nn.Parameter(torch.zeros(outputs), requires_grad=not self.discrete)

    def evaluate(self, obs: torch.Tensor, action: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Action (sampled if None), its log-probability, entropy, value; each [B] but for real actions [B, outputs]."""
        head, value = self.actor(obs), self.critic(obs).squeeze(-1)
        if self.discrete:
            policy: Any = Categorical(logits=head, validate_args=False)
            action = policy.sample() if action is None else action
            return action, policy.log_prob(action), policy.entropy(), value
        # torch.distributions.Normal does the same in four times the time.
        std = self.log_std.exp()
        action = head + std * torch.randn_like(head) if action is None else action
        logp = (-0.5 * ((action - head) / std).square() - self.log_std - 0.5 * LOG_2PI).sum(-1)
        return action, logp, (0.5 + 0.5 * LOG_2PI + self.log_std).sum().expand(logp.shape), value


def _network(inputs: int, outputs: int, gain: float) -> nn.Sequential:
    layers = [nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)]
    for layer, std in ((layers[0], math.sqrt(2)), (layers[2], math.sqrt(2)), (layers[4], gain)):
        nn.init.orthogonal_(layer.weight, std)  # type: ignore[arg-type]
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers)


class Rollout:
    """Collects, goes on where the last one ended, and computes GAE; the value of a state that was cut off counts."""

    def __init__(self, name: str, task: Task, seed: int) -> None:
        self.task = task
        same_step = gym.vector.AutoresetMode.SAME_STEP
        self.envs: Any = gym.make_vec(name, task.envs, vectorization_mode="sync", vector_kwargs={"autoreset_mode": same_step})
        self.next_obs = self._see(self.envs.reset(seed=seed)[0])
        self.envs.action_space.seed(seed)
        self.running = np.zeros(task.envs)
        self.mean, self.square, self.count = np.zeros(self.next_obs.shape[1]), np.ones(self.next_obs.shape[1]), 1e-4
        self.total = 0

    def _see(self, obs: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(obs), dtype=torch.float32)

    @torch.no_grad()
    def collect(self, agent: Agent) -> dict[str, torch.Tensor]:
        """One rollout, each value [steps, environments]; `self.returns` are those of the episodes that ended."""
        names = ("obs", "actions", "logp", "values", "rewards", "dones", "cut")
        kept: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        self.returns: list[float] = []
        for _ in range(self.task.steps):
            action, logp, _, value = agent.evaluate(self.next_obs)
            acted = action.numpy() if agent.discrete else action.clamp(-2.0, 2.0).numpy()
            obs, reward, terminated, truncated, info = self.envs.step(acted)
            cut = torch.zeros(self.task.envs)
            if truncated.any():
                ends = self._see(np.stack([info["final_obs"][i] for i in np.flatnonzero(truncated)]))
                cut[torch.as_tensor(truncated)] = agent.evaluate(ends)[3]
            done = np.logical_or(terminated, truncated)
            row = (self.next_obs, action, logp, value, self._see(reward), self._see(done), cut)
            for name, item in zip(kept, row, strict=True):
                kept[name].append(item)
            self.running += reward
            self.returns += self.running[done].tolist()
            self.running[done] = 0.0
            self.next_obs = self._see(obs)
        self.total += self.task.steps * self.task.envs
        found = {name: torch.stack(items) for name, items in kept.items()}
        found["advantages"] = self._estimate(found, agent.evaluate(self.next_obs)[3])
        found["returns"] = found["advantages"] + found["values"]
        return found

    def _estimate(self, found: dict[str, torch.Tensor], following: torch.Tensor) -> torch.Tensor:
        advantages, running = torch.zeros_like(found["values"]), torch.zeros(self.task.envs)
        for step in reversed(range(self.task.steps)):
            alive, value = 1.0 - found["dones"][step], found["values"][step]
            delta = found["rewards"][step] + self.task.gamma * (following * alive + found["cut"][step]) - value
            running = delta + self.task.gamma * self.task.gae_lambda * alive * running
            advantages[step], following = running, value
        return advantages


def learn(agent: Agent, optimizer: torch.optim.Optimizer, found: dict[str, torch.Tensor], task: Task, mon: Any) -> None:
    """Epochs of minibatches, each told to the monitor before its step."""
    flat = {name: item.flatten(0, 1) for name, item in found.items()}
    for _ in range(task.epochs):
        for mb in torch.randperm(task.envs * task.steps).chunk(task.minibatches):
            _, logp, entropy, value = agent.evaluate(flat["obs"][mb], flat["actions"][mb])
            old, returns, adv = flat["logp"][mb], flat["returns"][mb], flat["advantages"][mb]
            adv = (adv - adv.mean()) / (adv.std() + 1e-8)
            ratio = (logp - old).exp()
            policy_loss = -torch.min(ratio * adv, ratio.clamp(0.8, 1.2) * adv).mean()
            loss = policy_loss + 0.5 * (value - returns).square().mean() - task.ent_coef * entropy.mean()
            mon.ppo(
                new_logp=logp,
                old_logp=old,
                entropy=entropy,
                values=value,
                returns=returns,
                advantages=adv,
                clip=0.2,
                actions=flat["actions"][mb],
                loss=loss,
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()


def train(name: str, seed: int) -> list[float | None]:
    """The whole run; the mean return of the episodes that ended in each update, None where none did."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    task = TASKS[name]
    rollout = Rollout(name, task, seed)
    space = rollout.envs.single_action_space
    agent = Agent(rollout.next_obs.shape[1], space)
    optimizer = torch.optim.Adam(agent.parameters(), lr=task.lr, eps=1e-5)
    run = f"{name.lower()}-{seed}"
    # No bound on the agent's share: on a crowded machine collectors would rest, and their detectors be blind for it.
    mon = watch(agent, optimizer, run=run, updates_total=UPDATES, action_space=space, overhead=None)
    curve: list[float | None] = []
    for update in range(UPDATES):
        optimizer.param_groups[0]["lr"] = task.lr * (1 - update / UPDATES)
        found = rollout.collect(agent)
        mon.rollout(
            rewards=found["rewards"],
            values=found["values"],
            returns=found["returns"],
            advantages=found["advantages"],
            observations=found["obs"],
        )
        learn(agent, optimizer, found, task, mon)
        mon.step(env_steps=rollout.total, episode_returns=rollout.returns)
        curve.append(float(np.mean(rollout.returns)) if rollout.returns else None)
    mon.close()
    rollout.envs.close()
    return curve


if __name__ == "__main__":
    json.dump(train(sys.argv[1], int(sys.argv[2])), sys.stdout)
