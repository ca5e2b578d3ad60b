"""The policy moved much further in an update than it usually does in this run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.baseline import GUARD, LEARNED, Scale
from gradwatch_daemon.detect.spec import LOGP_CALL, Spec, Variant, check_fixed, once
from gradwatch_daemon.detect.view import Finding
from gradwatch_daemon.rules import Need, Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import Verdicts
    from gradwatch_daemon.rules import Rule

SCALE = Scale(log=True, mad_least=0.05, least=1e-8)
CLEAR_TIMES_USUAL = 1.5
"""Back below this multiple of the usual value, a spike is over."""

FINITE_MOST = sys.float_info.max

_K3 = "policy.kl.k3"
_WORDS = "KL (k3, mean over the update)"


def check(view: View, rule: Rule) -> Verdicts:
    """Odd for this run (z), and large in itself (floor and multiple of the usual): both, or a quiet run would cry at noise."""
    math = view.math
    k3 = view.input(_K3)
    scores = view.scores(_K3, SCALE)
    floor, times = rule.threshold("k3"), rule.threshold("times_usual").limit
    values = k3.values
    infinite = k3.readable & (values > FINITE_MOST)
    large = k3.readable & floor.exceeded(k3.values)
    breach = (large & (scores.z > rule.threshold("z").limit) & (values > times * scores.usual)) | infinite
    clear = floor.cleared(k3.values) | (values <= CLEAR_TIMES_USUAL * scores.usual)
    learning = math.unknown(scores.usual), scores.learned
    if view.single and not breach:
        return view.calm(rule, (k3,), clear, learning)
    found = Finding(
        breach,
        floor.rank,
        clear,
        values,
        math.larger(math.larger(scores.limit, times * scores.usual), floor.limit),
        scores.usual,
    )
    return view.answer(rule, (k3,), found, learning)


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
    explains=("kl_extreme", "ratio_collapse", "performance_degradation"),
    profiles={
        "default": Variant(
            check,
            (Need(_K3, LOGP_CALL),),
            (
                Threshold("k3", _K3, ">", 0.03, _WORDS, "nats", Severity.WARNING, clear=0.5),
                Threshold("z", _K3, ">", 4.0, "Robust score of log(KL)"),
                Threshold("times_usual", _K3, ">", 3.0, "KL over its usual value"),
            ),
            (Vote(Severity.WARNING, 2, 3, Severity.WARNING),),
            keep_firing=5,
            formula="z(log k3) > 4 and k3 > max(0.03, 3 x usual) in 2 of 3 updates",
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
