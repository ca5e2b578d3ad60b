"""A PPO script in the manner of CleanRL, which knows nothing of gradwatch: one file, one SummaryWriter, one global_step.

It writes what it knows of each iteration to `--truth`, one JSON line each, for a test to compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys

import torch
from torch import nn, optim

parser = argparse.ArgumentParser()
parser.add_argument("--iterations", type=int, default=5)
parser.add_argument("--num-envs", type=int, default=4)
parser.add_argument("--num-steps", type=int, default=16)
parser.add_argument("--learning-rate", type=float, default=2.5e-4)
parser.add_argument("--burst-at", type=int, default=-1)
parser.add_argument("--nan-at", type=int, default=-1)
parser.add_argument("--wandb-token", default="s3cret")
parser.add_argument("--logdir", default="")
parser.add_argument("--truth", default="")
parser.add_argument("--parameters", default="")
parser.add_argument("--end", default="", help="raise, exit or a signal's name, after the last iteration but one")
parser.add_argument("--fail-early", action="store_true")
args = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(1)
if args.fail_early:
    raise RuntimeError("no environment of that name")


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
        self.actor = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))

    def get_action_and_value(self, x, action=None):
        probs = torch.distributions.Categorical(logits=self.actor(x))
        action = probs.sample() if action is None else action
        return action, probs.log_prob(action), probs.entropy(), self.critic(x)


writer = None
if args.logdir:
    from torch.utils.tensorboard import SummaryWriter  # half of the time this script takes

    writer = SummaryWriter(args.logdir)
table = "\n".join([f"|{key}|{value}|" for key, value in vars(args).items()])
if writer:
    writer.add_text("hyperparameters", "|param|value|\n|-|-|\n" + table)
agent = Agent()
optimizer = optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
batch = args.num_envs * args.num_steps
obs = torch.zeros((args.num_steps, args.num_envs, 3))
actions, logprobs, rewards, values = (torch.zeros((args.num_steps, args.num_envs)) for _ in range(4))
global_step = 0
next_obs, total = torch.rand(args.num_envs, 3), torch.zeros(args.num_envs)

for iteration in range(args.iterations):
    optimizer.param_groups[0]["lr"] = args.learning_rate * (1000 if iteration == args.burst_at else 1)
    returns = []
    for step in range(args.num_steps):
        global_step += args.num_envs
        obs[step] = next_obs
        with torch.no_grad():
            action, logprob, _, value = agent.get_action_and_value(next_obs)
        rewards[step] = (action == (next_obs[:, 0] > 0.5)).float()
        actions[step], logprobs[step], values[step] = action, logprob, value.flatten()
        total += rewards[step]
        next_obs = torch.rand(args.num_envs, 3)
        if iteration % 2 == 0 and step in (5, 11):  # in every other iteration no episode ends
            returns.append(total[0].item())
            if writer:
                writer.add_scalar("charts/episodic_return", returns[-1], global_step)
                writer.add_scalar("charts/episodic_length", 6, global_step)
            total[0] = 0
    b_returns, b_adv = rewards.reshape(-1), (rewards - values).reshape(-1)
    norms, entropies, clipfracs = [], [], []
    for _ in range(2):
        for mb in torch.randperm(batch).split(batch // 2):
            _, newlogprob, entropy, newvalue = agent.get_action_and_value(
                obs.reshape(-1, 3)[mb], actions.reshape(-1)[mb].long()
            )
            logratio = newlogprob - logprobs.reshape(-1)[mb]
            ratio = logratio.exp()
            with torch.no_grad():
                old_approx_kl = (-logratio).mean()
                approx_kl = ((ratio - 1) - logratio).mean()
                clipfracs.append(((ratio - 1.0).abs() > 0.2).float().mean().item())
                entropies.append(entropy.mean().item())
            pg_loss = torch.max(-b_adv[mb] * ratio, -b_adv[mb] * ratio.clamp(0.8, 1.2)).mean()
            v_loss = 0.5 * ((newvalue.view(-1) - b_returns[mb]) ** 2).mean()
            loss = pg_loss - 0.01 * entropy.mean() + v_loss * 0.5
            optimizer.zero_grad()
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(agent.parameters(), 0.1).item())
            optimizer.step()
    y_pred, y_true = values.reshape(-1).numpy(), b_returns.numpy()
    explained_var = float("nan") if y_true.var() == 0 else 1 - (y_true - y_pred).var() / y_true.var()
    if iteration == args.nan_at:
        v_loss = v_loss * float("nan")  # as it is logged; nothing is trained on it
    if writer:
        writer.add_scalar("charts/learning_rate", optimizer.param_groups[0]["lr"], global_step)
        writer.add_scalar("losses/value_loss", v_loss.item(), global_step)
        writer.add_scalar("losses/policy_loss", pg_loss.item(), global_step)
        writer.add_scalar("losses/entropy", entropy.mean().item(), global_step)
        writer.add_scalar("losses/old_approx_kl", old_approx_kl.item(), global_step)
        writer.add_scalar("losses/approx_kl", approx_kl.item(), global_step)
        writer.add_scalar("losses/clipfrac", sum(clipfracs) / len(clipfracs), global_step)
        writer.add_scalar("losses/explained_variance", explained_var, global_step)
        writer.add_scalar("charts/SPS", 1000, global_step)
    if args.truth:
        with open(args.truth, "a") as truth:
            known = {"global_step": global_step, "norms": norms, "returns": returns, "kl": approx_kl.item()}
            known |= {"entropy": sum(entropies) / len(entropies), "clipfrac": clipfracs, "ev": float(explained_var)}
            truth.write(json.dumps(known) + "\n")
    if args.end and iteration == args.iterations - 2:
        print("ending", flush=True)
        if args.end == "raise":
            raise ValueError("loss is not what it was")
        if args.end == "exit":
            sys.exit(7)
        os.kill(os.getpid(), getattr(signal, args.end))
        signal.pause()

if args.parameters:
    torch.save(agent.state_dict(), args.parameters)
if writer:
    writer.close()
print("done")
