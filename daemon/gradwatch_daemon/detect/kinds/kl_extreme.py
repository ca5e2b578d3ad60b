"""The policy moved so far that the update is wrong whatever the run."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, LOGP_CALL, Spec, Variant, check_fixed, once
from gradwatch_daemon.records.rules import Need, Part, Threshold, Vote

_K3 = "policy.kl.k3"
_WORDS = "KL (k3)"


SPEC = Spec(
    kind="kl_extreme",
    stage=Stage.POLICY,
    title="KL extreme",
    meaning="The policy after the update has little to do with the one that collected the data. What it learned from that data "
    "no longer applies to it.",
    source="stable-baselines3 #1593 (KL 33 many updates before NaN), baselines #975; k3: Schulman 2020, Approximating "
    "KL Divergence",
    fails_when="k3 grows like the ratio itself, so a few samples can carry it: ratio_explosion then names the cause. Policies "
    "with very many action dimensions have a larger KL by nature; raise the limits there.",
    tries=(
        "Go back to the last checkpoint before the onset; a policy rarely comes back by itself.",
        "Lower the learning rate by 3 to 10 times, or stop an update early at a target KL.",
        "Check the rewards and advantages of that update for outliers.",
        "Check that old_logp belongs to these observations and actions (see rollout_mismatch).",
    ),
    explains=AFTER_BAD_STEP,
    profiles={
        "default": Variant(
            None,
            (Need(_K3, LOGP_CALL),),
            (
                Threshold("k3", _K3, ">", 0.5, _WORDS, "nats", Severity.CRITICAL),
                Threshold("sustained", _K3, ">", 0.2, _WORDS, "nats", Severity.WARNING, clear=0.5),
            ),
            (*once(Severity.CRITICAL), Vote(Severity.WARNING, 3, 5, Severity.CRITICAL)),
            keep_firing=8,
            formula="k3 > 0.5, or k3 > 0.2 in 3 of 5 updates",
            parts=(Part(Severity.CRITICAL, ("k3",)), Part(Severity.WARNING, ("sustained",))),
        ),
        "classic": Variant(
            check_fixed,
            (Need(_K3, LOGP_CALL),),
            (Threshold("k3", _K3, ">", 0.5, _WORDS, "nats", Severity.CRITICAL, clear=0.5),),
            once(Severity.CRITICAL),
            keep_firing=3,
            formula="k3 > 0.5",
        ),
    },
)
