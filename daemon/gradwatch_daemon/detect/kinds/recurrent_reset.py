"""A recurrent state goes on over the end of an episode."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, Spec, Variant, once
from gradwatch_daemon.records.rules import Need, Part, Threshold

_VIOLATIONS = "rnn.reset.violations"

SPEC = Spec(
    kind="recurrent_reset",
    stage=Stage.RNN,
    title="Recurrent state not reset",
    meaning="Where an episode begins, the hidden state still holds the one before. The policy remembers what never happened "
    "to it, "
    "and rollout and update disagree on what it knew.",
    source="true by definition of a reset to zero; sb3-contrib #75 and #78 on recurrent PPO",
    fails_when="A state that is reset to something else than 0 on purpose, such as a learned first state: do not pass reset "
    "then.",
    tries=(
        "Set the state to zero where the environment was reset, before the next step, in the rollout.",
        "Do the same inside the sequences of the update, with the same flags.",
        "Check whether the flags are of the step before or of this one: off by one looks exactly like this.",
    ),
    explains=("lstm_unhealthy", *AFTER_BAD_STEP),
    per=_VIOLATIONS,
    subject_words=" in the {}",
    profiles={
        "default": Variant(
            None,
            (Need(_VIOLATIONS, "pass reset to mon.recurrent()"),),
            (
                Threshold(
                    "count",
                    _VIOLATIONS,
                    ">",
                    0.0,
                    "Numbers of the state that should be 0 and are not",
                    severity=Severity.CRITICAL,
                ),
            ),
            once(Severity.CRITICAL),
            keep_firing=3,
            formula="a number of the hidden state that is not 0 where it should just have been reset",
            parts=(Part(Severity.CRITICAL, ("count",)),),
            invariant=True,
        ),
    },
)
