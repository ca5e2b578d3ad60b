"""The policy forgets what it had learned to choose, or its spread grows without end."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.kinds.entropy_low import NORM, NORM_NEED, NORM_WORDS
from gradwatch_daemon.detect.series import AT_BEST
from gradwatch_daemon.detect.spec import Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_RETURN = "episode.return.mean"

SPEC = Spec(
    kind="entropy_explosion",
    stage=Stage.POLICY,
    title="Entropy exploded",
    meaning="The policy had made up its mind and now chooses almost at random again.",
    source="entropy that rises to its bound: verl #2738; the limits are measured here on healthy runs, whose entropy falls or "
    "wanders",
    fails_when="Exploration that is raised on purpose, or a maximum-entropy objective. A policy that was random from the "
    "start on "
    "has nothing to forget (no_learning). For continuous actions see std_explosion.",
    tries=(
        "Lower the entropy coefficient; normalised advantages against a large bonus lose.",
        "Look for a step that threw the policy away: KL, ratio and gradients at the onset.",
        "Look for dead units: a network that answers the same to every observation is near uniform.",
    ),
    explains=("constant_critic", "performance_degradation"),
    per=NORM,
    profiles={
        "default": Variant(
            None,
            (NORM_NEED, Need(_RETURN, "pass episode_returns to mon.step()", optional=True)),
            (
                Threshold("norm", NORM, ">", 0.9, NORM_WORDS, clear=0.9),
                Threshold("times_usual", NORM, ">", 1.4, NORM_WORDS, clear=0.9, measure=Measure.TIMES),
                Threshold("z", NORM, ">", 5.0, NORM_WORDS, clear=0.5, measure=Measure.Z),
                Threshold("converged", _RETURN, ">", 0.5, "Whether the return stands at its best", series=AT_BEST),
            ),
            (Vote(Severity.WARNING, 3, 4, Severity.WARNING),),
            keep_firing=8,
            formula="H / ln A > 0.9, > 1.4 x usual and z > 5 in 3 of 4 updates, while the return does not stand at its best",
            warm_up=LEARNED + GUARD,
            parts=(Part(Severity.WARNING, ("norm", "times_usual", "z"), unless=("converged",)),),
        ),
    },
)
