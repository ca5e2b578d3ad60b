"""What a PPO run is judged by at a glance: shown first in the terminal and in reports."""

from __future__ import annotations

HEADLINES: tuple[str, ...] = (
    "episode.return.mean",
    "policy.kl.k3",
    "policy.entropy.norm",
    "policy.clip_fraction",
    "policy.ratio.max",
    "value.explained_variance",
    "loss.total",
    "grad.norm.mean",
    "opt.lr",
    "sys.update_ms",
)
"""Names of signals, most telling first."""
