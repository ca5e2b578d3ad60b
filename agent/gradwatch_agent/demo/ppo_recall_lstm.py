"""PPO with an LSTM on Recall in one file, in the manner of CleanRL, with gradwatch in it: the lines that say `mon`.

    python -m gradwatch_agent.demo.ppo_recall_lstm --updates 150 --seed 1

Recall: a cue is shown for one step, some blank steps follow, then a go signal asks which cue it was. Only memory solves
it. An episode is many such trials, and the LSTM's state is reset between episodes only.

`--fault` breaks the trainer or its environment, never what is told to gradwatch: the lines that say `broken` do nothing in
a healthy run, and what they do in a broken one is in `sabotage`.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import IO, TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions.categorical import Categorical

from gradwatch_agent import watch
from gradwatch_agent.demo.faults import FAULTS, RECALL
from gradwatch_agent.demo.sabotage import SABOTAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gradwatch_agent import Monitor
    from gradwatch_agent.demo.sabotage import Sabotage

State = tuple[torch.Tensor, torch.Tensor]
"""Hidden and cell state, each f32[environments, hidden]."""


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """The hyperparameters; those of CleanRL's ppo_atari_lstm.py, for a small task."""
    parser = argparse.ArgumentParser(description="PPO with an LSTM on Recall, watched by gradwatch.")
    parser.add_argument("--run", default=None, help="key of the run (default: ppo-recall-lstm-SEED)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--num-envs", type=int, default=48)
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--num-minibatches", type=int, default=2)
    parser.add_argument("--update-epochs", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--gamma", type=float, default=0.9)
    parser.add_argument("--gae-lambda", type=float, default=0.95)
    parser.add_argument("--clip-coef", type=float, default=0.1)
    parser.add_argument("--ent-coef", type=float, default=0.01)
    parser.add_argument("--vf-coef", type=float, default=0.5)
    parser.add_argument("--max-grad-norm", type=float, default=0.5)
    fitting = [name for name in FAULTS if name == "none" or FAULTS[name].trainer == RECALL]
    parser.add_argument("--fault", choices=fitting, default="none")
    parser.add_argument("--fault-update", type=int, default=90)
    parser.add_argument("--pace-ms", type=float, default=0.0, help="pause after every update")
    parser.add_argument("--json-lines", default="", metavar="FILE", help="write one JSON line per update there (a number: fd)")
    return parser.parse_args(arguments)


class Recall:
    """Vectorised: `num_envs` environments that each reset by themselves. Shaped like a gymnasium vector environment.

    An observation is the cue as one-hot f32[CUES] in the first step of a trial, else zeros, and the go signal. The answer
    is the action taken at the go signal: reward 1 for the cue, 0 for another; all other actions do nothing.
    """

    CUES = 4
    DELAY_MAX = 2
    TRIALS = 24

    single_action_space = gym.spaces.Discrete(CUES)

    def __init__(self, num_envs: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.cue = self.random.integers(self.CUES, size=num_envs)
        self.wait = self._delays(num_envs)
        self.trial = self.random.integers(self.TRIALS, size=num_envs)  # so that episodes do not end all at once
        self.fresh = np.ones(num_envs, np.bool_)

    def observe(self) -> NDArray[np.float32]:
        """f32[environments, CUES + 1]."""
        obs = np.zeros((len(self.cue), self.CUES + 1), np.float32)
        obs[self.fresh, self.cue[self.fresh]] = 1.0
        obs[:, -1] = self.wait == 0
        return obs

    def step(self, action: NDArray[np.int64]) -> tuple[Any, ...]:
        """Observation, reward f64, terminated bool, truncated bool, info."""
        asked = self.wait == 0
        reward = (asked & (action == self.cue)).astype(np.float64)
        self.trial += asked
        done = self.trial == self.TRIALS
        self.trial[done] = 0
        self.cue[asked] = self.random.integers(self.CUES, size=int(asked.sum()))
        self.wait = np.where(asked, self._delays(len(asked)), self.wait - 1)
        self.fresh = asked
        return self.observe(), reward, done, np.zeros_like(done), {}

    def _delays(self, n: int) -> NDArray[np.int64]:
        """Steps from cue to go signal."""
        return self.random.integers(1, self.DELAY_MAX + 1, size=n)


class Agent(nn.Module):
    """One LSTM cell under a policy head and a value head."""

    def __init__(self, observations: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTMCell(observations, hidden)
        self.actor = nn.Linear(hidden, actions)
        self.critic = nn.Linear(hidden, 1)
        for layer, gain in ((self.actor, 0.01), (self.critic, 1.0)):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)

    def unroll(self, obs: torch.Tensor, begins: torch.Tensor, state: State) -> tuple[State, State]:
        """What the cell makes of obs [T, B, :], and what it is given: hidden and cell states, each [T, B, hidden]. `begins`
        [T, B] is 1 where an episode begins."""
        made, given = [], []
        for x, begin in zip(obs, begins, strict=True):
            kept = (1.0 - begin)[:, None]
            given.append((kept * state[0], kept * state[1]))
            state = self.lstm(x, given[-1])
            made.append(state)
        return _stack(made), _stack(given)

    def heads(self, hidden: torch.Tensor, action: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Action (sampled if None), its log-probability, entropy of the policy, value; each of hidden's leading shape."""
        policy: Any = Categorical(logits=self.actor(hidden))  # Any: torch leaves its distributions untyped
        action = policy.sample() if action is None else action
        return action, policy.log_prob(action), policy.entropy(), self.critic(hidden).squeeze(-1)


def _stack(states: list[State]) -> State:
    """Of steps, as [T, B, hidden]."""
    return torch.stack([hidden for hidden, _ in states]), torch.stack([cell for _, cell in states])


class Rollout:
    """Collects `num_steps` of every environment, goes on where the last one ended, and computes GAE."""

    def __init__(self, args: argparse.Namespace, broken: Sabotage) -> None:
        self.args = args
        self.broken = broken
        self.envs = Recall(args.num_envs, args.seed)
        shape = (args.num_steps, args.num_envs)
        self.obs = torch.zeros(*shape, Recall.CUES + 1)
        self.actions = torch.zeros(shape, dtype=torch.int64)
        self.logp, self.rewards, self.begins, self.values = (torch.zeros(shape) for _ in range(4))
        self.hidden, self.cell, self.given_hidden, self.given_cell = (torch.zeros(*shape, args.hidden) for _ in range(4))
        self.returns = self.advantages = torch.zeros(shape)
        self.next_obs = torch.as_tensor(self.envs.observe())
        self.next_begin = torch.ones(args.num_envs)
        self.state: State = (torch.zeros(args.num_envs, args.hidden), torch.zeros(args.num_envs, args.hidden))
        self.first_state = self.state
        self.running, self.steps = np.zeros(args.num_envs), np.zeros(args.num_envs)
        self.episode_returns: list[float] = []
        self.episode_lengths: list[float] = []
        self.total_steps = 0

    @torch.no_grad()
    def collect(self, agent: Agent) -> None:
        """Fill the buffers; `first_state` is where the update unrolls from."""
        self.episode_returns, self.episode_lengths = [], []
        self.first_state = self.state
        for step in range(self.args.num_steps):
            self.obs[step], self.begins[step] = self.next_obs, self.next_begin
            (hidden, cell), given = agent.unroll(self.next_obs[None], self.next_begin[None], self.state)
            self.hidden[step], self.cell[step] = self.state = hidden[0], cell[0]
            self.given_hidden[step], self.given_cell[step] = given[0][0], given[1][0]
            self.actions[step], self.logp[step], _, self.values[step] = agent.heads(hidden[0])
            obs, reward, terminated, truncated, _ = self.broken.step(self.envs, self.actions[step].numpy())
            done = np.logical_or(terminated, truncated)
            self.rewards[step] = torch.as_tensor(reward)
            self.next_obs, self.next_begin = torch.as_tensor(obs), torch.as_tensor(done, dtype=torch.float32)
            self.running += reward
            self.steps += 1
            self.episode_returns += self.running[done].tolist()
            self.episode_lengths += self.steps[done].tolist()
            self.running[done] = self.steps[done] = 0.0
        self.total_steps += self.args.num_steps * self.args.num_envs
        (hidden, _), _ = agent.unroll(self.next_obs[None], self.next_begin[None], self.state)
        self._estimate(agent.heads(hidden[0])[3])

    def _estimate(self, next_value: torch.Tensor) -> None:
        """Generalised advantage estimation (Schulman et al., 2016)."""
        self.advantages = torch.zeros_like(self.rewards)
        running, next_begin = torch.zeros(self.args.num_envs), self.next_begin
        for step in reversed(range(self.args.num_steps)):
            alive = 1.0 - next_begin
            delta = self.rewards[step] + self.args.gamma * next_value * alive - self.values[step]
            running = delta + self.args.gamma * self.args.gae_lambda * alive * running
            self.advantages[step], next_value, next_begin = running, self.values[step], self.begins[step]
        self.returns = self.advantages + self.values


def learn(agent: Agent, optimizer: torch.optim.Optimizer, roll: Rollout, mon: Monitor) -> dict[str, float]:
    """One PPO update over whole sequences; returns what the trainer itself records: means over all minibatches."""
    args, broken = roll.args, roll.broken
    old_logps = broken.logp(roll.logp)
    record: list[list[float]] = []
    for _ in range(args.update_epochs):
        for mb in torch.randperm(args.num_envs).chunk(args.num_minibatches):
            state = (roll.first_state[0][mb], roll.first_state[1][mb])
            (hidden, cell), _ = agent.unroll(roll.obs[:, mb], roll.begins[:, mb], state)
            _, logp, entropy, value = agent.heads(hidden, roll.actions[:, mb])
            old_logp, returns, adv = old_logps[:, mb], roll.returns[:, mb], roll.advantages[:, mb]
            ratio = (logp - old_logp).exp()
            adv = (adv - adv.mean()) / (adv.std() + 1e-8)
            clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
            policy_loss = -torch.min(ratio * adv, clipped * adv).mean()
            value_loss = 0.5 * (value - returns).square().mean()
            loss = policy_loss - args.ent_coef * entropy.mean() + args.vf_coef * value_loss
            mon.ppo(
                new_logp=logp,
                old_logp=old_logp,
                entropy=entropy,
                values=value,
                returns=returns,
                advantages=adv,
                clip=args.clip_coef,
                actions=roll.actions[:, mb],
                loss=loss,
            )
            mon.recurrent(hidden, cell, phase="update")
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
        "cell_rms": roll.cell.square().mean().sqrt().item(),
    }


def train(args: argparse.Namespace, output: IO[str] | None) -> None:
    """The whole run. Writes a JSON line per update to `output`, or a line for people to stdout."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    broken = SABOTAGE[args.fault](args.fault_update)
    roll = Rollout(args, broken)
    agent = Agent(Recall.CUES + 1, Recall.CUES, args.hidden)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    mon = watch(
        agent,
        optimizer,
        run=args.run or f"ppo-recall-lstm-{args.seed}",
        config=vars(args),
        updates_total=args.updates,
        action_space=roll.envs.single_action_space,
        labels={"env": "Recall"},
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
        given = roll.given_hidden.flatten(0, 1), roll.given_cell.flatten(0, 1)
        mon.recurrent(*given, phase="rollout", reset=roll.begins.flatten())  # as it goes in: 0 where an episode begins
        with mon.phase("update"):
            record = learn(agent, optimizer, roll, mon)
        mean = float(np.mean(roll.episode_returns)) if roll.episode_returns else None
        if output is not None:
            line = {"update": update, "level": level, "env_steps": roll.total_steps, "return_mean": mean, **record}
            output.write(json.dumps(line) + "\n")
            output.flush()
        else:
            print(f"update={update} global_step={roll.total_steps} episodic_return={mean} approx_kl={record['approx_kl']:.4f}")
        mon.step(env_steps=roll.total_steps, episode_returns=roll.episode_returns, episode_lengths=roll.episode_lengths)
        if args.pace_ms:
            time.sleep(args.pace_ms / 1000)
        if mon.should_stop:
            break
    mon.close()


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
