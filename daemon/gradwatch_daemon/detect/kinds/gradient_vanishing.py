"""Gradients have become so small that the update changes nothing."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.derived import RATE_LEAST
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, CLIP_CALL, Spec, Variant, check_fixed, once
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

NORM, TENSOR, LR = "grad.norm.mean", "grad.tensor_norm.min", "opt.lr"
SHARE, _SHARE = "grad.vanishing.share", "Share of parameter tensors whose gradient vanished"
NORM_WORDS = "Gradient norm (mean over the update, before clipping)"

_NEED = Need(TENSOR, CLIP_CALL)
_TINY = Threshold(
    "tensor",
    TENSOR,
    "<",
    1e-7,
    "Smallest gradient norm of a parameter tensor",
    severity=Severity.WARNING,
    clear=2.0,
)

SPEC = Spec(
    kind="gradient_vanishing",
    stage=Stage.GRAD,
    title="Gradients vanished",
    meaning="The loss no longer reaches the weights: optimizer steps are taken and change nothing.",
    source="1e-7 per tensor: as used in practice; the rest against the run's own norm; "
    "verl #2501 (ratio always 1: the model is not updating)",
    fails_when="Advantages that are all 0 give no gradient, and that is not the network's fault. A frozen or unused "
    "layer, or an "
    "embedding whose rows are not visited, has a tiny gradient for ever: alone that is info in `default`.",
    tries=(
        "Check that the loss depends on the parameters: a detach, a no_grad or an argmax on its way is the usual cause.",
        "Check the advantages: if all are 0, the reward carries no signal.",
        "Look for saturated activations (tanh, softmax); normalise the inputs or initialise smaller.",
        "With mixed precision, check that the loss is scaled: small gradients underflow in float16.",
    ),
    explains=AFTER_BAD_STEP,
    profiles={
        "default": Variant(
            None,
            (
                Need(NORM, CLIP_CALL),
                Need(TENSOR, CLIP_CALL, optional=True),
                Need(SHARE, CLIP_CALL, optional=True),
                Need(LR, "pass the optimizer to watch()", optional=True),
            ),
            (
                Threshold("share_of_usual", NORM, "<", 1e-3, NORM_WORDS, clear=2.0, measure=Measure.TIMES),
                # A learning rate that is not sent counts as not 0: what is small then is still said.
                Threshold("rate_over", LR, "<", RATE_LEAST, "Learning rate"),
                Threshold("share", SHARE, ">", 0.5, _SHARE, clear=0.8),
                Threshold("share_z", SHARE, ">", 4.0, _SHARE, clear=0.5, measure=Measure.Z),
                Threshold("tensor", TENSOR, "<", 1e-7, _TINY.quantity, severity=Severity.INFO, clear=2.0),
            ),
            (Vote(Severity.WARNING, 3, 5, Severity.WARNING), Vote(Severity.INFO, 3, 5, Severity.INFO)),
            keep_firing=3,
            parts=(
                Part(Severity.WARNING, ("share_of_usual",), unless=("rate_over",)),
                Part(Severity.WARNING, ("share", "share_z"), unless=("rate_over",)),
                Part(Severity.INFO, ("tensor",)),
            ),
            formula="warning: gradient norm < 0.001 x usual or more than half of the tensors vanished, which did not use to, "
            "in 3 of 5 updates while the learning rate is above 0; "
            "info: smallest "
            "gradient norm of a tensor < 1e-7 in 3 of 5",
            warm_up=LEARNED + GUARD,
        ),
        "classic": Variant(
            check_fixed,
            (_NEED,),
            (_TINY,),
            once(Severity.WARNING),
            keep_firing=3,
            formula="smallest gradient norm of a tensor < 1e-7",
        ),
    },
)
