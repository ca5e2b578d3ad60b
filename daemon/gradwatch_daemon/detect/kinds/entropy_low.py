"""The policy explores little, or will soon."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.series import AT_BEST, ENTROPY_LEFT, ENTROPY_SLOPE
from gradwatch_daemon.detect.spec import Spec, Variant, check_fixed
from gradwatch_daemon.detect.trend import SLOPE_POINTS
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

NORM = "policy.entropy.norm"
NORM_WORDS = "Entropy (mean over the update, share of ln(number of actions))"
_RETURN = "episode.return.mean"
_LEFT = "Updates left until the entropy is at its floor"
_SLOPE = "Slope of the entropy per update"
NORM_NEED = Need(
    NORM,
    "pass entropy to mon.ppo()",
    undefined="it needs discrete actions with more than one choice; pass action_space to watch()",
)

SPEC = Spec(
    kind="entropy_low",
    stage=Stage.POLICY,
    title="Entropy low",
    meaning="The policy is close to deterministic, or falls there fast. Right when the task is solved, too early before.",
    source="streak of 3 and recovery at 1.5 times the limit: as used in practice; Cui et al. 2025, The Entropy Mechanism of "
    "Reinforcement Learning for Reasoning Language Models; slope: median of the slopes of all pairs",
    fails_when="A solved task, an annealed entropy coefficient, one legal action: the level alone is therefore info in "
    "`default`. Not defined for continuous actions.",
    tries=(
        "If the return is still rising well, do nothing: this is what learning looks like.",
        "Raise the entropy coefficient (0.01 is common), or stop annealing it.",
        "Lower the learning rate: entropy that falls within a few updates is a step too large.",
        "Check the reward scale: large returns drown the entropy bonus.",
    ),
    explains=("entropy_collapse", "update_stalled", "performance_degradation"),
    per=NORM,
    profiles={
        "default": Variant(
            None,
            (NORM_NEED, Need(_RETURN, "pass episode_returns to mon.step()", optional=True)),
            (
                Threshold("norm", NORM, "<", 0.3, NORM_WORDS, severity=Severity.INFO, clear=1.5),
                Threshold("updates_left", NORM, "<", 10.0, _LEFT, severity=Severity.WARNING, clear=2.0, series=ENTROPY_LEFT),
                Threshold("falling_norm", NORM, "<", 0.4, NORM_WORDS),
                Threshold("converged", _RETURN, ">", 0.5, "Whether the return stands at its best", series=AT_BEST),
                Threshold("z", NORM, "<", -4.0, _SLOPE, clear=0.5, measure=Measure.Z, series=ENTROPY_SLOPE),
            ),
            (Vote(Severity.WARNING, 2, 3, Severity.WARNING), Vote(Severity.INFO, 3, 3, Severity.INFO)),
            keep_firing=8,
            parts=(
                Part(Severity.INFO, ("norm",)),
                Part(Severity.WARNING, ("updates_left", "falling_norm", "z"), unless=("converged",)),
            ),
            formula="info: H / ln A < 0.3 in 3 of 3 updates; warning: (H - 0.05) / fall per update < 10 and H / ln A < 0.4 and "
            "z(slope) < -4 in 2 of 3, while the return does not stand at its best",
            warm_up=LEARNED + GUARD + SLOPE_POINTS,
        ),
        "classic": Variant(
            check_fixed,
            (NORM_NEED,),
            (Threshold("norm", NORM, "<", 0.3, NORM_WORDS, severity=Severity.WARNING, clear=1.5),),
            (Vote(Severity.WARNING, 3, 3, Severity.WARNING),),
            keep_firing=3,
            formula="H / ln A < 0.3 in 3 of 3 updates, over at 1.5 times that",
        ),
    },
)
