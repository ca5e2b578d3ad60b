"""The new policy makes some taken actions many times as likely as the old one did."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, LOGP_CALL, Spec, Variant, check_fixed, once
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_MAX, _TAIL, _K3 = "policy.ratio.max", "policy.ratio.tail_index", "policy.kl.k3"
_RATIO = "Largest ratio of new to old probability (over the update)"
_TAIL_WORDS = "Tail of the log-ratio (largest, in units of the largest expected)"


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
    explains=AFTER_BAD_STEP,
    profiles={
        "default": Variant(
            None,
            # Log-ratios that are all equal have no spread and so no tail index: that is no tail, and no reason to be blind.
            (Need(_MAX, LOGP_CALL), Need(_TAIL, LOGP_CALL, void=True), Need(_K3, LOGP_CALL)),
            (
                Threshold("max", _MAX, ">", 20.0, _RATIO, severity=Severity.CRITICAL),
                Threshold("max_info", _MAX, ">", 5.0, _RATIO, severity=Severity.INFO, clear=2 / 3),
                Threshold("tail", _TAIL, ">", 4.0, _TAIL_WORDS, severity=Severity.CRITICAL),
                Threshold("tail_k3", _K3, ">", 0.05, "KL beside the tail", "nats"),
                Threshold("tail_odd", _TAIL, ">", 3.0, _TAIL_WORDS),
                Threshold("odd_max", _MAX, ">", 3.0, _RATIO),
                Threshold("z", _MAX, ">", 4.0, _RATIO, clear=0.5, measure=Measure.Z),
            ),
            (
                Vote(Severity.CRITICAL, 1, 1, Severity.CRITICAL),
                Vote(Severity.WARNING, 2, 3, Severity.WARNING),
                Vote(Severity.INFO, 1, 1, Severity.INFO),
            ),
            keep_firing=8,
            parts=(
                Part(Severity.CRITICAL, ("max",)),
                Part(Severity.CRITICAL, ("tail", "tail_k3")),
                Part(Severity.WARNING, ("z", "tail_odd", "odd_max")),
                Part(Severity.INFO, ("max_info",)),
            ),
            formula="critical: max r > 20, or tail index > 4 and k3 > 0.05; warning: tail index > 3, z(log max r) > 4 and "
            "max r > 3 "
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
