"""The critic predicts values that no return of this run comes near."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_NMSE = "value.nmse"
_ENVELOPE, _ERROR = "value.envelope", "value.error.rms"
_CALL = "pass values and returns to mon.rollout()"
_WORDS, _RMS = "Largest value over the largest return (absolute)", "Error of the values (root mean square)"

SPEC = Spec(
    kind="critic_divergence",
    stage=Stage.VALUE,
    title="Critic diverges",
    meaning="The critic's values have left the range of the returns, or its error has grown many times over. Through "
    "bootstrapping such values feed themselves, and the policy follows advantages that mean nothing.",
    source="value losses that grow by orders of magnitude and then crash the run: IsaacLab #1999, unitree_rl_lab #13; the "
    "bound of 3 returns is measured here on healthy runs",
    fails_when="A critic that was all but perfect and now errs by less than a third of the returns' spread is not "
    "reported. A change of the reward scale by five or more looks like it until the critic has followed. An "
    "error that was as large from the start on is its own usual.",
    tries=(
        "Look at the rewards of that update: a spike in one term is the usual cause. Clip or normalise them.",
        "Go back to the checkpoint before the onset; a critic this far off takes the policy along.",
        "Lower the critic's learning rate, clip its gradient, use a Huber loss.",
        "Check that truncated episodes bootstrap from the right observation and terminated ones from 0.",
    ),
    explains=AFTER_BAD_STEP,
    profiles={
        "default": Variant(
            None,
            (
                Need(_ENVELOPE, _CALL, undefined="all returns are 0", void=True),
                Need(_ERROR, _CALL),
                Need(_NMSE, _CALL, undefined="all returns of the update were equal", void=True),
            ),
            (
                Threshold("times_usual", _ERROR, ">", 5.0, _RMS, clear=0.5, measure=Measure.TIMES),
                Threshold("z", _ERROR, ">", 6.0, _RMS, clear=0.5, measure=Measure.Z),
                Threshold("times_critical", _ERROR, ">", 30.0, _RMS, clear=0.5, measure=Measure.TIMES),
                Threshold("matters", _NMSE, ">", 0.1, "Squared error over the variance of the returns"),
                Threshold("grown", _ERROR, ">", 1.5, _RMS, clear=0.7, measure=Measure.TIMES),
                Threshold("envelope", _ENVELOPE, ">", 3.0, _WORDS, clear=0.7),
                Threshold("envelope_usual", _ENVELOPE, ">", 3.0, _WORDS, clear=0.7, measure=Measure.TIMES),
            ),
            (Vote(Severity.CRITICAL, 2, 3, Severity.CRITICAL), Vote(Severity.WARNING, 2, 3, Severity.WARNING)),
            keep_firing=8,
            formula="warning, in 2 of 3 updates: error of the values > 5 x usual, z(log error) > 6 and squared error > "
            "0.1 x var(return), or max |V| / max |return| > max(3, 3 x usual) with an error > 1.5 x usual; "
            "critical: error > 30 x usual with the same in 2 of 3",
            warm_up=LEARNED + GUARD,
            parts=(
                Part(Severity.WARNING, ("times_usual", "z", "matters")),
                Part(Severity.WARNING, ("envelope", "envelope_usual", "grown")),
                Part(Severity.CRITICAL, ("times_critical", "z", "matters")),
            ),
        ),
    },
)
