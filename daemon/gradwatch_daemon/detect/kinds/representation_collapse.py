"""Most units of a layer answer the same to everything."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, Spec, Variant
from gradwatch_daemon.records.rules import Need, Part, Threshold, Vote

DORMANT = "param.features.dormant"
_WORDS = "Share of dormant units"

SPEC = Spec(
    kind="representation_collapse",
    stage=Stage.PARAM,
    title="Representation collapsed",
    meaning="Nearly all units of a layer are silent or constant on the probe batch. What the layer knew is lost, and no "
    "gradient "
    "reaches what lies before it.",
    source="share of units whose mean activation is below 0.025 of the layer's: Sokar et al. 2023 (dormant neurons), and "
    "Moalla et "
    "al. 2024, where the collapse of the representation comes before that of PPO's policy; the limits are estimates",
    fails_when="ReLU networks are 30 to 50 % sparse from the start, and wide layers on small tasks more: hence 90 %. A layer "
    "is "
    "probed every 32nd update only, so a collapse is seen up to 64 updates late, unless gradients show it first.",
    tries=(
        "Go back to a checkpoint before the collapse and lower the learning rate; dead units rarely come back.",
        "Use leaky activations or layer normalisation, and fewer epochs over a rollout.",
        "Check the scale of the observations: numbers that are too large switch units off for good.",
    ),
    explains=("gradient_vanishing", *AFTER_BAD_STEP),
    per=DORMANT,
    subject_words=" in layer {}",
    profiles={
        "default": Variant(
            None,
            (Need(DORMANT, "pass probe to watch()"),),
            (
                Threshold("dormant", DORMANT, ">", 0.9, _WORDS, severity=Severity.WARNING, clear=0.8),
                Threshold("dormant_info", DORMANT, ">", 0.7, _WORDS, severity=Severity.INFO, clear=0.8),
            ),
            (Vote(Severity.WARNING, 2, 70, Severity.WARNING), Vote(Severity.INFO, 2, 70, Severity.INFO)),
            keep_firing=2,
            formula="share of dormant units > 0.9 in two probes within 70 updates: warning; > 0.7: info",
            parts=(Part(Severity.WARNING, ("dormant",)), Part(Severity.INFO, ("dormant_info",))),
        ),
    },
)
