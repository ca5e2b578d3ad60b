"""Gradient norm or health has left its own moving average, and stays away."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.baseline import GUARD, LEARNED
from gradwatch_daemon.detect.cusum import ALLOWANCE, CAP, Cusum
from gradwatch_daemon.detect.ema import MOMENTUM, WARM_UP, Ema
from gradwatch_daemon.detect.kinds.gradient_unhealthy import HEALTH, HEALTH_SCALE
from gradwatch_daemon.detect.kinds.gradient_vanishing import NORM, NORM_SCALE
from gradwatch_daemon.detect.reasons import learning_reason
from gradwatch_daemon.detect.spec import CLIP_CALL, Spec, Variant, once
from gradwatch_daemon.detect.view import NOTHING, Finding
from gradwatch_daemon.rules import Need, Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import Input, Mask, View
    from gradwatch_daemon.records import F64, Verdicts
    from gradwatch_daemon.rules import Rule

SERIES = {"norm": (NORM, NORM_SCALE), "health": (HEALTH, HEALTH_SCALE)}
"""Subject → the signal it is about, and the scale of its baseline."""

_INFO, _WARNING = Severity.INFO.rank, Severity.WARNING.rank


def check_average(view: View, rule: Rule) -> Verdicts:
    """One value away from the average by more than the limit."""
    given, drift, learning = _drift(view)
    limit = rule.threshold("drift")
    far = limit.beyond(drift) | limit.beyond(-drift)
    if view.single and not far:
        return view.calm(rule, (given,), True, learning)  # type: ignore[arg-type]
    found = Finding(far, _WARNING, view.math.negate(far), drift, view.math.where(drift < 0, -limit.limit, limit.limit))
    return view.answer(rule, (given,), found, learning)


def check(view: View, rule: Rule) -> Verdicts:
    """The same is info; with a robust cumulative sum that says it lasts, on the same side, it is a warning.

    Downwards that takes much more: the norm of a run that learns well falls tenfold and stays there.
    """
    math = view.math
    given, drift, learning = _drift(view)
    name, scale = SERIES[view.subject]
    scores = view.scores(name, scale)
    cusum = view.state.memory(Cusum, name)
    gathered: Any = cusum.step(scores.z) if view.single else np.array([cusum.step(z) for z in scores.z.tolist()])  # type: ignore[arg-type]
    limit, lasting = rule.threshold("drift"), rule.threshold("cusum")
    up, down = limit.beyond(drift), limit.beyond(-drift)
    if view.single and not (up or down):
        return view.calm(rule, (given,), True, learning)  # type: ignore[arg-type]
    gone = rule.threshold("collapse").beyond(-drift)
    lasts = (up & lasting.beyond(gathered)) | (gone & lasting.beyond(-gathered))
    found = Finding(
        up | down,
        math.where(lasts, _WARNING, _INFO),
        math.negate(up | down),
        drift,
        math.where(gone & lasts, -rule.threshold("collapse").limit, math.where(drift < 0, -limit.limit, limit.limit)),
    )
    return view.answer(rule, (given,), found, learning)


def _drift(view: View) -> tuple[Input, F64, tuple[Mask, str]]:
    """The signal of the subject, its drift (NaN in warm-up and where unusable), and which rows are warm-up."""
    name, _ = SERIES[view.subject]
    given = view.input(name)
    ema = view.state.memory(Ema, name)
    usable = view.usable(given)
    drift: Any
    if view.single:
        drift = ema.step(view.update, given.values) if usable else NOTHING  # type: ignore[arg-type]
    else:
        drift = np.full(view.n, NOTHING)
        drift[usable] = ema.steps(view.update[usable].tolist(), given.values[usable].tolist())
    learning = usable & view.math.unknown(drift)
    warm = ema.count >= WARM_UP
    return given, drift, (learning, "" if warm else learning_reason(ema.count, WARM_UP))


_NEEDS = (Need(NORM, CLIP_CALL), Need(HEALTH, CLIP_CALL, undefined="no parameter has a gradient"))
_DRIFT = Threshold("drift", NORM, ">", 0.5, "drift from its moving average (share of it)", severity=Severity.WARNING)
_AVERAGE = f"|x - EMA| / EMA > 0.5, bias-corrected EMA with momentum {MOMENTUM}, after {WARM_UP} updates of it"

SPEC = Spec(
    kind="gradient_drift",
    stage=Stage.GRAD,
    title="Gradients drift",
    meaning="The gradient has slowly moved to another scale than the run learned with: towards nothing (collapse) or "
    "without bound "
    "(divergence).",
    source="bias correction: Kingma and Ba 2015; cumulative sum: Page 1954; relative drift from a moving average: as used in "
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
    profiles={
        "default": Variant(
            check,
            _NEEDS,
            (
                replace(_DRIFT, severity=Severity.INFO),
                Threshold("collapse", NORM, ">", 0.98, "drift below its moving average (share of it)"),
                Threshold(
                    "cusum", NORM, ">", 12.0, f"Cumulative sum of the robust score (cap {CAP:g}, allowance {ALLOWANCE:g})"
                ),
            ),
            (Vote(Severity.WARNING, 3, 5, Severity.WARNING), Vote(Severity.INFO, 3, 5, Severity.INFO)),
            keep_firing=8,
            formula=f"info: {_AVERAGE}, in 3 of 5 updates; warning: the same to a side to which the two-sided cumulative "
            "sum of the robust score is > 12, downwards only beyond 0.98",
            warm_up=max(LEARNED + GUARD, WARM_UP),
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
