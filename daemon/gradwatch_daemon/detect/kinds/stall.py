"""Updates have stopped coming while the trainer's process lives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import Stage
from gradwatch_daemon.detect.arrivals import GAPS_LEARNED, NS, Arrivals
from gradwatch_daemon.detect.layout import EARLY
from gradwatch_daemon.detect.reasons import learning_reason
from gradwatch_daemon.detect.spec import Spec, Variant, once
from gradwatch_daemon.detect.view import BREACH, CLEAR, CODES, LEARNING, NOTHING
from gradwatch_daemon.records import Verdicts
from gradwatch_daemon.records.rules import Threshold

if TYPE_CHECKING:
    from gradwatch_daemon.detect.state import StreamState
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records.rules import Rule


def check(view: View, rule: Rule) -> Verdicts:
    """Rows teach what is usual, and are the end of a stall; the stall itself is seen by `judge_tick`."""
    arrivals = view.state.memory(Arrivals, "")
    before = arrivals.gaps if arrivals.last_ns else -1
    arrivals.took(view.n, view.block.t_ns[-65:].tolist())
    if view.single and before >= GAPS_LEARNED:
        return view.calm_row(rule.kind, CLEAR)
    learning = (
        [before + row < GAPS_LEARNED for row in range(1, min(view.n, GAPS_LEARNED + 1) + 1)] if before < GAPS_LEARNED else []
    )
    count = sum(learning)
    code = CODES[LEARNING] * count + CODES[CLEAR] * (view.n - count)
    numbers = (NOTHING,) if view.single else view.constants.number(NOTHING)
    zeros = (0,) if view.single else view.constants.integer(0)
    early = (EARLY,) if view.single else view.constants.early
    stage = (rule.stage_order,) if view.single else view.constants.integer(rule.stage_order)
    reason = learning_reason(arrivals.gaps, GAPS_LEARNED) if count == view.n else ""
    return Verdicts(rule.kind, "", code, zeros, numbers, numbers, numbers, early, stage, reason)


def deadline_ns(state: StreamState, rule: Rule) -> int | None:
    """When the next update is due; None while learning and when the stall was told already."""
    arrivals = state.memory(Arrivals, "")
    usual = None if arrivals.stalled else arrivals.usual_gap_ns()
    if usual is None:
        return None
    return arrivals.last_ns + _patience_ns(rule, usual)


def rhythm_s(state: StreamState, rule: Rule) -> tuple[float | None, float]:
    """The usual time between updates and the time after which one is a stall, in seconds; (None, 0.0) while learning."""
    usual = state.memory(Arrivals, "").usual_gap_ns()
    return (None, 0.0) if usual is None else (usual / NS, _patience_ns(rule, usual) / NS)


def judge_tick(state: StreamState, rule: Rule, t_ns: int) -> list[Verdicts]:
    """Whether it is past the deadline; once told, nothing more until the next update."""
    deadline = deadline_ns(state, rule)
    if deadline is None or t_ns <= deadline:
        return []
    arrivals = state.memory(Arrivals, "")
    arrivals.stalled = True
    usual = arrivals.usual_gap_ns() or 0.0
    waited, limit = (t_ns - arrivals.last_ns) / NS, (deadline - arrivals.last_ns) / NS
    warning = Severity.WARNING.rank
    stage = (rule.stage_order,)
    return [Verdicts(rule.kind, "", CODES[BREACH], (warning,), (waited,), (limit,), (usual / NS,), (EARLY,), stage)]


def _patience_ns(rule: Rule, usual_ns: float) -> int:
    least, times = rule.threshold("seconds").limit * NS, rule.threshold("times_usual").limit * usual_ns
    return math.ceil(max(least, times))


_VARIANT = Variant(
    check,
    (),
    (
        Threshold("seconds", "", ">", 5.0, "No update for", "s", Severity.WARNING),
        Threshold("times_usual", "", ">", 10.0, "Time since the last update over the usual time between two"),
    ),
    once(Severity.WARNING),
    keep_firing=1,
    formula="no update for more than 10 x the median of the last 64 times between updates, and for more than 5 s",
    warm_up=GAPS_LEARNED,
)

SPEC = Spec(
    kind="stall",
    stage=Stage.SYS,
    title="Training stands still",
    meaning="The process lives and answers, but no update has ended for many times as long as one usually takes.",
    source="a deadline with the run's own pace as the time-out",
    fails_when="Evaluation or checkpoint pauses longer than ten updates look like it, unless they are in mon.phase: eval or "
    "checkpoint. A process that is gone is no stall: the run is then lost. Updates that merely become slower are followed by "
    "the median.",
    tries=(
        "Look with py-spy dump or a debugger at the call that the process waits in.",
        "An environment worker that died, a full disk, or a collective that one rank never enters are the usual causes.",
        'If it evaluates or saves for that long on purpose, put that into `with mon.phase("eval"):`.',
    ),
    sentence="{quantity} {value}{usual} after update {update}, limit {limit}.",
    profiles={"default": _VARIANT, "classic": _VARIANT},
)
