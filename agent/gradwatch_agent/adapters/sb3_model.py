"""What a model of Stable-Baselines3 says about itself: how it is configured, and where its observations are clipped."""

from __future__ import annotations

from typing import Any

SETTINGS = ("n_steps", "n_envs", "batch_size", "n_epochs", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm")
MORE_SETTINGS = ("target_kl", "normalize_advantage", "use_sde", "seed")
SCHEDULES = ("lr_schedule", "clip_range", "clip_range_vf")


def read_config(model: Any) -> dict[str, object]:
    """What a run is configured with, by a list of names: a model holds much that is nobody's business. A schedule is its
    value at the start and at the end of training."""
    found: dict[str, object] = {"algorithm": type(model).__name__, "policy": type(model.policy).__name__}
    found |= {name: getattr(model, name) for name in (*SETTINGS, *MORE_SETTINGS) if hasattr(model, name)}
    for name in SCHEDULES:
        schedule = getattr(model, name, None)
        if callable(schedule):
            found |= {f"{name}.start": schedule(1.0), f"{name}.end": schedule(0.0)}
    return found


def read_obs_clip(model: Any) -> float | None:
    """The bound at which VecNormalize clips observations. They are normalised by then, so its mean is no help."""
    normalize = model.get_vec_normalize_env()
    return float(normalize.clip_obs) if normalize is not None and normalize.norm_obs else None
