"""What the policy sees is on another scale than it learned with."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

STD, CLIPPED, CONSTANT = "obs.input.std", "obs.input.saturation", "obs.constant_share"
_CLIPPED, _CONSTANT = "Share of the observations at their bound", "Share of features with one value in the whole rollout"
_CALL = "pass observations to mon.rollout()"
_WORDS = "Spread of the observations"

SPEC = Spec(
    kind="observation_unhealthy",
    stage=Stage.OBS,
    title="Observations changed",
    meaning="The observations are many times as large, or as small, as they were: a lost normaliser, a sensor, another "
    "environment. The network was never trained on these numbers.",
    source="measured here: the spread over all elements of healthy runs stays within a factor of 3 of its own last 64 updates",
    fails_when="A single feature of many that breaks hardly moves the spread of all. A policy that reaches a new part of the "
    "world slowly moves its own usual along.",
    tries=(
        "Check that the normaliser's statistics were loaded with the checkpoint, and are not updated by evaluation.",
        "Look for a division by a variance that went to 0.",
        "If the environment changed on purpose, normalise its observations, or expect to learn anew.",
    ),
    explains=("representation_collapse", "gradient_vanishing", "lstm_unhealthy", *AFTER_BAD_STEP),
    profiles={
        "default": Variant(
            None,
            (
                Need(STD, _CALL),
                Need(CLIPPED, "pass obs_clip to mon.rollout()", optional=True),
                Need(CONSTANT, _CALL, optional=True),
            ),
            (
                Threshold("times_usual", STD, ">", 5.0, _WORDS, clear=0.5, measure=Measure.TIMES),
                Threshold("z", STD, ">", 6.0, _WORDS, clear=0.5, measure=Measure.Z),
                Threshold("share_of_usual", STD, "<", 0.2, _WORDS, clear=2.0, measure=Measure.TIMES),
                Threshold("z_down", STD, "<", -6.0, _WORDS, clear=0.5, measure=Measure.Z),
                Threshold("clipped", CLIPPED, ">", 0.05, _CLIPPED, clear=0.5),
                Threshold("clipped_z", CLIPPED, ">", 6.0, _CLIPPED, clear=0.5, measure=Measure.Z),
                Threshold("constant", CONSTANT, ">", 0.5, _CONSTANT, clear=0.5),
                Threshold("constant_z", CONSTANT, ">", 6.0, _CONSTANT, clear=0.5, measure=Measure.Z),
            ),
            (Vote(Severity.WARNING, 2, 3, Severity.WARNING),),
            keep_firing=8,
            formula="spread of the observations > 5 x or < 0.2 x usual and |z(log spread)| > 6, or more than 5 % at their "
            "bound, or "
            "more than half of the features constant, either with z > 6, in 2 of 3 updates",
            warm_up=LEARNED + GUARD,
            parts=(
                Part(Severity.WARNING, ("times_usual", "z")),
                Part(Severity.WARNING, ("share_of_usual", "z_down")),
                Part(Severity.WARNING, ("clipped", "clipped_z")),
                Part(Severity.WARNING, ("constant", "constant_z")),
            ),
        ),
    },
)
