"""The policy moved much further in an update than it usually does in this run."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, LOGP_CALL, Spec, Variant, check_fixed, once
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_K3 = "policy.kl.k3"
_WORDS = "KL (k3)"


SPEC = Spec(
    kind="kl_spike",
    stage=Stage.POLICY,
    title="KL spike",
    meaning="The policy changed several times as much in one update as it usually does. Often survivable, and often the first "
    "sign of what comes next.",
    source="1.5 times the target KL as a stop: stable-baselines3, Spinning Up; robust z > 4 in 2 of 3: at most 0.06 "
    "false alarms "
    "per 1,000 healthy updates of synthetic log-normal AR(1) noise; k3: Schulman 2020, Approximating KL Divergence",
    fails_when="In the first updates nothing is usual yet (kl_extreme covers them); a slow rise becomes usual itself. The rule "
    "finds about 8 of 10 steps by a factor of 4 when log-noise is 0.35; fewer when it is more.",
    tries=(
        "Lower the learning rate, or stop an update early at a target KL (0.01 to 0.02).",
        "Use fewer epochs or larger minibatches.",
        "Look at the advantages of that update: one huge value moves the whole policy.",
        "Clip gradients at a smaller norm.",
    ),
    explains=AFTER_BAD_STEP,
    profiles={
        "default": Variant(
            None,
            (Need(_K3, LOGP_CALL),),
            (
                Threshold("k3", _K3, ">", 0.03, _WORDS, "nats", Severity.WARNING, clear=0.5),
                Threshold("k3_alone", _K3, ">", 0.2, _WORDS, "nats", clear=0.5),
                Threshold("z_alone", _K3, ">", 5.0, _WORDS, clear=0.5, measure=Measure.Z),
                Threshold("times_alone", _K3, ">", 20.0, _WORDS, clear=0.1, measure=Measure.TIMES),
                Threshold("z", _K3, ">", 4.0, _WORDS, clear=0.5, measure=Measure.Z),
                Threshold("times_usual", _K3, ">", 3.0, _WORDS, clear=0.5, measure=Measure.TIMES),
            ),
            (Vote(Severity.CRITICAL, 1, 1, Severity.CRITICAL), Vote(Severity.WARNING, 2, 3, Severity.WARNING)),
            keep_firing=5,
            parts=(
                Part(Severity.WARNING, ("k3", "z", "times_usual")),
                Part(Severity.CRITICAL, ("k3_alone", "z_alone", "times_alone")),
            ),
            formula="z(log k3) > 4 and k3 > max(0.03, 3 x usual) in 2 of 3 updates; critical: > 5, > max(0.2, 20 x usual) in "
            "one",
            warm_up=LEARNED + GUARD,
        ),
        "classic": Variant(
            check_fixed,
            (Need(_K3, LOGP_CALL),),
            (Threshold("k3", _K3, ">", 0.1, _WORDS, "nats", Severity.WARNING, clear=0.5),),
            once(Severity.WARNING),
            keep_firing=3,
            formula="k3 > 0.1",
        ),
    },
)
