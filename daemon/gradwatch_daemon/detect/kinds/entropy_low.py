"""The policy explores little, or will soon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.baseline import GUARD, LEARNED, Scale
from gradwatch_daemon.detect.spec import Spec, Variant, check_fixed
from gradwatch_daemon.detect.trend import SLOPE_POINTS
from gradwatch_daemon.detect.view import Finding
from gradwatch_daemon.rules import Need, Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import Verdicts
    from gradwatch_daemon.rules import Rule

NORM = "policy.entropy.norm"
NORM_WORDS = "Entropy (mean over the update, share of ln(number of actions))"
NORM_NEED = Need(
    NORM,
    "pass entropy to mon.ppo()",
    undefined="it needs discrete actions with more than one choice; pass action_space to watch()",
)

_INFO, _WARNING = Severity.INFO.rank, Severity.WARNING.rank
SLOPE_SCALE = Scale(log=False, mad_least=0.002)
SLOPE_SERIES = "policy.entropy.norm slope"
"""Name of the baseline of slopes; no signal has a blank in its name."""

ENDLESS = float("inf")
FALL_LEAST = 1e-6
"""Slower falls than this per update count as none: the time to the floor is then endless."""


def check(view: View, rule: Rule) -> Verdicts:
    """Level is info (a solved task ends there); falling far faster than usual towards the floor, soon there, is a warning."""
    math = view.math
    norm, low = view.input(NORM), rule.threshold("norm")
    values, slopes = norm.values, view.slopes(NORM)
    scores = view.scores_of((SLOPE_SERIES, view.subject), SLOPE_SCALE, slopes, math.finite(slopes))
    falling = slopes < -FALL_LEAST
    height = math.larger(values - rule.threshold("floor").limit, 0.0)
    left = math.where(falling, math.divide(height, -slopes), ENDLESS)
    soon = rule.threshold("updates_left")
    fast = norm.readable & falling & (left < soon.limit) & (scores.z < rule.threshold("z").limit)
    fast = fast & rule.threshold("falling_norm").exceeded(norm.values)
    below = norm.readable & low.exceeded(norm.values)
    note = "" if scores.learned >= LEARNED else f"its rate part has {scores.learned} of {LEARNED} updates to learn from"
    if view.single and not (fast or below):
        return view.calm(rule, (norm,), low.cleared(norm.values), note=note)
    found = Finding(
        fast | below,
        math.where(fast, _WARNING, _INFO),
        low.cleared(norm.values),
        math.where(fast, left, values),
        math.where(fast, soon.limit, low.limit),
    )
    return view.answer(rule, (norm,), found, note=note)


SPEC = Spec(
    kind="entropy_low",
    stage=Stage.POLICY,
    title="Entropy low",
    meaning="The policy is close to deterministic, or falls there fast. Right when the task is solved, too early before.",
    source="streak of 3 and recovery at 1.5 times the limit: as used in practice; Cui et al. 2025, The Entropy Mechanism of "
    "Reinforcement Learning for Reasoning Language Models; slope: Theil 1950, Sen 1968",
    fails_when="A solved task, an annealed entropy coefficient, one legal action: the level alone is therefore info in "
    "`default`. Not defined for continuous actions.",
    tries=(
        "If the return is still rising well, do nothing: this is what learning looks like.",
        "Raise the entropy coefficient (0.01 is common), or stop annealing it.",
        "Lower the learning rate: entropy that falls within a few updates is a step too large.",
        "Check the reward scale: large returns drown the entropy bonus.",
    ),
    explains=("entropy_collapse",),
    per=NORM,
    profiles={
        "default": Variant(
            check,
            (NORM_NEED,),
            (
                Threshold("norm", NORM, "<", 0.3, NORM_WORDS, severity=Severity.INFO, clear=1.5),
                Threshold(
                    "updates_left", NORM, "<", 15.0, "Updates left until the entropy is at its floor", severity=Severity.WARNING
                ),
                Threshold("falling_norm", NORM, "<", 0.5, NORM_WORDS),
                Threshold("floor", NORM, "<", 0.05, NORM_WORDS),
                Threshold("z", NORM, "<", -4.0, "Robust score of the slope of the entropy"),
            ),
            (Vote(Severity.WARNING, 2, 3, Severity.WARNING), Vote(Severity.INFO, 3, 3, Severity.INFO)),
            keep_firing=8,
            formula="info: H / ln A < 0.3 in 3 of 3 updates; warning: (H - 0.05) / fall per update < 15 and H / ln A < 0.5 and "
            "z(slope) < -4 in 2 of 3",
            warm_up=LEARNED + GUARD + SLOPE_POINTS,
        ),
        "classic": Variant(
            check_fixed,
            (NORM_NEED,),
            (Threshold("norm", NORM, "<", 0.3, NORM_WORDS, severity=Severity.WARNING, clear=1.5),),
            (Vote(Severity.WARNING, 3, 3, Severity.WARNING),),
            keep_firing=3,
            formula="H / ln A < 0.3 in 3 of 3 updates, over at 1.5 times that",
        ),
    },
)
