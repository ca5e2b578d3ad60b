"""The spread of the actions is about to be nothing: before the policy crashes on it."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.series import AT_BEST, STD_LEFT
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, Spec, Variant
from gradwatch_daemon.detect.trend import SLOPE_POINTS
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

STD, _RETURN = "policy.std.min", "episode.return.mean"
CALL = "pass std to mon.ppo()"
_WORDS = "Smallest standard deviation of an action"
_LEFT = "Updates left until the smallest standard deviation is nothing"

SPEC = Spec(
    kind="std_collapse",
    stage=Stage.POLICY,
    title="Spread of the actions collapses",
    meaning="At its present rate the smallest standard deviation of an action reaches nothing within ten updates. "
    "Log-probabilities "
    "then grow without bound, and a spread kept as a plain parameter turns negative and ends the run.",
    source="runs that crash on a negative standard deviation after its parameter passed 0: rsl_rl #33, mjlab #765",
    fails_when="A spread that is annealed on purpose, to less than a fiftieth of where it began, while the return is not at "
    "its "
    "best. A spread that depends on the state is judged by its smallest value.",
    tries=(
        "Keep the logarithm of the spread as the parameter, or put it through a softplus with a floor.",
        "Give the spread its own, smaller learning rate, and raise the entropy coefficient.",
        "Go back to a checkpoint before the fall.",
    ),
    explains=AFTER_BAD_STEP,
    profiles={
        "default": Variant(
            None,
            (Need(STD, CALL), Need(_RETURN, "pass episode_returns to mon.step()", optional=True)),
            (
                Threshold("times_first", STD, "<", 0.02, _WORDS, clear=1.5, measure=Measure.FIRST),
                Threshold("least", STD, "<", 1e-4, _WORDS, severity=Severity.CRITICAL, clear=2.0),
                Threshold("updates_left", STD, "<", 10.0, _LEFT, clear=2.0, series=STD_LEFT),
                Threshold("left_soon", STD, "<", 25.0, _LEFT, clear=2.0, series=STD_LEFT),
                Threshold("times_usual", STD, "<", 0.7, _WORDS, clear=1.2, measure=Measure.TIMES),
                Threshold("fallen", STD, "<", 0.3, _WORDS, measure=Measure.FIRST),
                Threshold("converged", _RETURN, ">", 0.5, "Whether the return stands at its best", series=AT_BEST),
            ),
            (Vote(Severity.CRITICAL, 1, 1, Severity.CRITICAL), Vote(Severity.WARNING, 3, 4, Severity.WARNING)),
            keep_firing=8,
            formula="warning, in 3 of 4 updates: std / fall per update < 10 and std < 0.3 x where it began, or < 25 and "
            "std < 0.7 x usual, or, while the return does not stand at its best, std < 0.02 x where it began; "
            "critical: std < 0.0001",
            warm_up=SLOPE_POINTS,
            parts=(
                Part(Severity.CRITICAL, ("least",)),
                Part(Severity.WARNING, ("updates_left", "fallen")),
                Part(Severity.WARNING, ("left_soon", "times_usual")),
                Part(Severity.WARNING, ("times_first",), unless=("converged",)),
            ),
        ),
    },
)
