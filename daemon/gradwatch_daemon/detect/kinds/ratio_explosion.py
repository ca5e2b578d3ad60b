"""The new policy makes some taken actions many times as likely as the old one did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.baseline import GUARD, LEARNED, Scale
from gradwatch_daemon.detect.spec import LOGP_CALL, Spec, Variant, check_fixed, once
from gradwatch_daemon.detect.view import NOTHING, Finding, Input
from gradwatch_daemon.rules import Need, Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import Verdicts
    from gradwatch_daemon.rules import Rule

SCALE = Scale(log=True, mad_least=0.05, least=1e-6)

_MAX, _TAIL, _K3 = "policy.ratio.max", "policy.ratio.tail_index", "policy.kl.k3"
_RATIO = "Largest ratio of new to old probability (over the update)"
_INFO, _WARNING, _CRITICAL = (severity.rank for severity in Severity)
_UNDEFINED = int(Status.UNDEFINED)
_TAIL_WORDS = "Tail of the log-ratio (largest, in units of the largest expected)"


def check(view: View, rule: Rule) -> Verdicts:
    """Backstop on the maximum, a tail with a real KL, a tail that is odd for this run; a bare maximum > 5 is info."""
    math = view.math
    ratio, tail, k3 = view.input(_MAX), view.input(_TAIL), view.input(_K3)
    # Log-ratios that are all equal have no spread and so no tail index: that is no tail, and no reason to be blind.
    tail = Input(_TAIL, tail.values, tail.readable | (tail.status == _UNDEFINED), tail.status)
    scores = view.scores(_MAX, SCALE)
    top, far, bare = rule.threshold("max"), rule.threshold("tail"), rule.threshold("max_info")
    by_max = ratio.readable & top.exceeded(ratio.values)
    by_tail = tail.readable & far.exceeded(tail.values)
    by_tail = by_tail & k3.readable & rule.threshold("tail_k3").exceeded(k3.values)
    odd_tail = tail.readable & rule.threshold("tail_odd").exceeded(tail.values)
    odd = odd_tail & (scores.z > rule.threshold("z").limit)
    large = ratio.readable & bare.exceeded(ratio.values)
    clear, inputs = bare.cleared(ratio.values) & math.negate(odd_tail), (ratio, tail, k3)
    note = "" if scores.learned >= LEARNED else f"its relative part has {scores.learned} of {LEARNED} updates to learn from"
    if view.single and not (by_max or by_tail or odd or large):
        return view.calm(rule, inputs, clear, note=note)
    tail_only = by_tail & math.negate(by_max)
    found = Finding(
        by_max | by_tail | odd | large,
        math.where(by_max | by_tail, _CRITICAL, math.where(odd, _WARNING, _INFO)),
        clear,
        math.where(tail_only, tail.values, ratio.values),
        math.where(by_max, top.limit, math.where(by_tail, far.limit, math.where(odd, scores.limit, bare.limit))),
        math.where(tail_only, NOTHING, scores.usual),
    )
    return view.answer(rule, inputs, found, note=note)


SPEC = Spec(
    kind="ratio_explosion",
    stage=Stage.POLICY,
    title="Probability ratio exploded",
    meaning="Some actions became many times as likely within one update. Clipping hides their gradient, not the step that "
    "already happened: the policy has left the region where the surrogate loss means anything.",
    source="trl #101 and #1857 (batches skipped at a mean ratio above 10); classic limit from practice",
    fails_when="The maximum grows with minibatch size, action dimensions and epochs, so one outlier is survivable: the tail "
    "index divides that growth out. A tail index of rare large values cannot see a broad, even shift; kl_extreme does.",
    tries=(
        "Lower the learning rate, or anneal it; a ratio follows the step size almost linearly in log.",
        "Use fewer epochs over a rollout, or stop an update early at a target KL.",
        "Check that advantages are normalised and have no single huge value.",
        "Go back to the last checkpoint before the onset: clipping does not bring the policy back.",
    ),
    explains=(
        "kl_extreme",
        "kl_spike",
        "ratio_collapse",
        "value_collapse",
        "gradient_exploding",
        "gradient_unhealthy",
        "gradient_drift",
        "performance_degradation",
    ),
    profiles={
        "default": Variant(
            check,
            (Need(_MAX, LOGP_CALL), Need(_TAIL, LOGP_CALL), Need(_K3, LOGP_CALL)),
            (
                Threshold("max", _MAX, ">", 20.0, _RATIO, severity=Severity.CRITICAL),
                Threshold("max_info", _MAX, ">", 5.0, _RATIO, severity=Severity.INFO, clear=2 / 3),
                Threshold("tail", _TAIL, ">", 4.0, _TAIL_WORDS, severity=Severity.CRITICAL),
                Threshold("tail_k3", _K3, ">", 0.05, "KL beside the tail", "nats"),
                Threshold("tail_odd", _TAIL, ">", 3.0, _TAIL_WORDS),
                Threshold("z", _MAX, ">", 4.0, "Robust score of log(largest ratio)"),
            ),
            (
                Vote(Severity.CRITICAL, 1, 1, Severity.CRITICAL),
                Vote(Severity.WARNING, 2, 3, Severity.WARNING),
                Vote(Severity.INFO, 1, 1, Severity.INFO),
            ),
            keep_firing=8,
            formula="critical: max r > 20, or tail index > 4 and k3 > 0.05; warning: tail index > 3 and z(log max r) > 4 "
            "in 2 of 3 updates; info: max r > 5",
            warm_up=LEARNED + GUARD,
        ),
        "classic": Variant(
            check_fixed,
            (Need(_MAX, LOGP_CALL),),
            (Threshold("max", _MAX, ">", 5.0, _RATIO, severity=Severity.WARNING, clear=0.5),),
            once(Severity.WARNING),
            keep_firing=3,
            formula="max r > 5",
        ),
    },
)
