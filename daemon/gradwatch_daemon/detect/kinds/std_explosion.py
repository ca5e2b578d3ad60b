"""The spread of the actions grows without end."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import FIRST, SUM_LIMIT
from gradwatch_daemon.detect.kinds.std_collapse import CALL
from gradwatch_daemon.detect.series import AT_BEST
from gradwatch_daemon.detect.spec import Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

STD, _RETURN = "policy.std.mean", "episode.return.mean"
_WORDS = "Mean standard deviation of the actions"

SPEC = Spec(
    kind="std_explosion",
    stage=Stage.POLICY,
    title="Spread of the actions explodes",
    meaning="The policy becomes more random the longer it trains: the entropy bonus outweighs what the actions earn, and "
    "nothing "
    "bounds the spread of a Gaussian.",
    source="entropy that rises to its bound, where there is one: verl #2738; three times the first spread is an "
    "estimate, twice is measured here; no healthy run came to 1.2 times",
    fails_when="Exploration that is raised on purpose. Actions that are clipped to small bounds, where a wide spread becomes "
    "bang-bang control and may even be right.",
    tries=(
        "Lower the entropy coefficient; for continuous actions 0 to 0.01 is common.",
        "Bound the logarithm of the spread, or squash the actions.",
        "Check the scale of the advantages: if they are tiny, the bonus is all there is.",
    ),
    explains=("performance_degradation", "value_collapse"),
    profiles={
        "default": Variant(
            None,
            (Need(STD, CALL), Need(_RETURN, "pass episode_returns to mon.step()", optional=True)),
            (
                Threshold("times_first", STD, ">", 2.0, _WORDS, clear=0.8, measure=Measure.FIRST),
                Threshold("sum", STD, ">", SUM_LIMIT, _WORDS, clear=0.5, measure=Measure.UP),
                Threshold("times_bound", STD, ">", 3.0, _WORDS, clear=0.8, measure=Measure.FIRST),
                Threshold("converged", _RETURN, ">", 0.5, "Whether the return stands at its best", series=AT_BEST),
            ),
            (Vote(Severity.WARNING, 3, 4, Severity.WARNING),),
            keep_firing=8,
            formula=f"std > 2 x where it began with a cumulative sum of its robust score > {SUM_LIMIT:g}, while the "
            "return does not stand at its best, or std > 3 x where it began, in 3 of 4 updates",
            warm_up=FIRST,
            parts=(
                Part(Severity.WARNING, ("times_bound",)),
                Part(Severity.WARNING, ("times_first", "sum"), unless=("converged",)),
            ),
        ),
    },
)
