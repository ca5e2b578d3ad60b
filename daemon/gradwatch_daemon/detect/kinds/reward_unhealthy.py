"""The reward is on another scale than before, or has changed its sign."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

MEAN, ABSMAX = "reward.step.mean", "reward.step.absmax"
_CALL = "pass rewards to mon.rollout()"
_MEAN, _LARGEST = "Mean reward per step", "Largest reward (absolute)"

SPEC = Spec(
    kind="reward_unhealthy",
    stage=Stage.REWARD,
    title="Rewards changed",
    meaning="The mean reward per step has turned its sign at once, or the largest reward is many times what it was. What the "
    "policy is asked for has changed, or is broken.",
    source="reward terms that spike before the critic diverges: IsaacLab #3261; the limits are measured here on healthy runs",
    fails_when="A policy that slowly learns to turn losses into gains moves its own usual along. A first success in a task "
    "with "
    "rare rewards can look like it, once.",
    tries=(
        "Look at the terms of the reward one by one; a penalty that exploded, or a sign, is the usual cause.",
        "Check that the reward normaliser was loaded with the checkpoint.",
        "Clip rewards; if the change was meant, let the critic follow before judging.",
    ),
    explains=AFTER_BAD_STEP,
    profiles={
        "default": Variant(
            None,
            (Need(MEAN, _CALL), Need(ABSMAX, _CALL)),
            (
                Threshold("turned", MEAN, "<", -0.5, _MEAN, clear=0.5, measure=Measure.TIMES),
                Threshold("turned_up", MEAN, ">", 8.0, _MEAN, clear=0.5, measure=Measure.Z),
                Threshold("turned_down", MEAN, "<", -8.0, _MEAN, clear=0.5, measure=Measure.Z),
                Threshold("moved", MEAN, ">", 3.0, _MEAN, clear=0.5, measure=Measure.TIMES),
                Threshold("times_usual", ABSMAX, ">", 20.0, _LARGEST, clear=0.5, measure=Measure.TIMES),
                Threshold("z", ABSMAX, ">", 8.0, _LARGEST, clear=0.5, measure=Measure.Z),
            ),
            (Vote(Severity.WARNING, 3, 4, Severity.WARNING),),
            keep_firing=8,
            formula="in 3 of 4 updates: mean reward per step beyond half of its usual size with the other sign and |z| > 8, or "
            "largest reward > 20 x usual and z(log) > 8, with a mean > 3 x usual or turned",
            warm_up=LEARNED + GUARD,
            parts=(
                Part(Severity.WARNING, ("turned", "turned_up")),
                Part(Severity.WARNING, ("turned", "turned_down")),
                Part(Severity.WARNING, ("times_usual", "z", "moved")),
                Part(Severity.WARNING, ("times_usual", "z", "turned")),
            ),
        ),
    },
)
