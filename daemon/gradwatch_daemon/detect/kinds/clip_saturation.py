"""Every gradient is clipped to a small part of itself, and the policy hardly moves."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.series import NORM_OVER_CLIP
from gradwatch_daemon.detect.spec import CLIP_CALL, LOGP_CALL, Spec, Variant
from gradwatch_daemon.records.rules import Need, Part, Threshold, Vote

_CLIPPED, _NORM, _LIMIT, _K3 = "grad.clip_fraction", "grad.norm.mean", "grad.clip_limit", "policy.kl.k3"

SPEC = Spec(
    kind="clip_saturation",
    stage=Stage.GRAD,
    title="Clipping throttles learning",
    meaning="All optimizer steps are clipped to less than a twentieth of the gradient, and the policy hardly changes: the clip "
    "limit, not the learning rate, decides how fast this run learns.",
    source="seen in practice: a limit of 0.5 with norms of 14 to 27 and a KL of 0; that being clipped alone is normal is "
    "measured "
    "here on healthy PPO, where most steps are",
    fails_when="A run that is meant to move slowly (a large batch, a small learning rate at its end) and whose value loss "
    "has a "
    "large scale. Adam divides by the scale of the gradient, so that a constant factor matters little: hence the KL.",
    tries=(
        "Raise the clip limit to about the usual norm.",
        "Normalise returns, or lower the value loss coefficient: the critic's gradient usually makes the norm.",
        "If actor and critic share a network, clip their gradients apart.",
    ),
    profiles={
        "default": Variant(
            None,
            (Need(_CLIPPED, CLIP_CALL), Need(_NORM, CLIP_CALL), Need(_LIMIT, CLIP_CALL), Need(_K3, LOGP_CALL)),
            (
                Threshold("over_clip", _NORM, ">", 20.0, "Gradient norm over the clip limit", clear=0.5, series=NORM_OVER_CLIP),
                Threshold("clipped", _CLIPPED, ">", 0.98, "Share of optimizer steps that were clipped"),
                Threshold("k3", _K3, "<", 1e-4, "KL (k3)", "nats", clear=2.0),
            ),
            (Vote(Severity.INFO, 10, 12, Severity.INFO),),
            keep_firing=10,
            formula="share of clipped steps > 0.98, norm > 20 x clip limit and k3 < 0.0001 in 10 of 12 updates",
            parts=(Part(Severity.INFO, ("over_clip", "clipped", "k3")),),
        ),
    },
)
