"""The policy scored in the update is not the policy that acted in the rollout."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, LOGP_CALL, Spec, Variant, check_invariant, once
from gradwatch_daemon.records.rules import Need, Part, Threshold, Vote

_NEEDS = (
    Need(
        "policy.ratio.first_mb_dev",
        f"{LOGP_CALL} before the first optimizer step",
        undefined="with off_policy=True the ratio need not be 1",
    ),
)
_DEVIATION = Threshold(
    "deviation",
    "policy.ratio.first_mb_dev",
    ">",
    1e-3,
    "Ratio before the first optimizer step off 1 by",
    severity=Severity.CRITICAL,
    clear=0.5,
)

SPEC = Spec(
    kind="rollout_mismatch",
    stage=Stage.POLICY,
    title="Rollout and training disagree",
    meaning="Before the first optimizer step of an update nothing has changed since the rollout, so every ratio must be 1. "
    "It is not: the log-probabilities of the rollout and of the update come from different computations.",
    source="Huang et al. 2022, The 37 Implementation Details of PPO (the ratio is 1 on the first minibatch); trl #454, "
    "trlX #107, "
    "verl #2305, sb3-contrib #75",
    fails_when="Weights or rollouts in bf16, another inference engine (up to 3e-2 is then normal), dropout left on, or a lag "
    "that is intended: say off_policy=True.",
    tries=(
        "Check that old_logp was computed by the same network, in the same mode (eval or train), on the same observations.",
        "Check that observations are normalised with the same statistics in rollout and update.",
        "With a recurrent policy, check that the update starts from the hidden state of the rollout.",
        "With dropout or batch norm, freeze them in both passes.",
    ),
    explains=AFTER_BAD_STEP,
    profiles={
        "default": Variant(
            None,
            _NEEDS,
            (_DEVIATION,),
            (Vote(Severity.CRITICAL, 2, 3, Severity.CRITICAL),),
            keep_firing=3,
            parts=(Part(Severity.CRITICAL, ("deviation",)),),
            invariant=True,
            formula="max |r - 1| before the first optimizer step > 1e-3 in 2 of 3 updates",
        ),
        "classic": Variant(
            check_invariant,
            _NEEDS,
            (_DEVIATION,),
            once(Severity.CRITICAL),
            keep_firing=3,
            formula="max |r - 1| before the first optimizer step > 1e-3",
        ),
    },
)
