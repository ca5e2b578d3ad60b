"""The run earns less than it should at least, by a floor the user gives, or shows no sign of learning."""

from __future__ import annotations

import math

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.reasons import UPDATES_TOTAL_CALL
from gradwatch_daemon.detect.series import AT_BEST
from gradwatch_daemon.detect.spec import Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_RETURN, _EVAL, _NORM = "episode.return.mean", "episode.eval_return.mean", "policy.entropy.norm"
_STEP = "pass episode_returns to mon.step()"

SPEC = Spec(
    kind="no_learning",
    stage=Stage.EPISODE,
    title="Worse than it must be, or not learning",
    meaning="Training or evaluation returns lie below the floor given for this task (what doing nothing, or a random policy, "
    "earns), or the policy is still uniform after a good part of the run.",
    source="the floor is the user's; a policy that is still uniform late in a run: stable-baselines3 #2240, seen as entropy "
    "near its "
    "maximum after a million steps",
    fails_when="Without a floor in the configuration (thresholds.no_learning.return and .evaluation) the first two parts "
    "never hold. "
    "A task with rare rewards is uniform for long and rightly so: that part is info.",
    tries=(
        "Check the wiring first: that actions reach the environment, and rewards belong to the step they are stored with.",
        "Compare with a known implementation on the same environment and seed.",
        "Look at what the advantages are: without spread there is nothing to learn from.",
        "Raise the learning rate, or shorten the horizon, if KL and entropy hardly move.",
    ),
    profiles={
        "default": Variant(
            None,
            (
                Need(_RETURN, _STEP, undefined="no episode ended in the update", void=True),
                Need(_EVAL, "pass eval_return to mon.step()", optional=True),
                Need(
                    _NORM,
                    "pass entropy to mon.ppo()",
                    optional=True,
                    without=f"whether the policy is still uniform is not known; for that part also {UPDATES_TOTAL_CALL}",
                ),
            ),
            (
                Threshold("return", _RETURN, "<", -math.inf, "Mean return", severity=Severity.WARNING),
                Threshold("evaluation", _EVAL, "<", -math.inf, "Evaluation return", severity=Severity.WARNING),
                Threshold("uniform", _NORM, ">", 0.98, "Entropy (share of ln(number of actions))"),
                Threshold("progress", "", ">", 0.3, "Share of the run that is over", measure=Measure.PROGRESS),
                Threshold("converged", _RETURN, ">", 0.5, "Whether the return stands at its best", series=AT_BEST),
            ),
            (Vote(Severity.WARNING, 5, 8, Severity.WARNING), Vote(Severity.INFO, 5, 8, Severity.INFO)),
            keep_firing=8,
            formula="warning: return below thresholds.no_learning.return, or evaluation return below .evaluation (none unless "
            "configured), in 5 of 8 updates; info: H / ln A > 0.98 after 30 % of the run, while the return does not stand at "
            "its best",
            parts=(
                Part(Severity.WARNING, ("return",)),
                Part(Severity.WARNING, ("evaluation",)),
                Part(Severity.INFO, ("uniform", "progress"), unless=("converged",)),
            ),
        ),
    },
)
