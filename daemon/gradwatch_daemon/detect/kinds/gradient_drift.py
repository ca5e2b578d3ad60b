"""Gradient norm or health has left its own moving average, and stays away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import ALLOWANCE, CAP, GUARD, LEARNED, SUM_LIMIT
from gradwatch_daemon.detect.ema import MOMENTUM, WARM_UP, Ema
from gradwatch_daemon.detect.kinds.gradient_unhealthy import HEALTH
from gradwatch_daemon.detect.kinds.gradient_vanishing import NORM
from gradwatch_daemon.detect.reasons import learning_reason
from gradwatch_daemon.detect.series import AT_BEST, HEALTH_DRIFT, NORM_ANCHOR, NORM_DRIFT, NORM_OVER_CLIP
from gradwatch_daemon.detect.spec import CLIP_CALL, Spec, Variant, once
from gradwatch_daemon.detect.view import NOTHING, Finding
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import Input, Mask, View
    from gradwatch_daemon.records import F64, Verdicts
    from gradwatch_daemon.records.rules import Rule

SERIES = {"norm": NORM, "health": HEALTH}
"""Subject → the signal it is about."""

_WARNING = Severity.WARNING.rank


def check_average(view: View, rule: Rule) -> Verdicts:
    """One value away from the average by more than the limit."""
    given, drift, learning = _drift(view)
    limit = rule.threshold("drift")
    far = limit.beyond(drift) | limit.beyond(-drift)
    if view.single and not far:
        return view.calm(rule, (given,), True, learning)  # type: ignore[arg-type]
    found = Finding(far, _WARNING, view.math.negate(far), drift, view.math.where(drift < 0, -limit.limit, limit.limit))
    return view.answer(rule, (given,), found, learning)


def _drift(view: View) -> tuple[Input, F64, tuple[Mask, str]]:
    """The signal of the subject, its drift (NaN in warm-up and where unusable), and which rows are warm-up."""
    name = SERIES[view.subject]
    given = view.input(name)
    ema = view.state.memory(Ema, name)
    usable = view.usable(given)
    drift: Any
    if view.single:
        drift = ema.step(view.update, given.values) if usable else NOTHING  # type: ignore[arg-type]
    else:
        drift = np.full(view.n, NOTHING)
        drift[usable] = ema.steps(view.update[usable], given.values[usable])
    learning = usable & view.math.unknown(drift)
    warm = ema.count >= WARM_UP
    return given, drift, (learning, "" if warm else learning_reason(ema.count, WARM_UP))


_NEEDS = (Need(NORM, CLIP_CALL), Need(HEALTH, CLIP_CALL, undefined="no parameter has a gradient"))
_RETURN = "episode.return.mean"
_AWAY = "distance from its moving average (share of it)"
_TIMES = "gradient norm"
_DRIFT = Threshold("drift", NORM, ">", 0.5, "drift from its moving average (share of it)", severity=Severity.WARNING)
_AVERAGE = f"|x - EMA| / EMA > 0.5, bias-corrected EMA with momentum {MOMENTUM}, after {WARM_UP} updates of it"

SPEC = Spec(
    kind="gradient_drift",
    stage=Stage.GRAD,
    title="Gradients drift",
    meaning="The gradient has slowly moved to another scale than the run learned with: towards nothing (collapse) or "
    "without bound "
    "(divergence).",
    source="a moving average and a cumulative sum of scores; relative drift from a moving average: as used in "
    "practice, where it flags 13 % of healthy updates at a log-noise of 0.35 and 44 % at 0.7, hence the sum in `default`; "
    "trl #2980 (gradient norm grows after 10,000 steps)",
    fails_when="Annealed losses and coefficients move the norm on purpose. A slide slower than the window of the baseline "
    "(64 updates) is followed by it and shows only in the average.",
    tries=(
        "Collapse: check that advantages still vary, and the entropy; a policy that no longer explores has nothing to "
        "learn from.",
        "Divergence: lower the learning rate and look at the norm of the weights, which usually grows with it.",
        "Compare with the learning rate: a drift that begins with a change of it is that change.",
    ),
    subjects=tuple(SERIES),
    subject_words=" of the gradient {}",
    sentence="{direction}{subject}: {quantity} {value} at update {update}, limit {limit}, since update {onset}.",
    explains=("gradient_exploding", "gradient_unhealthy", "value_collapse"),
    profiles={
        "default": Variant(
            None,
            (
                Need(NORM, CLIP_CALL, subject="norm"),
                Need(_RETURN, "pass episode_returns to mon.step()", optional=True),
                Need(HEALTH, CLIP_CALL, undefined="no parameter has a gradient", subject="health"),
            ),
            (
                Threshold("drift", NORM, ">", 0.5, _AWAY, severity=Severity.INFO, series=NORM_DRIFT),
                Threshold("drift_down", NORM, "<", -0.5, _AWAY, severity=Severity.INFO, series=NORM_DRIFT),
                Threshold("health", HEALTH, "<", -0.5, _AWAY, severity=Severity.INFO, series=HEALTH_DRIFT),
                Threshold("sum", NORM, ">", SUM_LIMIT, _TIMES, clear=0.5, measure=Measure.UP),
                Threshold("times", NORM, ">", 10.0, _TIMES, clear=0.6, measure=Measure.TIMES),
                Threshold("harmless", NORM, "<", 4.0, "gradient norm over the clip limit", series=NORM_OVER_CLIP),
                Threshold("converged", _RETURN, ">", 0.5, "whether the return stands at its best", series=AT_BEST),
                Threshold("share_anchor", NORM, "<", 0.02, _TIMES, clear=2.0, measure=Measure.TIMES, series=NORM_ANCHOR),
                Threshold("sum_down", NORM, ">", SUM_LIMIT, _TIMES, clear=0.5, measure=Measure.DOWN, series=NORM_ANCHOR),
            ),
            (Vote(Severity.WARNING, 3, 5, Severity.WARNING), Vote(Severity.INFO, 3, 5, Severity.INFO)),
            keep_firing=8,
            parts=(
                # A tenfold growth that clipping does not bound is no learning, however well the policy still does.
                Part(Severity.WARNING, ("times", "sum"), ("harmless",), subject="norm"),
                Part(Severity.WARNING, ("share_anchor", "sum_down"), ("converged",), subject="norm"),
                Part(Severity.INFO, ("drift",), subject="norm"),
                Part(Severity.INFO, ("drift_down",), subject="norm"),
                Part(Severity.INFO, ("health",), subject="health"),
            ),
            formula="warning, in 3 of 5 updates: norm > 10 x usual of the last 64 good updates with a cumulative sum of "
            f"the robust score (cap {CAP:g}, allowance {ALLOWANCE:g}) > {SUM_LIMIT:g}, and > 4 x the clip limit; "
            "or < 0.02 x usual of the last 256 with such a sum downwards while the return does not stand at its "
            "best; info: more than 0.5 away from a moving average",
            warm_up=LEARNED + GUARD,
        ),
        "classic": Variant(
            check_average,
            _NEEDS,
            (_DRIFT,),
            once(Severity.WARNING),
            keep_firing=3,
            formula=_AVERAGE,
            warm_up=WARM_UP,
        ),
    },
)
