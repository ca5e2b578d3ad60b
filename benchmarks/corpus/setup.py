"""What a case trains with: everything that is fixed for its whole run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setup:
    """Hyperparameters in the manner of CleanRL's ppo.py, sized so that an update takes about 10 ms.

    `lr` anneals linearly to 0 over `updates` unless `anneal` is False. `bootstrap` adds the value of the state in which an
    episode was cut off. `target_kl` ends an update early, and `kl_adaptive` scales the learning rate by 1.5 after each update,
    as rsl_rl does. `normalize` divides rewards by a running standard deviation of the return.
    """

    environment: str
    updates: int = 250
    copies: int = 32
    steps: int = 16
    epochs: int = 2
    minibatches: int = 2
    lr: float = 2e-3
    anneal: bool = True
    gamma: float = 0.98
    gae_lambda: float = 0.95
    clip: float | None = 0.2
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    hidden: int = 64
    relu: bool = False
    recurrent: bool = False
    raw_std: bool = False
    log_std: float = 0.0
    bootstrap: bool = False
    normalize: bool = False
    target_kl: float | None = None
    kl_adaptive: bool = False
