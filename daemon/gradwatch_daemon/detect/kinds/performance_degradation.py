"""The return has fallen well below the best this run had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradwatch_contracts.columns import Status
from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.reasons import UPDATES_TOTAL_CALL
from gradwatch_daemon.detect.returns import (
    EPISODES_LEAST,
    NOISES,
    ROLLING_POINTS,
    WINDOWS_LEARNED,
    EpisodeWindow,
    Held,
    RollingBest,
)
from gradwatch_daemon.detect.spec import Spec, Variant, once
from gradwatch_daemon.detect.view import NOTHING, Finding, Input
from gradwatch_daemon.records.rules import Need, Threshold, Vote

if TYPE_CHECKING:
    from gradwatch_daemon.detect.view import Mask, View
    from gradwatch_daemon.records import F64, Verdicts
    from gradwatch_daemon.records.rules import Rule

RETURN, SPREAD, COUNT = "episode.return.mean", "episode.return.std", "episode.count"
UPDATES_HELD, EPISODES_HELD = 8, 100
"""Updates and episodes on end below the limit for a warning, twice as many for a critical one: policies of healthy CartPole
runs lose half of their return for 40 episodes and find it again."""

TIMES_HELD = {"drop": 1, "drop_critical": 2}

BORDER = ((1, 10),)
"""Before this share of the run nothing is judged."""

BEST_LEAST = 1e-8
"""A best return nearer to 0 than this has no 10 %."""

NO_PROGRESS = f"how far the run is is not known: {UPDATES_TOTAL_CALL}"
_UNDEFINED = int(Status.UNDEFINED)
_WARNING, _CRITICAL = Severity.WARNING.rank, Severity.CRITICAL.rank
_CALL = "pass episode_returns to mon.step()"


def check_rolling(view: View, rule: Rule) -> Verdicts:
    """Rolling mean against its best, as a share of the best: what is usual in practice, with its dependence on progress."""
    math = view.math
    given, usable = view.input(RETURN), view.usable(view.input(RETURN))
    rolling = view.state.memory(RollingBest, "")
    mean: Any
    best: Any
    if view.single:
        mean, best = rolling.step(given.values) if usable else (NOTHING, NOTHING)  # type: ignore[arg-type]
    else:
        mean, best = np.full(view.n, NOTHING), np.full(view.n, NOTHING)
        mean[usable], best[usable] = rolling.steps(given.values[usable])
    drop = math.divide(best - mean, math.larger(abs(best), BEST_LEAST))
    limit = rule.threshold("drop")
    if view.updates_total is None:
        nothing = Finding(math.finite(drop) & False, _WARNING, given.readable, drop, limit.limit)
        return view.answer(rule, (given,), nothing, blind=NO_PROGRESS)
    early = view.update * BORDER[0][1] < view.updates_total * BORDER[0][0]
    breach = limit.beyond(drop) & math.negate(early)
    learning: Any = early | math.unknown(drop), ""
    if learning[0] if view.single else learning[0][-1]:
        first = -(-view.updates_total // BORDER[0][1])
        learning = learning[0], f"nothing is judged before update {first}, nor before {ROLLING_POINTS} returns"
    if view.single and not breach:
        return view.calm(rule, (given,), limit.cleared(drop), learning, note=view.progress_note())
    found = Finding(breach, _WARNING, limit.cleared(drop), drop, limit.limit)
    return view.answer(rule, (given,), found, learning, note=view.progress_note())


def check(view: View, rule: Rule) -> Verdicts:
    """Drop from the best as a share of what the run has gained, over windows of enough episodes, held for a while."""
    math = view.math
    given, spread, count = view.input(RETURN), view.input(SPREAD), view.input(COUNT)
    # No episode ended: the count is then not defined, and nothing is amiss.
    count = Input(COUNT, count.values, count.readable | (count.status == _UNDEFINED), count.status)
    ended = view.usable(count) & (count.values > 0) & view.usable(given) & view.usable(spread)
    window = view.state.memory(EpisodeWindow, "")
    mean: Any
    best: Any
    drop: Any
    if view.single:
        mean, best, drop = window.step(count.values, given.values, spread.values) if ended else window.latest  # type: ignore[arg-type]
    else:
        mean, best, drop = window.steps(count.values, given.values, spread.values, ended)
    fallen, lost = rule.threshold("drop"), rule.threshold("drop_critical")
    # Only updates in which episodes ended say something new.
    held = _held(view, fallen, ended, fallen.beyond(drop), count.values)
    long = _held(view, lost, ended, lost.beyond(drop), count.values)
    clear = ended & fallen.cleared(drop)
    learning: Any = math.unknown(drop), ""
    if learning[0] if view.single else learning[0][-1]:
        learning = learning[0], _learning_words(window.windows)
    if view.single and not (held or long):
        return view.calm(rule, (count,), clear, learning)
    found = Finding(
        held | long,
        math.where(long, _CRITICAL, _WARNING),
        clear,
        mean,
        best - math.where(long, lost.limit, fallen.limit) * _gained(drop, mean, best, view),
        best,
    )
    return view.answer(rule, (count,), found, learning)


def _learning_words(windows: int) -> str:
    if windows < WINDOWS_LEARNED:
        return f"{windows} of {WINDOWS_LEARNED} windows of {EPISODES_LEAST} episodes to learn from"
    return "the return has not risen above its noise yet, so there is nothing to lose"


def _held(view: View, drop: Threshold, ended: Mask, low: Mask, count: F64) -> Mask:
    """Rows at which a drop has held on end for enough updates and episodes."""
    held, times = view.state.memory(Held, drop.key), TIMES_HELD[drop.key]
    updates: Any
    episodes: Any
    if view.single:
        updates, episodes = held.step(low, count) if ended else held.latest  # type: ignore[arg-type]
    else:
        updates, episodes = held.steps(low, count, ended)
    return ended & (updates >= times * UPDATES_HELD) & (episodes >= times * EPISODES_HELD)  # type: ignore[no-any-return]


def _gained(drop: Any, mean: Any, best: Any, view: View) -> Any:
    """What the run had gained: the drop in returns over the drop as a share of it; 0 where nothing dropped."""
    fall = view.math.divide(best - mean, drop)
    return view.math.where(view.math.finite(fall), fall, 0.0)


_NEED = Need(RETURN, _CALL, undefined="no episode ended in the update")
_WORDS = "Mean return"

SPEC = Spec(
    kind="performance_degradation",
    stage=Stage.EPISODE,
    title="Performance degraded",
    meaning="The policy collects much less than it already could. Whatever the losses say, this is what training is for.",
    source="10 % below the rolling best: as used in practice, where healthy CartPole runs trigger it; in `default` a "
    "drop measured "
    f"by episodes against the range the run has gained, beyond {NOISES:g} standard errors; hill-a/stable-baselines #837, "
    "stable-baselines3 #324",
    fails_when="A curriculum or an environment that becomes harder lowers the return of a policy that is as good as before. "
    "Training returns with exploration noise are not evaluation returns. A run that never improved has nothing to lose.",
    tries=(
        "Keep the checkpoint of the best update; go back to it if the return does not recover.",
        "Look at KL, clip fraction and entropy in the updates before the onset: too large steps come first.",
        "Lower or anneal the learning rate; policies near their optimum need smaller steps.",
        "Check whether the environment changed at the onset (curriculum, seeds, a worker that was restarted).",
    ),
    sentence="{quantity} {value} at update {update}, limit {limit}{best}, since update {onset}.",
    profiles={
        "default": Variant(
            check,
            (Need(COUNT, _CALL), Need(RETURN, _CALL, optional=True), Need(SPREAD, _CALL, optional=True)),
            (
                Threshold("drop", RETURN, ">", 0.5, _WORDS, clear=0.4),
                Threshold("drop_critical", RETURN, ">", 0.6, _WORDS),
            ),
            (Vote(Severity.CRITICAL, 1, 1, Severity.CRITICAL), Vote(Severity.WARNING, 1, 1, Severity.WARNING)),
            keep_firing=3,
            formula=f"median of 5 windows of at least {EPISODES_LEAST} episodes: (best - it) / (best - first) > 0.5 and "
            f"more than {NOISES:g} deviations of noise, on end for {UPDATES_HELD} updates and {EPISODES_HELD} episodes; "
            f"critical: > 0.6 for {2 * UPDATES_HELD} updates and {2 * EPISODES_HELD} episodes",
            warm_up=WINDOWS_LEARNED,
        ),
        "classic": Variant(
            check_rolling,
            (_NEED,),
            (
                Threshold(
                    "drop",
                    RETURN,
                    ">",
                    0.1,
                    "Drop of the rolling mean return below its best",
                    severity=Severity.WARNING,
                    clear=0.5,
                ),
            ),
            once(Severity.WARNING),
            keep_firing=3,
            formula=f"mean return over {ROLLING_POINTS} updates more than 10 % below its best so far, after 10 % of the run",
            warm_up=ROLLING_POINTS,
        ),
    },
)
