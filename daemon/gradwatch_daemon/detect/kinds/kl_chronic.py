"""The policy moves too far in every update, for many updates."""

from __future__ import annotations

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED, SUM_LIMIT
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, LOGP_CALL, Spec, Variant
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

_K3 = "policy.kl.k3"
_WORDS = "KL (k3)"

SPEC = Spec(
    kind="kl_chronic",
    stage=Stage.POLICY,
    title="KL chronically high",
    meaning="Every update moves the policy about twice as far as PPO is usually allowed to, and further than this run did. No "
    "single update is wrong, but the advantages are out of date before they are used up.",
    source="twice a target of 0.02 as the bound: RLlib and rsl_rl act at 2 x their target KL, stable-baselines3 stops at 1.5 "
    "x; "
    "cumulative sum: Page 1954",
    fails_when="A trainer with a larger target on purpose, or with very many action dimensions: set the limit to twice its "
    "target. "
    "A run whose KL was as high from the start on is its own usual and is left to kl_extreme.",
    tries=(
        "Lower the learning rate by 2 to 3 times.",
        "Stop an update early at a target KL of 0.01 to 0.02, or use fewer epochs.",
        "If a KL-adaptive rate is at its floor, the minibatches are too small or the advantages too large.",
    ),
    explains=AFTER_BAD_STEP,
    profiles={
        "default": Variant(
            None,
            (Need(_K3, LOGP_CALL),),
            (
                Threshold("k3", _K3, ">", 0.04, _WORDS, "nats", clear=0.5),
                Threshold("times_usual", _K3, ">", 2.0, _WORDS, clear=0.7, measure=Measure.TIMES),
                Threshold("sum", _K3, ">", SUM_LIMIT, _WORDS, clear=0.5, measure=Measure.UP),
            ),
            (Vote(Severity.WARNING, 6, 10, Severity.WARNING),),
            keep_firing=8,
            formula=f"k3 > max(0.04, 2 x usual) with a cumulative sum of its robust score > {SUM_LIMIT:g}, in 6 of 10 updates",
            warm_up=LEARNED + GUARD,
            parts=(Part(Severity.WARNING, ("k3", "times_usual", "sum")),),
        ),
    },
)
