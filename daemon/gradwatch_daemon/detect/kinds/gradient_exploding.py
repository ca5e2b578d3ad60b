"""Gradients are many times as large as they usually are."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.kinds.gradient_vanishing import NORM, NORM_WORDS
from gradwatch_daemon.detect.series import AT_BEST, NORM_OVER_CLIP
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, CLIP_CALL, Spec, Variant, check_fixed, once
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

OVER_CLIP, _RETURN = "grad.tensor_norm.over_clip", "episode.return.mean"

_OVER = "Largest gradient norm of a parameter tensor over the clip limit"

SPEC = Spec(
    kind="gradient_exploding",
    stage=Stage.GRAD,
    title="Gradients exploded",
    meaning="The loss surface under the policy has become very steep. Clipping bounds the step, not its direction, which one "
    "sample or one bad target may decide now.",
    source="10 times the clip limit: as used in practice; robust log score and a "
    "minimum effect: "
    "ZClip (Kumar et al. 2025) and AdaGC (Wang et al. 2025) for what a plain z-score misses; ray #19696, "
    "hill-a/stable-baselines #36",
    fails_when="Heavy-tailed rewards give huge gradients for ever. A change of the minibatch size or of the reward "
    "scale moves the "
    "norm at once. Being above the clip limit is the normal state of many PPO runs, and therefore info in `default`.",
    tries=(
        "Look at the rewards and returns of that update: one huge target is the usual cause. Clip or normalise them.",
        "Lower the learning rate; Adam keeps the scale of the large gradient for hundreds of steps.",
        "Clip at a smaller norm, and clip the value loss.",
        "Go back to the checkpoint before the onset if the norm does not come down.",
    ),
    explains=AFTER_BAD_STEP,
    profiles={
        "default": Variant(
            None,
            (
                Need(NORM, CLIP_CALL),
                Need(OVER_CLIP, "call clip_grad_norm_ with the limit", optional=True),
                Need(_RETURN, "pass episode_returns to mon.step()", optional=True),
            ),
            (
                Threshold("times_usual", NORM, ">", 10.0, NORM_WORDS, clear=0.5, measure=Measure.TIMES),
                Threshold("times_critical", NORM, ">", 100.0, NORM_WORDS, clear=0.5, measure=Measure.TIMES),
                Threshold("z", NORM, ">", 4.0, NORM_WORDS, clear=0.5, measure=Measure.Z),
                Threshold("z_alone", NORM, ">", 6.0, NORM_WORDS, clear=0.5, measure=Measure.Z),
                Threshold("harmless", NORM, "<", 4.0, "Gradient norm over the clip limit", series=NORM_OVER_CLIP),
                Threshold("converged", _RETURN, ">", 0.5, "Whether the return stands at its best", series=AT_BEST),
                Threshold("over_clip", OVER_CLIP, ">", 10.0, _OVER, severity=Severity.INFO),
            ),
            (
                Vote(Severity.CRITICAL, 1, 1, Severity.CRITICAL),
                Vote(Severity.WARNING, 3, 5, Severity.WARNING),
                Vote(Severity.INFO, 3, 5, Severity.INFO),
            ),
            keep_firing=5,
            parts=(
                Part(Severity.CRITICAL, ("times_critical", "z_alone")),
                Part(Severity.WARNING, ("times_usual", "z"), unless=("harmless", "converged")),
                Part(Severity.INFO, ("over_clip",)),
            ),
            formula="warning: gradient norm > 10 x usual and z(log norm) > 4 in 3 of 5 updates, unless it is below 4 x the "
            "clip limit "
            "or the return stands at its best; critical: > 100 x usual and "
            "z > 6 in one; info: largest gradient norm of a tensor > 10 x clip limit in 3 of 5",
            warm_up=LEARNED + GUARD,
        ),
        "classic": Variant(
            check_fixed,
            (
                Need(
                    OVER_CLIP,
                    "call clip_grad_norm_ with the limit",
                    undefined="the clip limit is 0",
                ),
            ),
            (Threshold("over_clip", OVER_CLIP, ">", 10.0, _OVER, severity=Severity.WARNING, clear=0.5),),
            once(Severity.WARNING),
            keep_firing=3,
            formula="largest gradient norm of a tensor > 10 x clip limit",
        ),
    },
)
