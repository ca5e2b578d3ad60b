"""What an integration sees: the signals of each tier, masked before detection, as if the trainer had sent no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts.signals import COLUMNS, SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradwatch_daemon.records import SignalKey

LOGGED = frozenset(
    {
        "policy.kl.k3",
        "policy.clip_fraction",
        "policy.entropy.raw",
        "policy.std.mean",
        "loss.total",
        "value.explained_variance",
        "value.new.error.rms",
        "episode.return.mean",
        "episode.length.mean",
        "episode.count",
        "opt.lr",
    }
)
"""What Stable-Baselines3 logs: approx_kl, clip_fraction, entropy_loss, std, loss, explained_variance, value_loss,
ep_rew_mean, ep_len_mean, learning_rate. Its own windows differ (docs/adapters.md); here each is over its whole update."""

CALLS = frozenset({"rollout", "ppo", "recurrent"})
"""Calls a callback can make without the module or the optimizer in its hands."""

OF_MODULE = ("param", "opt.adam", "opt.steps", "opt.skipped", "opt.update_ratio")

TIERS = ("logged", "callback", "hooks")


def keeps(tier: str, masks: frozenset[str]) -> Callable[[SignalKey], bool]:
    """Which signals a tier sees, less the knob that was turned.

    Raises:
        KeyError: for no tier.
    """
    allowed = {"logged": LOGGED, "callback": frozenset(filter(_of_callback, SIGNALS)), "hooks": frozenset(SIGNALS)}[tier]
    return lambda key: key.name in allowed and key.name not in masks


def _of_callback(name: str) -> bool:
    calls = {COLUMNS[column].call for column in SIGNALS[name].columns}
    return calls <= CALLS or (calls <= {"step", "log"} and not name.startswith(OF_MODULE)) or name in LOGGED
