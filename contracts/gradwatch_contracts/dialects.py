"""What the keys of other programs mean, and as what they are read. The same name is another number in every library.

A key becomes one of our signals only where the number is that signal: the same estimator over the same window. Otherwise it
is kept as a scalar of the user's, which no detector takes for something it is not. The one table of them: `gradwatch import`
reads logs by it, and `gradwatch run` the scalars of a script. Sources: the programs' own code, as named by each dialect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(frozen=True, slots=True)
class Meaning:
    """How a key is read: as `signal` after multiplication with `sign`, or as a scalar of the user's where that is ''.

    `nonfinite` names the count that is at least 1 where the number is NaN (and, with `infinite`, where it is infinite): what
    is known of it then, and nothing is known of it otherwise. `why` is the reason for the reading.
    """

    signal: str = ""
    sign: float = 1.0
    nonfinite: str = ""
    infinite: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one program writes. It is known by `marks`, keys of which all must be there.

    `clock` is the beginning of the keys that are written once an update; '' where every step is one. `late` begins the keys
    that are written with the next update's. `episode` is the key written for each finished episode. `steps_are_updates` says
    what the step counts: updates, or environment steps.
    """

    name: str
    marks: tuple[str, ...]
    keys: Mapping[str, Meaning]
    clock: str = ""
    late: str = ""
    episode: str = ""
    steps_are_updates: bool = False


_LOSS = "loss.total.nonfinite"

SB3 = Dialect(
    "Stable-Baselines3 PPO",
    ("time/fps", "train/clip_fraction", "train/entropy_loss"),
    {
        "train/entropy_loss": Meaning("policy.entropy.raw", -1.0, why="minus the mean entropy over all minibatches"),
        "train/clip_fraction": Meaning("policy.clip_fraction", why="mean over all minibatches"),
        "train/explained_variance": Meaning("value.explained_variance", why="of the values at collection"),
        "train/learning_rate": Meaning("opt.lr", why="set before the update"),
        "train/approx_kl": Meaning(
            nonfinite="policy.logratio.nonfinite",
            infinite=False,
            why="k3 over the last epoch only, and policy.kl.k3 is over the whole update",
        ),
        "train/loss": Meaning(nonfinite=_LOSS, why="of the last minibatch, and loss.total is the mean of all"),
        "train/value_loss": Meaning(nonfinite=_LOSS, why="clipped where clip_range_vf is set, so not the error of the values"),
        "train/policy_gradient_loss": Meaning(nonfinite=_LOSS, why="a part of the loss"),
        "rollout/ep_rew_mean": Meaning(
            nonfinite="reward.step.nonfinite",
            infinite=False,
            why="mean of the last 100 episodes, and episode.return is of those of this update",
        ),
    },
    clock="time/fps",
    late="train/",
)
"""`stable_baselines3/ppo/ppo.py` and `common/on_policy_algorithm.py`, 2.9; also sb3-contrib's recurrent and maskable PPO."""

CLEANRL = Dialect(
    "CleanRL PPO",
    ("charts/SPS", "losses/clipfrac", "losses/approx_kl"),
    {
        "losses/approx_kl": Meaning(
            "policy.kl.k3.last", nonfinite="policy.logratio.nonfinite", infinite=False, why="k3 of the last minibatch"
        ),
        "losses/clipfrac": Meaning("policy.clip_fraction", why="mean over all minibatches"),
        "losses/explained_variance": Meaning("value.explained_variance", why="of the values at collection"),
        "losses/entropy": Meaning(why="of the last minibatch, and policy.entropy.raw is over the whole update"),
        "losses/old_approx_kl": Meaning(why="k1 of the last minibatch, and policy.kl.k1 is over the whole update"),
        "losses/value_loss": Meaning(nonfinite=_LOSS, why="of the last minibatch, halved and clipped"),
        "losses/policy_loss": Meaning(nonfinite=_LOSS, why="of the last minibatch, a part of the loss"),
        "charts/learning_rate": Meaning("opt.lr", why="at the end of the update"),
        "charts/episodic_return": Meaning(
            "episode.return", nonfinite="reward.step.nonfinite", infinite=False, why="each finished episode"
        ),
    },
    clock="losses/",
    episode="charts/episodic_return",
)
"""`cleanrl/ppo*.py`, April 2026."""

RSL_RL = Dialect(
    "rsl_rl PPO",
    ("Loss/learning_rate", "Perf/total_fps"),
    {
        "Loss/entropy": Meaning("policy.entropy.raw", why="mean over all minibatches"),
        "Loss/learning_rate": Meaning("opt.lr", why="at the end of the update; where it adapts it follows the KL"),
        "Loss/value": Meaning(nonfinite=_LOSS, why="clipped, so not the error of the values"),
        "Loss/value_function": Meaning(nonfinite=_LOSS, why="clipped, so not the error of the values"),
        "Loss/surrogate": Meaning(nonfinite=_LOSS, why="a part of the loss"),
        "Train/mean_reward": Meaning(why="mean of the last 100 episodes, and episode.return is of those of this update"),
    },
    clock="Loss/",
    steps_are_updates=True,
)
"""`rsl_rl/utils/logger.py` and `algorithms/ppo.py`, 5.5."""

