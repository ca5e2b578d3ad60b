"""The advantages hold no signal: next to no spread, or all of it in a sample."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.series import AT_BEST
from gradwatch_daemon.detect.spec import Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_STD, _KURTOSIS = "adv.raw.std", "adv.used.kurtosis"
_REWARD, _RETURN = "reward.step.absmax", "episode.return.mean"

SPEC = Spec(
    kind="advantage_degenerate",
    stage=Stage.ADV,
    title="Advantages degenerate",
    meaning="The advantages hardly vary any more. Normalising them blows their noise up to full size, and the policy follows "
    "it.",
    source="a floor under the spread of the advantages: as used in practice, made free of scale here; trl #3452 (a spread of 0 "
    "in every group, so no gradient)",
    fails_when="A task that is solved, or a reward that was not met yet: the first is told by the return, the second is the "
    "run's "
    "own usual.",
    tries=(
        "Check the rewards: a constant reward gives constant advantages.",
        "Do not divide by a spread this small: put a floor under it, or skip normalisation.",
        "Use more environments or longer rollouts, so that more episodes end in each.",
    ),
    explains=("ratio_explosion", "kl_spike", "performance_degradation"),
    profiles={
        "default": Variant(
            None,
            (
                Need(_STD, "pass advantages to mon.rollout()"),
                Need(_KURTOSIS, "pass advantages to mon.ppo()", optional=True),
                Need(_REWARD, "pass rewards to mon.rollout()", optional=True),
                Need(_RETURN, "pass episode_returns to mon.step()", optional=True),
            ),
            (
                Threshold("share_of_usual", _STD, "<", 1e-3, "Spread of the advantages", clear=3.0, measure=Measure.TIMES),
                Threshold(
                    "kurtosis",
                    _KURTOSIS,
                    ">",
                    100.0,
                    "Fourth moment of the advantages (3 is Gaussian)",
                    clear=0.5,
                    severity=Severity.INFO,
                ),
                Threshold(
                    "kurtosis_usual", _KURTOSIS, ">", 5.0, "Fourth moment of the advantages", clear=0.5, measure=Measure.TIMES
                ),
                Threshold("no_reward", _REWARD, "<", 1e-12, "Largest reward (absolute)"),
                Threshold("converged", _RETURN, ">", 0.5, "Whether the return stands at its best", series=AT_BEST),
            ),
            (Vote(Severity.WARNING, 5, 8, Severity.WARNING), Vote(Severity.INFO, 5, 8, Severity.INFO)),
            keep_firing=5,
            formula="warning: spread of the advantages < 0.001 x usual in 5 of 8 updates while the return does not stand at "
            "its "
            "best; info: fourth moment > 100 and > 5 x usual in 5 of 8",
            warm_up=LEARNED + GUARD,
            parts=(
                Part(Severity.WARNING, ("share_of_usual",), unless=("converged", "no_reward")),
                Part(Severity.INFO, ("kurtosis", "kurtosis_usual")),
            ),
        ),
    },
)
