"""Which signals each detector needs, and the line of a trainer that feeds each: so the agent can say what a run will miss.

The daemon's detectors declare this themselves, with their thresholds; the wiring test holds this table to what they declare
in the profile `default`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

_LOGP = "pass new_logp and old_logp to mon.ppo()"
_CRITIC = "pass values and returns to mon.rollout()"
_CLIP = "call clip_grad_norm_, or pass the optimizer to watch()"
_OPTIMIZER = "pass the optimizer to watch()"
_RECURRENT = "call mon.recurrent(h, c) if the policy is recurrent"

LINES: dict[str, str] = {
    "policy.logratio.nonfinite": _LOGP,
    "obs.input.nonfinite": "pass observations to mon.rollout()",
    "reward.step.nonfinite": "pass rewards to mon.rollout()",
    "value.new.nonfinite": "pass values to mon.ppo()",
    "adv.used.nonfinite": "pass advantages to mon.ppo()",
    "loss.total.nonfinite": "pass loss to mon.ppo()",
    "grad.norm.nonfinite": _CLIP,
    "param.nonfinite": "pass the model to watch()",
    "rnn.h.nonfinite": _RECURRENT,
    "obs.input.std": "pass observations to mon.rollout()",
    "reward.step.mean": "pass rewards to mon.rollout()",
    "reward.step.absmax": "pass rewards to mon.rollout()",
    "policy.ratio.first_mb_dev": f"{_LOGP} before the first optimizer step",
    "rnn.reset.violations": "pass reset to mon.recurrent()",
    "rnn.h.rms": _RECURRENT,
    "rnn.h.saturation": _RECURRENT,
    "param.features.dormant": "pass probe to watch()",
    "grad.norm.mean": _CLIP,
    "value.envelope": _CRITIC,
    "value.error.rms": _CRITIC,
    "value.nmse": _CRITIC,
    "value.target.std": _CRITIC,
    "value.spread": _CRITIC,
    "adv.raw.std": "pass advantages to mon.rollout()",
    "policy.std.min": "pass std to mon.ppo()",
    "policy.ratio.max": _LOGP,
    "policy.ratio.tail_index": _LOGP,
    "policy.kl.k3": _LOGP,
    "policy.kl.k2": _LOGP,
    "policy.ratio.min": _LOGP,
    "policy.logratio.std": _LOGP,
    "policy.entropy.norm": "pass entropy to mon.ppo()",
    "policy.std.mean": "pass std to mon.ppo()",
    "grad.health": _CLIP,
    "grad.clip_fraction": _CLIP,
    "grad.clip_limit": _CLIP,
    "opt.lr": _OPTIMIZER,
    "policy.kl.k3.sample_max": _LOGP,
    "opt.steps": _OPTIMIZER,
    "opt.skipped": _OPTIMIZER,
    "episode.count": "pass episode_returns to mon.step()",
    "episode.return.mean": "pass episode_returns to mon.step()",
    "sys.update_ms": "call mon.step() once an update",
    "sys.host_bytes": "call mon.step() once an update",
}
"""Signal → the line to add to a trainer that does not feed it."""


STAND_INS = {"policy.kl.k3": "policy.kl.k3.last"}
"""Signal → the one that is judged in its place in a run whose rows do not list it at all, as a script's that logs the KL of the
last minibatch. What the rules of the KL find with either: docs/adapters.md."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Signals of one detector: without each of `every` it is blind, and without all of `some` too. Neither: that rows come
    is all it needs."""

    every: tuple[str, ...] = ()
    some: tuple[str, ...] = ()


NEEDS: dict[str, Needs] = {
    "nonfinite": Needs(some=tuple(name for name in LINES if name.endswith(".nonfinite"))),
    "observation_unhealthy": Needs(("obs.input.std",)),
    "reward_unhealthy": Needs(("reward.step.mean", "reward.step.absmax")),
    "rollout_mismatch": Needs(("policy.ratio.first_mb_dev",)),
    "recurrent_reset": Needs(("rnn.reset.violations",)),
    "lstm_unhealthy": Needs(("rnn.h.rms", "rnn.h.saturation")),
    "representation_collapse": Needs(("param.features.dormant",)),
    "gradient_vanishing": Needs(("grad.norm.mean",)),
    "critic_divergence": Needs(("value.envelope", "value.error.rms", "value.nmse")),
    "value_collapse": Needs(("value.nmse", "value.target.std")),
    "constant_critic": Needs(("value.spread", "value.target.std")),
    "advantage_degenerate": Needs(("adv.raw.std",)),
    "std_collapse": Needs(("policy.std.min",)),
    "ratio_explosion": Needs(("policy.ratio.max", "policy.ratio.tail_index", "policy.kl.k3")),
    "kl_extreme": Needs(("policy.kl.k3",)),
    "kl_spike": Needs(("policy.kl.k3",)),
    "kl_tail": Needs(("policy.kl.k3", "policy.kl.k2")),
    "kl_chronic": Needs(("policy.kl.k3",)),
    "ratio_collapse": Needs(("policy.ratio.min", "policy.logratio.std")),
    "gradient_exploding": Needs(("grad.norm.mean",)),
    "entropy_collapse": Needs(("policy.entropy.norm",)),
    "entropy_low": Needs(("policy.entropy.norm",)),
    "entropy_explosion": Needs(("policy.entropy.norm",)),
    "std_explosion": Needs(("policy.std.mean",)),
    "gradient_unhealthy": Needs(("grad.health",)),
    "gradient_drift": Needs(("grad.norm.mean", "grad.health")),
    "clip_saturation": Needs(("grad.clip_fraction", "grad.norm.mean", "grad.clip_limit", "policy.kl.k3")),
    "update_stalled": Needs(("policy.kl.k3", "policy.ratio.max", "opt.lr")),
    "optimizer_precursor": Needs(("policy.kl.k3.sample_max",)),
    "skipped_steps": Needs(("opt.steps", "opt.skipped")),
    "performance_degradation": Needs(("episode.count",)),
    "no_learning": Needs(("episode.return.mean",)),
    "slow_updates": Needs(("sys.update_ms",)),
    "memory_growth": Needs(("sys.host_bytes",)),
    "stall": Needs(),
    "telemetry_frozen": Needs(),
    "telemetry_gap": Needs(),
    "rank_missing": Needs(),
    "rank_desync": Needs(),
    "rank_slow": Needs(),
}
"""Kind of anomaly → what its detector needs, in the order of the daemon's catalogue."""


def judged(name: str, sent: Container[str]) -> str:
    """The signal that is judged for this one in a run that sends those."""
    other = STAND_INS.get(name, "")
    return other if name not in sent and other in sent else name
