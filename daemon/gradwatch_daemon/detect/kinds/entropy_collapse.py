"""The policy has become deterministic."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.kinds.entropy_low import NORM, NORM_NEED, NORM_WORDS
from gradwatch_daemon.detect.series import AT_BEST, RETURN_STILL
from gradwatch_daemon.detect.spec import Spec, Variant, check_fixed
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_RETURN = "episode.return.mean"
_RETURN_NEED = Need(
    _RETURN, "pass episode_returns to mon.step()", optional=True, without="cannot tell a solved task apart in this update"
)


SPEC = Spec(
    kind="entropy_collapse",
    stage=Stage.POLICY,
    title="Entropy collapsed",
    meaning="The policy takes one action almost surely in almost every state, so it meets nothing new and cannot recover.",
    source="streak of 3 and recovery at 1.5 times the limit: as used in practice; Cui et al. 2025, The Entropy Mechanism of "
    "Reinforcement Learning for Reasoning Language Models; verl #5953, ray #5133",
    fails_when="A policy that collapses while its return stands at the best it ever had looks converged and is info, "
    "unless it fell from a usual entropy of more than 0.35 long after the return had stopped rising. Step "
    "sizes adapted to the KL swing the entropy as far, and look like that. Without episode returns a solved "
    "task looks collapsed. Not defined for continuous actions.",
    tries=(
        "Go back to a checkpoint before the fall and raise the entropy coefficient.",
        "Lower the learning rate.",
        "Check that rewards and advantages are not all of one sign or dominated by one episode.",
        "If the task is solved, stop here.",
    ),
    explains=("entropy_low", "update_stalled", "performance_degradation"),
    per=NORM,
    profiles={
        "default": Variant(
            None,
            (NORM_NEED, _RETURN_NEED),
            (
                Threshold("norm", NORM, "<", 0.05, NORM_WORDS, severity=Severity.CRITICAL, clear=1.5),
                Threshold("converged", _RETURN, ">", 0.5, "Whether the return stands at its best", series=AT_BEST),
                Threshold("fallen_norm", NORM, "<", 0.3, NORM_WORDS, severity=Severity.WARNING, clear=1.5),
                Threshold("times_usual", NORM, "<", 0.4, NORM_WORDS, clear=1.5, measure=Measure.TIMES),
                Threshold("usual", NORM, ">", 0.35, "Usual entropy", measure=Measure.USUAL),
                Threshold("still", _RETURN, ">", 32.0, "Updates since the return last rose", series=RETURN_STILL),
            ),
            (
                Vote(Severity.CRITICAL, 3, 3, Severity.CRITICAL),
                Vote(Severity.WARNING, 8, 10, Severity.WARNING),
                Vote(Severity.INFO, 3, 3, Severity.INFO),
            ),
            keep_firing=8,
            parts=(
                Part(Severity.CRITICAL, ("norm",), unless=("converged",)),
                Part(Severity.WARNING, ("fallen_norm", "times_usual", "usual", "still")),
                Part(Severity.INFO, ("norm",)),
            ),
            formula="H / ln A < 0.05 in 3 of 3 updates; info while the return is within 10 % of its range from the run's best; "
            "warning: H / ln A < 0.3 and < 0.4 x its usual, which is > 0.35, and no new best return for 32 updates, in 8 of 10",
        ),
        "classic": Variant(
            check_fixed,
            (NORM_NEED,),
            (Threshold("norm", NORM, "<", 0.1, NORM_WORDS, severity=Severity.CRITICAL, clear=1.5),),
            (Vote(Severity.CRITICAL, 3, 3, Severity.CRITICAL),),
            keep_firing=3,
            formula="H / ln A < 0.1 in 3 of 3 updates, over at 1.5 times that",
        ),
    },
)
