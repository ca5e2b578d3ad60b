"""A handful of samples carries the KL, while clipping hardly acts."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.series import KL_TAIL
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, LOGP_CALL, Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_K3, _K2 = "policy.kl.k3", "policy.kl.k2"

SPEC = Spec(
    kind="kl_tail",
    stage=Stage.POLICY,
    title="KL carried by a few samples",
    meaning="The mean KL has risen because of a few samples whose probability grew many times over; most of the policy hardly "
    "moved. Clipping does not act on what has already left the clip range.",
    source="k3 / k2 is near 1 for small log-ratios and grows with their right tail (Schulman 2020, Approximating KL "
    "Divergence); "
    "seen as KL that soars while the clip fraction falls in baselines #456",
    fails_when="At a tiny KL the quotient is noise, hence the floor. A broad, even shift has no tail; kl_spike sees that.",
    tries=(
        "Look at the advantages: one huge value is the usual cause. Normalise or clip them.",
        "Look for states the critic has never seen; their advantages are its errors.",
        "Lower the learning rate, or use larger minibatches.",
    ),
    explains=AFTER_BAD_STEP,
    profiles={
        "default": Variant(
            None,
            (Need(_K3, LOGP_CALL), Need(_K2, LOGP_CALL)),
            (
                Threshold("tail", _K3, ">", 1.5, "Mean KL over half of the mean squared log-ratio", clear=0.8, series=KL_TAIL),
                Threshold("k3", _K3, ">", 0.03, "KL (k3)", "nats", clear=0.5),
                Threshold("times_usual", _K3, ">", 3.0, "KL (k3)", clear=0.5, measure=Measure.TIMES),
            ),
            (Vote(Severity.WARNING, 2, 3, Severity.WARNING),),
            keep_firing=5,
            formula="k3 / k2 > 1.5 and k3 > max(0.03, 3 x usual) in 2 of 3 updates",
            warm_up=LEARNED + GUARD,
            parts=(Part(Severity.WARNING, ("tail", "k3", "times_usual")),),
        ),
    },
)
