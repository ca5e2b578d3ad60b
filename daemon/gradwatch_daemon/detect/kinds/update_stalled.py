"""Optimizer steps are taken and the policy stays what it was."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.series import AT_BEST, KL_OF_RATE
from gradwatch_daemon.detect.spec import LOGP_CALL, Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_K3, _RATIO, _RATE, _ADV = "policy.kl.k3", "policy.ratio.max", "opt.lr", "adv.raw.std"
_RETURN = "episode.return.mean"

SPEC = Spec(
    kind="update_stalled",
    stage=Stage.OPT,
    title="Updates change nothing",
    meaning="Minibatches are computed and steps are taken, but the policy at the end of an update is the one that began it, "
    "although it used to move at this learning rate and the advantages still say where to.",
    source="measured here: KL grows with the square of the learning rate, so KL over its square says whether updates still "
    "act, "
    "whatever the schedule; verl #2501 (ratio always 1: the model is not updating)",
    fails_when="A trainer with one step per rollout has a ratio of 1 always, and nothing to compare with: a run that began "
    "with ratios of 1 is not judged, also where it takes more steps later. A trainer that stops at a target KL in the first "
    "epoch, or freezes the policy on purpose, looks like it.",
    tries=(
        "Check that the optimizer holds the parameters of this network (a new network, an old optimizer is the usual cause).",
        "Check for saturated units: observations on another scale than before leave no gradient.",
        "Look at skipped steps and at the loss scale of mixed precision.",
    ),
    explains=("performance_degradation",),
    profiles={
        "default": Variant(
            None,
            (
                Need(_K3, LOGP_CALL),
                Need(_RATIO, LOGP_CALL),
                Need(_RATE, "pass the optimizer to watch()"),
                Need(_ADV, "pass advantages to mon.rollout()", optional=True),
                Need(_RETURN, "pass episode_returns to mon.step()", optional=True),
            ),
            (
                Threshold(
                    "share_of_usual",
                    _K3,
                    "<",
                    1e-3,
                    "KL over the square of the learning rate",
                    clear=3.0,
                    measure=Measure.TIMES,
                    series=KL_OF_RATE,
                ),
                Threshold("ratio", _RATIO, "<", 1.001, "Largest ratio of new to old probability", clear=1.001),
                Threshold("moved", _RATIO, "<", 0.999, "Largest ratio over that of the first updates", measure=Measure.FIRST),
                Threshold("no_signal", _ADV, "<", 0.1, "Spread of the advantages", measure=Measure.TIMES),
                Threshold("converged", _RETURN, ">", 0.5, "Whether the return stands at its best", series=AT_BEST),
            ),
            (Vote(Severity.WARNING, 5, 6, Severity.WARNING),),
            keep_firing=5,
            formula="k3 / lr^2 < 0.001 x usual, max r < 1.001 and max r < 0.999 x what it was first in 5 of 6 updates, while "
            "the advantages vary at least a tenth of what they usually do and the return does not stand at its best",
            warm_up=LEARNED + GUARD,
            parts=(Part(Severity.WARNING, ("share_of_usual", "ratio", "moved"), unless=("no_signal", "converged")),),
        ),
    },
)
