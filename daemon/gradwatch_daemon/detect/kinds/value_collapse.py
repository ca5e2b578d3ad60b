"""The critic predicts returns worse than their own mean would."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.baseline import GUARD, LEARNED, Scale
from gradwatch_daemon.detect.ema import AVERAGE_LEAST, Average
from gradwatch_daemon.detect.reasons import UPDATES_TOTAL_CALL
from gradwatch_daemon.detect.spec import Spec, Variant, once
from gradwatch_daemon.detect.view import NOTHING, Finding, Input
from gradwatch_daemon.rules import Need, Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import Input, Mask, View
    from gradwatch_daemon.records import F64, Verdicts
    from gradwatch_daemon.rules import Rule

NMSE, EV, SPREAD = "value.nmse", "value.explained_variance", "value.target.std"
NMSE_SCALE = Scale(log=True, mad_least=0.05, least=1e-6)
BORDERS = ((1, 10), (1, 4), (3, 4))
"""Where phases end, as shares of `updates_total`; an update on a border is in the later phase."""

CLEAR_TIMES_USUAL = 1.2
NO_PROGRESS = f"how far the run is is not known: {UPDATES_TOTAL_CALL}"

NO_PHASE = f"its phase part is blind: {NO_PROGRESS}"

_INFO, _WARNING, _CRITICAL = (severity.rank for severity in Severity)
_CALL = "pass values and returns to mon.rollout()"
_UNDEFINED = "all returns of the update were equal"
_PHASES = ("early", "settling", "middle", "late")


def _phase_limits(rule: Rule) -> list[float]:
    threshold = rule.threshold
    return [threshold("early").at, threshold("settling").at, threshold("middle").at, threshold("late").at]


def _exact_limit(view: View, rule: Rule) -> F64:
    return view.by_progress(BORDERS, [rule.threshold(key).limit for key in _PHASES])


def check(view: View, rule: Rule) -> Verdicts:
    """NMSE far above its own usual, or absurd, while the returns vary as they usually do; explained variance is info."""
    math = view.math
    nmse, spread = view.input(NMSE), view.input(SPREAD)
    share = _variance_share(view, spread)
    varied = math.negate(math.unknown(share) | rule.threshold("variance_share").beyond(share))
    # Only updates whose returns vary teach what error is usual: the others divide by next to nothing.
    usual = view.scores_of((NMSE, ""), NMSE_SCALE, nmse.values, view.usable(nmse) & varied)
    floor, absurd = rule.threshold("nmse"), rule.threshold("nmse_absurd")
    known = math.negate(math.unknown(usual.usual))
    judged = nmse.readable & spread.readable & varied & known
    times = rule.threshold("times_usual").limit
    bad = judged & floor.exceeded(nmse.values) & (nmse.values > times * usual.usual)
    worst = judged & absurd.exceeded(nmse.values)
    unfit, ev_limit, progress = _by_phase(view, rule, judged)
    large = bad | worst
    learning = math.negate(known) | math.unknown(share), usual.learned
    clear = varied & (floor.cleared(nmse.values) | (nmse.values <= CLEAR_TIMES_USUAL * usual.usual))
    note = view.progress_note() if progress else NO_PHASE
    if view.single and not (large or unfit):
        return view.calm(rule, (nmse, spread), clear, learning, note=note)
    by_error = large | math.negate(unfit)
    limit = math.where(worst, absurd.limit, math.larger(times * usual.usual, floor.limit))
    found = Finding(
        large | unfit,
        math.where(worst, _CRITICAL, math.where(bad, _WARNING, _INFO)),
        clear,
        math.where(by_error, nmse.values, view.input(EV).values),
        math.where(by_error, limit, ev_limit),
        math.where(by_error, usual.usual, NOTHING),
    )
    return view.answer(rule, (nmse, spread), found, learning, note=note)


def _variance_share(view: View, spread: Input) -> F64:
    """Variance of the returns over its moving average, f64[n]; NaN at first and where not known.

    An average and not the median: once most rollouts of a solved task contain no end of an episode, a variance of next to
    nothing is the median.
    """
    average, usable, variance = view.state.memory(Average, SPREAD), view.usable(spread), spread.values * spread.values
    usually = view.numbers(usable, variance, step=average.step, skip=lambda: NOTHING)
    return view.math.divide(variance, usually)


def _by_phase(view: View, rule: Rule, judged: Mask) -> tuple[Mask, F64 | float, bool]:
    """Rows whose explained variance is below the limit of their phase, that limit, and whether progress is known."""
    if view.updates_total is None:
        return judged & False, NOTHING, False
    ev: Input = view.input(EV)
    unfit = judged & ev.readable & (ev.values < view.by_progress(BORDERS, _phase_limits(rule)))
    if view.single and not unfit:
        return unfit, NOTHING, True
    return unfit, _exact_limit(view, rule), True


def check_by_phase(view: View, rule: Rule) -> Verdicts:
    """Explained variance against the limit of the phase; without known progress there is no phase, and so no verdict."""
    ev = view.input(EV)
    if view.updates_total is None:
        nothing = Finding(view.math.finite(ev.values) & False, _WARNING, ev.readable, ev.values, NOTHING)
        return view.answer(rule, (ev,), nothing, blind=NO_PROGRESS)
    limit = view.by_progress(BORDERS, _phase_limits(rule))
    breach = ev.readable & (ev.values < limit)
    if view.single and not breach:
        return view.calm(rule, (ev,), ev.values >= limit, note=view.progress_note())
    found = Finding(breach, _WARNING, ev.values >= limit, ev.values, _exact_limit(view, rule))
    return view.answer(rule, (ev,), found, note=view.progress_note())


_EV_NEED = Need(EV, _CALL, undefined=_UNDEFINED)
_EV_WORDS = "Explained variance of the returns by the critic's values at collection"
_EARLY, _SETTLING, _MIDDLE, _LATE = (
    Threshold("early", EV, "<", -0.5, f"{_EV_WORDS} (first tenth of the run)", severity=Severity.INFO),
    Threshold("settling", EV, "<", -0.2, f"{_EV_WORDS} (until a quarter of the run)", severity=Severity.INFO),
    Threshold("middle", EV, "<", 0.0, f"{_EV_WORDS} (until three quarters of the run)", severity=Severity.INFO),
    Threshold("late", EV, "<", 0.1, f"{_EV_WORDS} (last quarter of the run)", severity=Severity.INFO),
)
_PHASE_FORMULA = "explained variance < -0.5 before 10 % of the run, < -0.2 before 25 %, < 0 before 75 %, < 0.1 after"

SPEC = Spec(
    kind="value_collapse",
    stage=Stage.VALUE,
    title="Value function collapsed",
    meaning="The critic is further from the returns than a constant would be, so advantages are mostly its own error, and the "
    "policy learns noise.",
    source="explained variance by phase: as used in practice; it is no gate, since it craters on batches whose returns hardly "
    "vary and cannot see a bias (baselines #454, ray #10159, stable-baselines3 #324); normalised error: Huang et al. 2022, "
    "The 37 Implementation Details of PPO, on reporting value fit",
    fails_when="A change of the reward scale looks like it until the critic has followed. A critic that was bad from the first "
    "update on is its own usual, unless it is absurd. Returns that hardly vary are not judged.",
    tries=(
        "Check the scale of rewards and returns: normalise returns, or bring the value loss coefficient down.",
        "Check that bootstrapping at truncated episodes uses the value of the right observation.",
        "Give the critic its own network, or more epochs than the policy.",
        "Lower the learning rate; if value clipping is on, its range must fit the scale of the returns.",
    ),
    explains=("gradient_exploding", "gradient_unhealthy", "gradient_drift", "performance_degradation"),
    profiles={
        "default": Variant(
            check,
            (Need(NMSE, _CALL, undefined=_UNDEFINED), Need(SPREAD, _CALL), Need(EV, _CALL, optional=True)),
            (
                Threshold(
                    "nmse",
                    NMSE,
                    ">",
                    1.5,
                    "Mean squared error of the values over the variance of the returns",
                    severity=Severity.WARNING,
                    clear=2 / 3,
                ),
                Threshold(
                    "nmse_absurd",
                    NMSE,
                    ">",
                    10.0,
                    "Mean squared error of the values over the variance of the returns",
                    severity=Severity.CRITICAL,
                ),
                Threshold("times_usual", NMSE, ">", 3.0, "Normalised error over its usual value"),
                Threshold("variance_share", SPREAD, "<", 0.1, "Variance of the returns over its moving average"),
                _EARLY,
                _SETTLING,
                _MIDDLE,
                _LATE,
            ),
            (
                Vote(Severity.CRITICAL, 3, 5, Severity.CRITICAL),
                Vote(Severity.WARNING, 3, 5, Severity.WARNING),
                Vote(Severity.INFO, 3, 5, Severity.INFO),
            ),
            keep_firing=5,
            formula="warning: NMSE > max(3 x usual, 1.5) in 3 of 5 updates, critical: NMSE > 10 in 3 of 5, both only where the "
            f"variance of the returns is at least 0.1 x its moving average; info: {_PHASE_FORMULA}",
            warm_up=AVERAGE_LEAST + LEARNED + GUARD,
        ),
        "classic": Variant(
            check_by_phase,
            (_EV_NEED,),
            tuple(replace(threshold, severity=Severity.WARNING) for threshold in (_EARLY, _SETTLING, _MIDDLE, _LATE)),
            once(Severity.WARNING),
            keep_firing=3,
            formula=_PHASE_FORMULA,
        ),
    },
)
