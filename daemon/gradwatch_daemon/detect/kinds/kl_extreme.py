"""The policy moved so far that the update is wrong whatever the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.kinds.kl_spike import SCALE
from gradwatch_daemon.detect.spec import LOGP_CALL, Spec, Variant, check_fixed, once
from gradwatch_daemon.detect.view import Finding
from gradwatch_daemon.rules import Need, Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import Verdicts
    from gradwatch_daemon.rules import Rule

_K3 = "policy.kl.k3"
_WARNING, _CRITICAL = Severity.WARNING.rank, Severity.CRITICAL.rank
_WORDS = "KL (k3, mean over the update)"


def check(view: View, rule: Rule) -> Verdicts:
    """An absolute backstop that needs no history, so that a run broken from its first update is found."""
    math = view.math
    k3 = view.input(_K3)
    extreme, sustained = rule.threshold("k3"), rule.threshold("sustained")
    at_once = k3.readable & extreme.exceeded(k3.values)
    high = k3.readable & sustained.exceeded(k3.values)
    usual = view.scores(_K3, SCALE).usual
    if view.single and not (at_once or high):
        return view.calm(rule, (k3,), sustained.cleared(k3.values))
    found = Finding(
        at_once | high,
        math.where(at_once, _CRITICAL, _WARNING),
        sustained.cleared(k3.values),
        k3.values,
        math.where(at_once | math.negate(high), extreme.limit, sustained.limit),
        usual,
    )
    return view.answer(rule, (k3,), found)


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
    explains=("kl_spike", "ratio_collapse", "performance_degradation"),
    profiles={
        "default": Variant(
            check,
            (Need(_K3, LOGP_CALL),),
            (
                Threshold("k3", _K3, ">", 0.5, _WORDS, "nats", Severity.CRITICAL),
                Threshold("sustained", _K3, ">", 0.2, _WORDS, "nats", Severity.WARNING, clear=0.5),
            ),
            (*once(Severity.CRITICAL), Vote(Severity.WARNING, 3, 5, Severity.CRITICAL)),
            keep_firing=8,
            formula="k3 > 0.5, or k3 > 0.2 in 3 of 5 updates",
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
