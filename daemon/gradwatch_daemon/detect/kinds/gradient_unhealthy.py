"""Too many parameter tensors have gradients that vanish or explode."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.spec import CLIP_CALL, Spec, Variant, check_fixed, once
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

HEALTH = "grad.health"
HEALTH_WORDS = "Gradient health (1 is all tensors well, 0 none)"


_NEED = Need(HEALTH, CLIP_CALL, undefined="no parameter has a gradient")

SPEC = Spec(
    kind="gradient_unhealthy",
    stage=Stage.GRAD,
    title="Gradients unhealthy",
    meaning="Part of the network learns far too fast or not at all, whatever the norm of the whole says.",
    source="share of tensors below 1e-7 and above 10 times the clip limit, as used in practice; layer-wise norms as in "
    "SageMaker "
    "Debugger's VanishingGradient and ExplodingTensor rules",
    fails_when="Frozen or unused parameters count as vanishing. With a small clip limit on a large network every "
    "tensor counts as "
    "exploding for ever; alone that is info in `default`.",
    tries=(
        "Raise the level to debug and look at the table of layers for the tensors that vanish or explode.",
        "Give parts of the network that are frozen requires_grad=False.",
        "Raise the clip limit if everything is above ten times it: the learning rate is then what really bounds the step.",
    ),
    explains=("gradient_drift",),
    profiles={
        "default": Variant(
            None,
            (_NEED,),
            (
                Threshold("health", HEALTH, "<", 0.5, HEALTH_WORDS, severity=Severity.WARNING, clear=1.2),
                Threshold("share_of_usual", HEALTH, "<", 0.7, HEALTH_WORDS, measure=Measure.TIMES),
            ),
            (Vote(Severity.WARNING, 3, 5, Severity.WARNING), Vote(Severity.INFO, 3, 5, Severity.INFO)),
            keep_firing=5,
            parts=(Part(Severity.WARNING, ("health", "share_of_usual")), Part(Severity.INFO, ("health",))),
            formula="warning: health < 0.5 and < 0.7 x usual in 3 of 5 updates; info: health < 0.5 in 3 of 5",
            warm_up=LEARNED + GUARD,
        ),
        "classic": Variant(
            check_fixed,
            (_NEED,),
            (Threshold("health", HEALTH, "<", 0.5, HEALTH_WORDS, severity=Severity.WARNING, clear=1.2),),
            once(Severity.WARNING),
            keep_firing=3,
            formula="1 - 0.5 x share vanishing - 0.8 x share exploding < 0.5",
        ),
    },
)
