"""PPO on CartPole-v1 in one file, in the manner of CleanRL, with gradwatch in it: the lines that say `mon`.

    python -m gradwatch_agent.demo.ppo_cartpole --updates 150 --seed 1

`--fault` breaks the trainer or its environment, never what is told to gradwatch: the lines that say `broken` do nothing in
a healthy run, and what they do in a broken one is in `sabotage`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions.categorical import Categorical

from gradwatch_agent import watch
from gradwatch_agent.demo.faults import CARTPOLE, FAULTS
from gradwatch_agent.demo.sabotage import SABOTAGE

if TYPE_CHECKING:
    from gradwatch_agent import Monitor
    from gradwatch_agent.demo.sabotage import Sabotage


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The hyperparameters: those of CleanRL's ppo.py, moved so that a healthy run learns fast and keeps what it learned.

    With the originals and episodes of 500 steps, some seeds learn the task and then lose two thirds of the return again.
    """
    parser = argparse.ArgumentParser(description="PPO on CartPole-v1, watched by gradwatch.")
    parser.add_argument("--run", default=None, help="key of the run (default: ppo-cartpole-SEED)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--episode-steps", type=int, default=200, help="time limit of the environment")
    parser.add_argument("--num-steps", type=int, default=32)
    parser.add_argument("--num-minibatches", type=int, default=4)
    parser.add_argument("--update-epochs", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--gamma", type=float, default=0.98)
    parser.add_argument("--gae-lambda", type=float, default=0.95)
    parser.add_argument("--clip-coef", type=float, default=0.1)
    parser.add_argument("--ent-coef", type=float, default=0.01)
    parser.add_argument("--vf-coef", type=float, default=0.5)
    parser.add_argument("--max-grad-norm", type=float, default=5.0)
    parser.add_argument("--fault", choices=[name for name in FAULTS if FAULTS[name].trainer == CARTPOLE], default="none")
    parser.add_argument("--fault-update", type=int, default=90)
    parser.add_argument("--pace-ms", type=float, default=0.0, help="pause after every update")
    parser.add_argument("--json-lines", default="", metavar="FILE", help="write one JSON line per update there (a number: fd)")
    return parser.parse_args(arguments)


class Agent(nn.Module):
    """Separate tanh networks for policy and value."""

    def __init__(self, observations: int, actions: int) -> None:
        super().__init__()
        self.critic = _network(observations, 1, 1.0)
        self.actor = _network(observations, actions, 0.01)

    def evaluate(self, obs: torch.Tensor, action: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Action (sampled if None), its log-probability, entropy of the policy, value; each [B]."""
        policy: Any = Categorical(logits=self.actor(obs))  # Any: torch leaves its distributions untyped
        action = policy.sample() if action is None else action
        return action, policy.log_prob(action), policy.entropy(), self.critic(obs).squeeze(-1)


def _network(inputs: int, outputs: int, gain: float) -> nn.Sequential:
    layers = [nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)]
    for layer, std in ((layers[0], math.sqrt(2)), (layers[2], math.sqrt(2)), (layers[4], gain)):
        nn.init.orthogonal_(layer.weight, std)  # type: ignore[arg-type]
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers)


class Rollout:
    """Collects `num_steps` of every environment, goes on where the last one ended, and computes GAE."""

    def __init__(self, args: argparse.Namespace, broken: Sabotage) -> None:
        self.args = args
        self.broken = broken
        make = partial(gym.make, "CartPole-v1", max_episode_steps=args.episode_steps)
        same_step = gym.vector.AutoresetMode.SAME_STEP
        self.envs = gym.vector.SyncVectorEnv([make] * args.num_envs, autoreset_mode=same_step)
        shape = (args.num_steps, args.num_envs)
        self.obs = torch.zeros(*shape, *self.envs.single_observation_space.shape)  # type: ignore[misc]
        self.actions = torch.zeros(shape, dtype=torch.int64)
        self.logp, self.rewards, self.dones, self.values = (torch.zeros(shape) for _ in range(4))
        self.returns = self.advantages = torch.zeros(shape)
        self.next_obs = torch.as_tensor(self.envs.reset(seed=args.seed)[0])
        self.running, self.steps = np.zeros(args.num_envs), np.zeros(args.num_envs)
        self.episode_returns: list[float] = []
        self.episode_lengths: list[float] = []
        self.truncated: list[bool] = []
        self.total_steps = 0

    @torch.no_grad()
    def collect(self, agent: Agent) -> None:
        """Fill the buffers."""
        self.episode_returns, self.episode_lengths, self.truncated = [], [], []
        for step in range(self.args.num_steps):
            self.obs[step] = self.next_obs
            self.actions[step], self.logp[step], _, self.values[step] = agent.evaluate(self.next_obs)
            obs, reward, terminated, truncated, _ = self.broken.step(self.envs, self.actions[step].numpy())
            done = np.logical_or(terminated, truncated)
            self.rewards[step], self.dones[step] = torch.as_tensor(reward), torch.as_tensor(done)
            self.next_obs = torch.as_tensor(obs)
            self.running += reward
            self.steps += 1
            self.episode_returns += self.running[done].tolist()
            self.episode_lengths += self.steps[done].tolist()
            self.truncated += truncated[done].tolist()
            self.running[done] = self.steps[done] = 0.0
        self.total_steps += self.args.num_steps * self.args.num_envs
        self._estimate(agent.evaluate(self.next_obs)[3])

    def _estimate(self, next_value: torch.Tensor) -> None:
        """Generalised advantage estimation (Schulman et al., 2016)."""
        self.advantages = torch.zeros_like(self.rewards)
        running = torch.zeros(self.args.num_envs)
        for step in reversed(range(self.args.num_steps)):
            alive = 1.0 - self.dones[step]
            delta = self.rewards[step] + self.args.gamma * next_value * alive - self.values[step]
            running = delta + self.args.gamma * self.args.gae_lambda * alive * running
            self.advantages[step], next_value = running, self.values[step]
        self.returns = self.advantages + self.values


def learn(agent: Agent, optimizer: torch.optim.Optimizer, roll: Rollout, mon: Monitor) -> dict[str, float]:
    """One PPO update; returns what the trainer itself records: means over all minibatches."""
    args, broken = roll.args, roll.broken
    obs, actions, old_logp = roll.obs.flatten(0, 1), roll.actions.flatten(), broken.logp(roll.logp).flatten()
    returns, advantages = roll.returns.flatten(), roll.advantages.flatten()
    record: list[list[float]] = []
    for _ in range(args.update_epochs):
        for mb in torch.randperm(len(obs)).chunk(args.num_minibatches):
            _, logp, entropy, value = agent.evaluate(obs[mb], actions[mb])
            ratio = (logp - old_logp[mb]).exp()
            adv = (advantages[mb] - advantages[mb].mean()) / (advantages[mb].std() + 1e-8)
            clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
            policy_loss = -torch.min(ratio * adv, clipped * adv).mean()
            value_loss = 0.5 * (value - returns[mb]).square().mean()
            loss = policy_loss - args.ent_coef * entropy.mean() + args.vf_coef * value_loss
            mon.ppo(
                new_logp=logp,
                old_logp=old_logp[mb],
                entropy=entropy,
                values=value,
                returns=returns[mb],
                advantages=adv,
                clip=args.clip_coef,
                actions=actions[mb],
                loss=loss,
            )
            optimizer.zero_grad()
            broken.loss(loss).backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            broken.optimize(optimizer)
            with torch.no_grad():
                kl = ((ratio - 1) - ratio.log()).mean()
            record.append([loss.item(), value_loss.item(), entropy.mean().item(), kl.item(), norm.item(), ratio.max().item()])
    broken.after_update(agent)
    loss_, value_loss_, entropy_, kl_, norm_, _ = np.mean(record, axis=0).tolist()
    largest = float(np.max(record, axis=0)[5])
    return {
        "loss": loss_,
        "value_loss": value_loss_,
        "entropy": entropy_,
        "approx_kl": kl_,
        "ratio_max": largest,
        "grad_norm": norm_,
    }


def train(args: argparse.Namespace, output: IO[str] | None) -> None:
    """The whole run. Writes a JSON line per update to `output`, or a line for people to stdout."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    broken = SABOTAGE[args.fault](args.fault_update)
    roll = Rollout(args, broken)
    agent = Agent(int(np.prod(roll.obs.shape[2:])), int(roll.envs.single_action_space.n))  # type: ignore[attr-defined]
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    mon = watch(
        agent,
        optimizer,
        run=args.run or f"ppo-cartpole-{args.seed}",
        config=vars(args),
        updates_total=args.updates,
        action_space=roll.envs.single_action_space,
        labels={"env": "CartPole-v1"},
        probe=agent.actor[:-1],
    )
    for update in range(args.updates):
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - update / args.updates)
        broken.before_update(update, agent, optimizer)
        level = int(mon.level)
        with mon.phase("rollout"):
            roll.collect(agent)
        mon.rollout(
            rewards=roll.rewards,
            values=roll.values,
            returns=roll.returns,
            advantages=roll.advantages,
            observations=roll.obs,
            actions=roll.actions,
        )
        with mon.phase("update"):
            record = learn(agent, optimizer, roll, mon)
        mean = float(np.mean(roll.episode_returns)) if roll.episode_returns else None
        if output is not None:
            line = {"update": update, "level": level, "env_steps": roll.total_steps, "return_mean": mean, **record}
            output.write(json.dumps(line) + "\n")
            output.flush()
        else:
            print(f"update={update} global_step={roll.total_steps} episodic_return={mean} approx_kl={record['approx_kl']:.4f}")
        mon.step(
            env_steps=roll.total_steps,
            episode_returns=roll.episode_returns,
            episode_lengths=roll.episode_lengths,
            truncated=roll.truncated,
        )
        if args.pace_ms:
            time.sleep(args.pace_ms / 1000)
        if mon.should_stop:
            break
    mon.close()
    roll.envs.close()


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    args = parse_args(arguments)
    target: int | str = int(args.json_lines) if args.json_lines.isdigit() else args.json_lines
    if not args.json_lines:
        train(args, None)
        return
    with open(target, "a", encoding="ascii") as output:
        train(args, output)


if __name__ == "__main__":
    main()
