"""The new policy takes nearly all probability away from actions the old one took."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, LOGP_CALL, Spec, Variant, check_fixed, once
from gradwatch_daemon.records.rules import Need, Part, Threshold, Vote

_MIN, _STD = "policy.ratio.min", "policy.logratio.std"
_RATIO = "Smallest ratio of new to old probability (over the update)"


SPEC = Spec(
    kind="ratio_collapse",
    stage=Stage.POLICY,
    title="Probability ratio collapsed",
    meaning="Some taken actions became almost impossible within one update. For bad actions that is learning; for a wide share "
    "of them it is a step too large, and those actions will hardly be tried again.",
    source="the ratio of PPO (Schulman et al. 2017), whose clipping does not bound it; limits as used in practice",
    fails_when="A long left tail of rare, truly bad actions is healthy and shows as info. A spread that comes from the right "
    "tail counts here too; ratio_explosion names that.",
    tries=(
        "Lower the learning rate, or use fewer epochs over a rollout.",
        "Raise the entropy coefficient a little, so that probabilities cannot fall to zero.",
        "Check the sign and the normalisation of the advantages.",
    ),
    explains=AFTER_BAD_STEP,
    profiles={
        "default": Variant(
            None,
            (Need(_MIN, LOGP_CALL), Need(_STD, LOGP_CALL)),
            (
                Threshold("min", _MIN, "<", 0.02, _RATIO, severity=Severity.INFO, clear=1.5),
                Threshold("spread", _STD, ">", 0.3, "Standard deviation of the log-ratio", "nats"),
            ),
            (Vote(Severity.WARNING, 2, 3, Severity.WARNING), Vote(Severity.INFO, 1, 1, Severity.INFO)),
            keep_firing=8,
            parts=(Part(Severity.WARNING, ("min", "spread")), Part(Severity.INFO, ("min",))),
            formula="warning: min r < 0.02 and std(log r) > 0.3 in 2 of 3 updates; info: min r < 0.02",
        ),
        "classic": Variant(
            check_fixed,
            (Need(_MIN, LOGP_CALL),),
            (Threshold("min", _MIN, "<", 0.1, _RATIO, severity=Severity.WARNING, clear=2.0),),
            once(Severity.WARNING),
            keep_firing=3,
            formula="min r < 0.1",
        ),
    },
)