RL_GAMES = Dialect(
    "rl_games",
    ("losses/a_loss", "losses/c_loss", "info/last_lr"),
    {
        "losses/entropy": Meaning("policy.entropy.raw", why="mean over all minibatches"),
        "info/last_lr": Meaning("opt.lr", why="at the end of the update; where it adapts it follows the KL"),
        "info/kl": Meaning(
            nonfinite="policy.logratio.nonfinite",
            infinite=False,
            why="exact KL of two Gaussians, and policy.kl.k3 is an estimate",
        ),
        "losses/a_loss": Meaning(nonfinite=_LOSS, why="a part of the loss"),
        "losses/c_loss": Meaning(nonfinite=_LOSS, why="clipped where clip_value is set, so not the error of the values"),
    },
    clock="losses/",
)
"""`rl_games/common/a2c_common.py`, 1.6: `write_stats`."""

_TRACKED = "mean over the write interval, which may hold several updates"
SKRL = Dialect(
    "skrl PPO",
    ("Loss / Policy loss", "Loss / Value loss"),
    {
        "Loss / Policy loss": Meaning(nonfinite=_LOSS, why=_TRACKED),
        "Loss / Value loss": Meaning(nonfinite=_LOSS, why=_TRACKED),
        "Loss / Entropy loss": Meaning(nonfinite=_LOSS, why="minus the entropy times its scale"),
        "Policy / Standard deviation": Meaning(why=_TRACKED),
        "Learning / Learning rate": Meaning(why=_TRACKED),
    },
)
"""`skrl/agents/torch/base.py`, 2.1: what is tracked is averaged until it is written."""

_LEARNER = "learners/default_policy/"
RLLIB = Dialect(
    "RLlib PPO",
    (f"{_LEARNER}mean_kl_loss", f"{_LEARNER}vf_explained_var"),
    {
        f"{_LEARNER}mean_kl_loss": Meaning(
            nonfinite="policy.logratio.nonfinite", infinite=False, why="exact KL, of the last minibatch"
        ),
        f"{_LEARNER}entropy": Meaning(why="of the last minibatch, and policy.entropy.raw is over the whole update"),
        f"{_LEARNER}vf_explained_var": Meaning(why="of the last minibatch, and value.explained_variance is of a rollout"),
        f"{_LEARNER}total_loss": Meaning(nonfinite=_LOSS, why="of the last minibatch, and loss.total is the mean of all"),
        f"{_LEARNER}default_optimizer_learning_rate": Meaning("opt.lr", why="at the end of the update"),
        "env_runners/episode_return_mean": Meaning(why="mean over a window of episodes, and episode.return is of this update"),
    },
)
"""`rllib/algorithms/ppo/torch/ppo_torch_learner.py`, new stack, 2.60: metrics of window 1 keep the last minibatch."""

_TUNE = "ray/tune/"
RLLIB_BOARD = replace(
    RLLIB,
    marks=tuple(f"{_TUNE}{mark}" for mark in RLLIB.marks),
    keys={f"{_TUNE}{key}": meaning for key, meaning in RLLIB.keys.items()},
)
"""The same in TensorBoard, where `ray/tune/logger/tensorboardx.py` puts a path before each key; tables have none."""

_WINDOW = "mean over micro-batches since the last log, NaN left out"
TRL = Dialect(
    "TRL GRPO or RLOO",
    ("train/reward_std", "train/frac_reward_zero_std"),
    {
        "train/kl": Meaning(why="k3 to the reference model, and policy.kl.k3 is to the policy that collected"),
        "train/entropy": Meaning(why=_WINDOW),
        "train/clip_ratio/region_mean": Meaning(why="of samples that clipping acts on; " + _WINDOW),
        "train/reward": Meaning(why=_WINDOW),
        "train/loss": Meaning(nonfinite=_LOSS, why="mean since the last log"),
        "train/learning_rate": Meaning("opt.lr", why="at the end of the step"),
    },
)
"""`trl/trainer/grpo_trainer.py`, 1.16, by the TensorBoard callback of transformers, which puts `train/` before each key."""

UNKNOWN = Dialect("an unknown program", (), {})

DIALECTS = (SB3, CLEANRL, RSL_RL, RL_GAMES, SKRL, RLLIB, RLLIB_BOARD, TRL)


def dialect_of(keys: Collection[str]) -> Dialect:
    """Which program wrote these keys; `UNKNOWN` unless all marks of one are there: a borrowed name proves nothing."""
    return next((dialect for dialect in DIALECTS if all(mark in keys for mark in dialect.marks)), UNKNOWN)
