"""The critic predicts returns worse than their own mean would."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.board import GUARD, LEARNED
from gradwatch_daemon.detect.ema import AVERAGE_LEAST
from gradwatch_daemon.detect.reasons import UPDATES_TOTAL_CALL
from gradwatch_daemon.detect.series import ERROR, SQUARED_ERROR
from gradwatch_daemon.detect.spec import AFTER_BAD_STEP, Spec, Variant, once
from gradwatch_daemon.detect.view import NOTHING, Finding
from gradwatch_daemon.records.rules import Measure, Need, Part, Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import F64, Verdicts
    from gradwatch_daemon.records.rules import Rule

NMSE, EV, SPREAD = "value.nmse", "value.explained_variance", "value.target.std"
BORDERS = ((1, 10), (1, 4), (3, 4))
"""Where phases end, as shares of `updates_total`; an update on a border is in the later phase."""

NO_PROGRESS = f"how far the run is is not known: {UPDATES_TOTAL_CALL}"

_WARNING = Severity.WARNING.rank
_CALL = "pass values and returns to mon.rollout()"
_UNDEFINED = "all returns of the update were equal"
_PHASES = ("early", "settling", "middle", "late")


def _phase_limits(rule: Rule) -> list[float]:
    threshold = rule.threshold
    return [threshold("early").at, threshold("settling").at, threshold("middle").at, threshold("late").at]


def _exact_limit(view: View, rule: Rule) -> F64:
    return view.by_progress(BORDERS, [rule.threshold(key).limit for key in _PHASES])


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
_ERROR = "Mean squared error of the values over the variance of the returns"
_REWARD = "reward.step.absmax"
_SQUARED = "Mean squared error of the values"
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
    explains=AFTER_BAD_STEP,
    profiles={
        "default": Variant(
            None,
            (
                Need(NMSE, _CALL, undefined=_UNDEFINED),
                Need(SPREAD, _CALL),
                Need(EV, _CALL, optional=True),
                Need(_REWARD, "pass rewards to mon.rollout()", optional=True),
            ),
            (
                Threshold("nmse", NMSE, ">", 1.5, _ERROR, severity=Severity.WARNING, clear=2 / 3, series=ERROR),
                Threshold("nmse_absurd", NMSE, ">", 10.0, _ERROR, severity=Severity.CRITICAL, clear=0.5, series=ERROR),
                Threshold("times_usual", NMSE, ">", 3.0, _ERROR, clear=0.4, measure=Measure.TIMES, series=ERROR),
                Threshold("grown", NMSE, ">", 2.0, _SQUARED, clear=0.7, measure=Measure.TIMES, series=SQUARED_ERROR),
                Threshold("rescaled", _REWARD, ">", 1.5, "Largest reward (absolute)", measure=Measure.TIMES),
                Threshold("known", NMSE, ">", 0.0, _ERROR, measure=Measure.TIMES, series=ERROR),
                Threshold("ev", EV, "<", -0.5, _EV_WORDS, severity=Severity.INFO),
                Threshold("ev_error", NMSE, ">", 1.0, _ERROR, series=ERROR),
            ),
            (
                Vote(Severity.CRITICAL, 3, 5, Severity.CRITICAL),
                Vote(Severity.WARNING, 3, 5, Severity.WARNING),
                Vote(Severity.INFO, 3, 5, Severity.INFO),
            ),
            keep_firing=5,
            parts=(
                Part(Severity.CRITICAL, ("nmse_absurd", "known")),
                Part(Severity.WARNING, ("nmse", "times_usual", "grown"), unless=("rescaled",)),
                Part(Severity.INFO, ("ev", "ev_error", "known")),
            ),
            formula="error = mean (return - value)^2 / max(Var(return), half of its moving average); warning: error > "
            "max(3 x usual, 1.5) and the squared error itself > 2 x usual, while rewards are not > 1.5 x usual, in 3 of 5 "
            "updates; critical: error > 10 in 3 of 5, "
            "once a usual error is known; info: "
            "explained variance < -0.5 and error > 1 in 3 of 5",
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
