"""The critic says the same of every state."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.series import AT_BEST
from gradwatch_daemon.detect.spec import Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_SPREAD, _TARGET, _RETURN = "value.spread", "value.target.std", "episode.return.mean"
_CALL = "pass values and returns to mon.rollout()"
_WORDS = "Spread of the values over that of the returns"

SPEC = Spec(
    kind="constant_critic",
    stage=Stage.VALUE,
    title="Critic is constant",
    meaning="The values hardly differ between states although the returns do, so the critic has nothing to say, and every "
    "advantage is the return itself.",
    source="the standard deviation of the values as a sign of a dead critic: as used in practice, made free of scale here; "
    "stable-baselines3 #2240 (explained variance near 0 and a huge value loss)",
    fails_when="Returns that truly do not depend on the state, or a discount near 0. A critic that has not learned yet is "
    "constant too: without a better past of its own that is info.",
    tries=(
        "Check that the observations reach the critic, and are normalised: saturated units say the same of everything.",
        "Check that the value loss reaches the critic's parameters, and its coefficient.",
        "Normalise returns: a critic that has to learn a huge offset first stays constant for long.",
    ),
    explains=("value_collapse", "performance_degradation"),
    profiles={
        "default": Variant(
            None,
            (
                Need(_SPREAD, _CALL, undefined="all returns of the update were equal", void=True),
                Need(_TARGET, _CALL),
                Need(_RETURN, "pass episode_returns to mon.step()", optional=True),
            ),
            (
                Threshold("spread", _SPREAD, "<", 0.05, _WORDS, clear=2.0, severity=Severity.INFO),
                Threshold("share_of_usual", _SPREAD, "<", 0.01, _WORDS, clear=2.0, measure=Measure.TIMES),
                Threshold("returns", _TARGET, ">", 0.5, "Spread of the returns", measure=Measure.TIMES),
                Threshold("converged", _RETURN, ">", 0.5, "Whether the return stands at its best", series=AT_BEST),
            ),
            (Vote(Severity.WARNING, 5, 8, Severity.WARNING), Vote(Severity.INFO, 5, 8, Severity.INFO)),
            keep_firing=5,
            formula="std(V) / std(return) < 0.05 in 5 of 8 updates: info; warning where it is < 0.01 x usual too, the returns "
            "vary "
            "at least half as much as usual, and the return does not stand at its best",
            warm_up=LEARNED + GUARD,
            parts=(
                Part(Severity.INFO, ("spread",)),
                Part(Severity.WARNING, ("spread", "share_of_usual", "returns"), unless=("converged",)),
            ),
        ),
    },
)
