"""A small PPO, feedforward or with an LSTM, in the manner of CleanRL, with gradwatch in it: the lines that say `mon`.

A `Disturbance` gets its hands on it at the lines that say `disturbed`; in a healthy run they do nothing. No hook sees the
monitor: what is told to gradwatch is what the trainer believes.
"""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from benchmarks.corpus.environments import ENVIRONMENTS
from benchmarks.corpus.policies import Feedforward, Policy, Recurrent
from benchmarks.corpus.truth import Truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.corpus.disturbance import Disturbance
    from benchmarks.corpus.environments import Step
    from benchmarks.corpus.setup import Setup
    from gradwatch_agent import Monitor

PAUSE_AFTER_NONFINITE = 10
"""Updates a run goes on for once its weights are not finite: nothing new happens any more."""


class Trainer:
    """One run. Its public attributes are the knobs that a disturbance may turn."""

    def __init__(self, setup: Setup, seed: int, disturbed: Disturbance) -> None:
        torch.manual_seed(seed)
        self.setup, self.disturbed = setup, disturbed
        self.random = np.random.default_rng(seed)
        kind = ENVIRONMENTS[setup.environment]
        self.policy: Policy = (Recurrent if setup.recurrent else Feedforward)(setup, kind)
        self.optimizer = _optimizer(self.policy, setup.lr)
        self.seed, self.copies = seed, setup.copies
        self.envs = kind(setup.copies, seed)
        self.obs = self.envs.see()
        self.update = self.total_steps = 0
        self.lr, self.lr_scale = setup.lr, 1.0
        self.ent_coef, self.clip, self.epochs, self.minibatches = setup.ent_coef, setup.clip, setup.epochs, setup.minibatches
        self.pause_ms = 0.0
        self.running, self.true_running, self.lengths = (np.zeros(setup.copies) for _ in range(3))
        self.discounted, self.return_square = np.zeros(setup.copies), 1.0
        self.partial = self.envs.age > 0
        self.truth = Truth()

    def set_copies(self, copies: int) -> None:
        """Collect with another number of environments from now on."""
        self.copies = copies
        self.envs = type(self.envs)(copies, self.seed + 1)
        self.obs = self.envs.see()
        self.running, self.true_running, self.lengths, self.discounted = (np.zeros(copies) for _ in range(4))
        self.partial = self.envs.age > 0

    def saved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A checkpoint: weights and optimizer."""
        return copy.deepcopy(self.policy.state_dict()), copy.deepcopy(self.optimizer.state_dict())

    def restore(self, saved: tuple[dict[str, Any], dict[str, Any]]) -> None:
        """Go on from a checkpoint of another life; environments and counters begin anew."""
        self.policy.load_state_dict(saved[0])
        self.optimizer.load_state_dict(saved[1])

    def free_spread(self, lr: float) -> None:
        """Train the spread of a Gaussian policy with a learning rate of its own from now on."""
        for group in self.optimizer.param_groups:
            if any(parameter is self.policy.spread for parameter in group["params"]):
                group["own_lr"] = lr

    def train_update(self, update: int, mon: Monitor) -> bool:
        """One update, told to `mon` but for its `step`; whether the weights are still finite."""
        self.update = update
        fraction = 1.0 - update / self.setup.updates if self.setup.anneal else 1.0
        self.lr = self.setup.lr * fraction
        self.disturbed.before_update(update, self)
        for group in self.optimizer.param_groups:
            group["lr"] = (group["own_lr"] if group["own_lr"] is not None else self.lr) * self.lr_scale
        self.truth.begin()
        rollout = self._collect()
        mon.rollout(
            rewards=rollout["rewards"],
            values=rollout["values"],
            returns=rollout["returns"],
            advantages=rollout["advantages"],
            observations=rollout["obs"],
            actions=rollout["actions"],
        )
        if isinstance(self.policy, Recurrent):
            mon.recurrent(rollout["h"], rollout["c"], phase="rollout")
        self._learn(rollout, mon)
        self.disturbed.after_update(self)
        return self.truth.end(self.policy)

    def _collect(self) -> dict[str, torch.Tensor]:
        """One rollout [steps, copies] with its advantages (Schulman et al., 2016)."""
        steps, copies, policy, disturbed = self.setup.steps, self.copies, self.policy, self.disturbed
        self.episode_returns: list[float] = []
        self.episode_lengths: list[float] = []
        self.truncated: list[bool] = []
        obs = np.zeros((steps, copies, self.obs.shape[1]), np.float32)
        finals, actions, rewards, dones, states = [], [], [], [], []
        policy.begin_rollout(copies)
        for step in range(steps):
            obs[step] = self.obs
            action = policy.act(self.obs, self.random)
            if isinstance(policy, Recurrent):
                states.append((policy.h, policy.c))
            done_step = self.envs.step(disturbed.action(action))
            reward = disturbed.reward(done_step.reward, self.random)
            self.obs = disturbed.observation(done_step.obs)
            self._count(reward, done_step)
            actions.append(action)
            rewards.append(reward)
            dones.append(done_step.done)
            if self.setup.bootstrap and done_step.truncated.any():
                finals.append((step, done_step.truncated, disturbed.observation(done_step.final)))
        self.total_steps += steps * copies
        told = self._scaled(np.stack(rewards), np.stack(dones))
        found = {
            "obs": torch.from_numpy(obs),
            "actions": torch.from_numpy(np.stack(actions)),
            **self._estimate(obs, np.stack(actions), told, np.stack(dones), finals),
        }
        if states:
            found["h"], found["c"] = (torch.from_numpy(np.stack(part)) for part in zip(*states, strict=True))
        self.truth.collected(told, found["values"], found["returns"])
        return found

    @torch.no_grad()
    def _estimate(
        self, obs: NDArray[Any], actions: NDArray[Any], rewards: NDArray[Any], dones: NDArray[Any], finals: list[Any]
    ) -> dict[str, torch.Tensor]:
        policy, gamma = self.policy, self.setup.gamma
        scores = policy.score(torch.from_numpy(obs), torch.from_numpy(actions))
        values = scores.value.numpy().astype(np.float64)
        for step, cut, final in finals:
            ends = policy.score(torch.from_numpy(final[None]), torch.from_numpy(actions[:1])).value.numpy()[0]
            rewards[step, cut] += gamma * ends[cut]
        following = policy.score(torch.from_numpy(self.obs[None]), torch.from_numpy(actions[:1])).value.numpy()[0]
        advantages, running = np.zeros_like(values), np.zeros(self.copies)
        for step in range(self.setup.steps - 1, -1, -1):
            alive = 1.0 - dones[step]
            delta = rewards[step] + gamma * following * alive - values[step]
            running = delta + gamma * self.setup.gae_lambda * alive * running
            advantages[step], following = running, values[step]
        as_tensor = {"rewards": rewards, "advantages": advantages, "values": values, "returns": advantages + values}
        return {"logp": scores.logp, **{name: torch.from_numpy(a.astype(np.float32)) for name, a in as_tensor.items()}}

    def _learn(self, rollout: dict[str, torch.Tensor], mon: Monitor) -> None:
        """Epochs of minibatches; recurrent ones over whole episodes."""
        policy, setup = self.policy, self.setup
        old_logps = self.disturbed.old_logp(rollout["logp"])
        parts = [rollout[name] for name in ("obs", "actions", "returns", "advantages")]
        obs, actions, returns, advantages, old_logps = (policy.view(part) for part in (*parts, old_logps))
        for _ in range(self.epochs):
            for mb in policy.batches(setup.steps, self.copies, self.minibatches):
                scores = policy.score(obs[mb], actions[mb])
                log_ratio = scores.logp - old_logps[mb]
                ratio = log_ratio.exp()
                adv = advantages[mb]
                adv = (adv - adv.mean()) / (adv.std() + 1e-8)
                policy_loss = -(ratio * adv).mean()
                if self.clip is not None:
                    policy_loss = -torch.min(ratio * adv, ratio.clamp(1 - self.clip, 1 + self.clip) * adv).mean()
                value_loss = 0.5 * (scores.value - returns[mb]).square().mean()
                entropy = scores.entropy.mean()
                loss = policy_loss - self.ent_coef * entropy + setup.vf_coef * value_loss
                mon.ppo(
                    new_logp=scores.logp,
                    old_logp=old_logps[mb],
                    entropy=scores.entropy,
                    values=scores.value,
                    returns=returns[mb],
                    advantages=adv,
                    clip=setup.clip,
                    actions=actions[mb],
                    loss=loss,
                )
                if scores.state is not None:
                    mon.recurrent(*scores.state, phase="update")
                self.optimizer.zero_grad()
                self.disturbed.loss(loss).backward()
                norm = nn.utils.clip_grad_norm_(policy.parameters(), setup.max_grad_norm)
                self.disturbed.optimize(self.optimizer)
                self.truth.learned(log_ratio, ratio, entropy, value_loss, norm)
            kl = self.truth.kl_last() if setup.target_kl is not None or setup.kl_adaptive else 0.0
            if setup.target_kl is not None and kl > 1.5 * setup.target_kl:
                break
        if setup.kl_adaptive:
            self.lr_scale = float(np.clip(self.lr_scale * (1.5 if kl < 0.005 else 1 / 1.5 if kl > 0.02 else 1.0), 0.05, 8.0))

    def _count(self, reward: NDArray[Any], step: Step) -> None:
        """Episode returns: as the trainer meets them, and as they are. An episode that began in its middle has none."""
        self.running += reward
        self.true_running += step.reward
        self.lengths += 1
        done = step.done
        if done.any():
            whole = done & ~self.partial
            self.episode_returns += self.running[whole].tolist()
            self.episode_lengths += self.lengths[whole].tolist()
            self.truncated += step.truncated[whole].tolist()
            self.truth.episodes(self.true_running[whole])
            self.running[done] = self.true_running[done] = self.lengths[done] = 0.0
            self.partial &= ~done

    def _scaled(self, rewards: NDArray[Any], dones: NDArray[Any]) -> NDArray[Any]:
        """Rewards over the running root mean square of the discounted return, where the case normalizes."""
        if not self.setup.normalize:
            return rewards
        for reward, done in zip(rewards, dones, strict=True):
            self.discounted = self.setup.gamma * self.discounted + reward
            self.return_square += 0.001 * (float(np.square(self.discounted).mean()) - self.return_square)
            self.discounted[done] = 0.0
        return rewards / (np.sqrt(self.return_square) + 1e-8)


def run_trainer(trainer: Trainer, mon: Monitor, first: int, last: int, clock: list[float]) -> None:
    """Updates `first` to `last`, exclusive; `clock` gets the milliseconds of CPU each took, and its declared pause."""
    left, begin = PAUSE_AFTER_NONFINITE, time.process_time()
    with np.errstate(all="ignore"):
        for update in range(first, last):
            finite = trainer.train_update(update, mon)
            mon.step(
                env_steps=trainer.total_steps,
                episode_returns=trainer.episode_returns,
                episode_lengths=trainer.episode_lengths,
                truncated=trainer.truncated,
            )
            now = time.process_time()
            clock.append((now - begin) * 1e3 + trainer.pause_ms)
            begin = now
            left -= not finite
            if left == 0:
                break


def _optimizer(policy: Policy, lr: float) -> torch.optim.Optimizer:
    """Adam; the spread in a group of its own, which has no learning rate of its own yet."""
    spread = [] if policy.discrete else [policy.spread]
    rest = [parameter for parameter in policy.parameters() if all(parameter is not other for other in spread)]
    groups: list[dict[str, Any]] = [{"params": part, "own_lr": None} for part in (rest, spread) if part]
    return torch.optim.Adam(groups, lr=lr, eps=1e-5, fused=True)
