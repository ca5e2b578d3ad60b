"""NaN or infinity anywhere, named by the earliest minibatch and stage it was seen in."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts.control import Severity
from gradwatch_contracts.signals import SIGNALS, Source, Stage, Unit
from gradwatch_daemon.detect.layout import EARLY
from gradwatch_daemon.detect.spec import Spec, Variant, once
from gradwatch_daemon.detect.view import BLIND, BREACH, CLEAR, NOTHING
from gradwatch_daemon.records import SignalKey, Verdicts
from gradwatch_daemon.records.rules import END_OF_UPDATE, Need, Threshold

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gradwatch_daemon.detect.view import Mask, View
    from gradwatch_daemon.records import I64
    from gradwatch_daemon.records.rules import Rule

COUNTED = ".nonfinite"
"""Suffix of the signals that count non-finite elements; with `_mb` behind it, the first minibatch that held one."""

NOT_WATCHED = frozenset({Stage.SYS, Stage.TELEM, Stage.USER})
"""A trainer may log NaN on purpose (no episode finished yet); the host's clocks are no training."""

OVERFLOWING = frozenset(
    {"policy.ratio.max", "policy.ratio.first_mb_dev", "policy.kl.k3", "policy.kl.k3.last", "policy.kl.k3.max"}
)
"""Exponentials of log r, which overflow (and whose means then become NaN) while log r itself is finite. `default` leaves
that to ratio_explosion and kl_extreme, which it is; `classic` counts any NaN or infinity."""

_LOG_RATIO_COUNT, _RATIO_MAX = SignalKey("policy.logratio.nonfinite"), SignalKey("policy.ratio.max")
CALM_MAX = 256
"""Rows of statuses remembered for one layout."""

_STAGES = 64
"""More than there are stages: (minibatch, stage) as one number orders as the pair."""


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Watched signals: their rows in the block, which are counts, where in the update, and how they order.

    `count_rows` are the rows of the counts; `reasons` remembers what is said for each set of counts that are measured.
    """

    rows: I64
    counts: Mask
    place: I64
    stage: I64
    minibatch: I64
    overflowing: Mask
    ratio_max: int
    log_ratio_count: int
    stages: tuple[str, ...]
    count_rows: tuple[int, ...]
    count_stages: tuple[str, ...]
    pick_counts: Callable[[list[float]], tuple[float, ...]]
    reasons: dict[bytes, str]
    calm: dict[bytes, Verdicts]


def _make_plan(signals: tuple[SignalKey, ...]) -> _Plan:
    index = {key: row for row, key in enumerate(signals)}
    watched = [
        (row, key)
        for row, key in enumerate(signals)
        if SIGNALS[key.name].stage not in NOT_WATCHED and SIGNALS[key.name].unit is not Unit.INDEX
    ]
    rollout = [SIGNALS[key.name].spec.source is Source.ROLLOUT for _, key in watched]
    counts = [(row, key) for row, key in watched if key.name.endswith(COUNTED)]
    return _Plan(
        rows=np.array([row for row, _ in watched], np.int64),
        counts=np.array([key.name.endswith(COUNTED) for _, key in watched], np.bool_),
        place=np.array([-1 if early else END_OF_UPDATE for early in rollout], np.int64),
        stage=np.array([SIGNALS[key.name].stage.order for _, key in watched], np.int64),
        minibatch=np.array([index.get(SignalKey(f"{key.name}_mb", key.subject), -1) for _, key in watched], np.int64),
        overflowing=np.array([key.name in OVERFLOWING for _, key in watched], np.bool_),
        ratio_max=index.get(_RATIO_MAX, -1),
        log_ratio_count=index.get(_LOG_RATIO_COUNT, -1),
        stages=tuple(SIGNALS[key.name].stage.value for _, key in watched),
        count_rows=tuple(row for row, _ in counts),
        count_stages=tuple(SIGNALS[key.name].stage.value for _, key in counts),
        pick_counts=itemgetter(*rows)
        if len(rows := [row for row, _ in counts]) > 1
        else lambda row: tuple(row[at] for at in rows),
        reasons={},
        calm={},
    )


def check(view: View, rule: Rule) -> Verdicts:
    """Overflowed exponentials of a finite log r are left to the detectors of the ratio and the KL."""
    return _check(view, rule, overflow_counts=False)


def check_all(view: View, rule: Rule) -> Verdicts:
    """Any NaN or infinity."""
    return _check(view, rule, overflow_counts=True)


def _check(view: View, rule: Rule, *, overflow_counts: bool) -> Verdicts:
    plan = view.layout.plan(rule.kind, _make_plan)
    if view.single:
        calm = _calm_row(view, rule, plan)
        if calm is not None:
            return calm
    values, measured = view.block.values[plan.rows], view.block.status[plan.rows] == 0
    if not view.single and np.isfinite(values).all() and not rule.threshold("count").exceeded(values[plan.counts]).any():
        return _calm_block(view, rule, plan, measured[plan.counts])
    counted = measured & plan.counts[:, None]
    hits = (measured & ~np.isfinite(values)) | (counted & rule.threshold("count").exceeded(values))
    if not overflow_counts and plan.overflowing.any():
        hits[plan.overflowing] &= ~_overflowed(view, plan)
    hit = hits.any(axis=0)
    code = np.where(hit, BREACH, np.where(counted.any(axis=0), CLEAR, BLIND)).astype(np.uint8)
    n = view.n
    value, minibatch, stage = np.full(n, NOTHING), np.full(n, EARLY, np.int64), np.full(n, rule.stage_order, np.int64)
    if hit.any():
        first, place = _earliest(view, plan, hits)
        found = np.flatnonzero(hit)
        value[found] = values[first[found], found]
        minibatch[found] = place[first[found], found]
        stage[found] = plan.stage[first[found]]
    severity, usual = np.full(n, Severity.CRITICAL.rank), np.full(n, NOTHING)
    limit = np.full(n, rule.threshold("count").limit)
    reason = _reason(plan, rule, counted[plan.counts, -1].tobytes())
    return Verdicts(rule.kind, view.subject, code.tobytes(), severity, value, limit, usual, minibatch, stage, reason)


def _calm_block(view: View, rule: Rule, plan: _Plan, counted: NDArray[np.bool_]) -> Verdicts:
    """The verdicts of a block without anything amiss."""
    code = np.where(counted.any(axis=0), np.uint8(CLEAR), np.uint8(BLIND))
    constants = view.constants
    nothing, severity = constants.number(NOTHING), constants.integer(Severity.CRITICAL.rank)
    stage, reason = constants.integer(rule.stage_order), _reason(plan, rule, counted[:, -1].tobytes())
    limit = constants.number(rule.threshold("count").limit)
    return Verdicts(rule.kind, view.subject, code.tobytes(), severity, nothing, limit, nothing, constants.early, stage, reason)


def _calm_row(view: View, rule: Rule, plan: _Plan) -> Verdicts | None:
    """The verdict of a row without anything amiss; None where the arrays have to be looked at."""
    values, status = view.row
    if not isfinite(view.total):
        return None
    if rule.threshold("count").exceeded(max(plan.pick_counts(values), default=0.0)):
        return None
    known = plan.calm.get(status)
    if known is None:
        if len(plan.calm) >= CALM_MAX:
            plan.calm.clear()
        seen = bytes(not status[row] for row in plan.count_rows)
        known = plan.calm[status] = view.calm_row(rule.kind, CLEAR if 1 in seen else BLIND, _reason(plan, rule, seen))
    return known


def _overflowed(view: View, plan: _Plan) -> Mask:
    """Rows whose largest ratio overflowed while every log-ratio was finite."""
    if plan.ratio_max < 0 or plan.log_ratio_count < 0:
        return np.zeros(view.n, np.bool_)
    values, status = view.block.values, view.block.status
    all_finite: Mask = (status[plan.log_ratio_count] == 0) & (values[plan.log_ratio_count] == 0)
    overflowed: Mask = all_finite & (status[plan.ratio_max] == 0) & np.isposinf(values[plan.ratio_max])
    return overflowed


def _earliest(view: View, plan: _Plan, hits: NDArray[np.bool_]) -> tuple[I64, I64]:
    """Per row the watched signal with the least (minibatch, stage), and every signal's minibatch, i64[watched, n]."""
    place = np.repeat(plan.place[:, None], view.n, axis=1)
    for signal in np.flatnonzero(plan.minibatch >= 0):
        row = plan.minibatch[signal]
        told = (view.block.status[row] == 0) & np.isfinite(view.block.values[row])
        place[signal, told] = view.block.values[row, told].astype(np.int64)
    order = np.where(hits, place * _STAGES + plan.stage[:, None], np.iinfo(np.int64).max)
    return np.argmin(order, axis=0), place


def _reason(plan: _Plan, rule: Rule, seen: bytes) -> str:
    """What is not watched in the last row: nothing at all makes it blind, the rest is said beside the verdict.

    `seen` says for each count whether it was measured. A policy without recurrence has no state to watch.
    """
    found = plan.reasons.get(seen)
    if found is None:
        watched = {stage for stage, measured in zip(plan.count_stages, seen, strict=True) if measured}
        stages = dict.fromkeys(need.signal.split(".", 1)[0] for need in rule.needs)
        recurrent = Stage.RNN.value in plan.count_stages
        missing = [stage for stage in stages if stage not in watched and (recurrent or stage != Stage.RNN.value)]
        found = f"not watched in this update: {', '.join(missing)}" if missing else ""
        if not watched:
            found = f"no count of non-finite values is sent: {rule.needs[0].add}"
        plan.reasons[seen] = found
    return found


_NEEDS = (
    Need("policy.logratio.nonfinite", "pass new_logp and old_logp to mon.ppo()", optional=True),
    Need("obs.input.nonfinite", "pass observations to mon.rollout()", optional=True),
    Need("reward.step.nonfinite", "pass rewards to mon.rollout()", optional=True),
    Need("value.new.nonfinite", "pass values to mon.ppo()", optional=True),
    Need("adv.used.nonfinite", "pass advantages to mon.ppo()", optional=True),
    Need("loss.total.nonfinite", "pass loss to mon.ppo()", optional=True),
    Need("grad.norm.nonfinite", "call clip_grad_norm_, or pass the optimizer to watch()", optional=True),
    Need("param.nonfinite", "pass the model to watch()", optional=True),
    Need("rnn.h.nonfinite", "call mon.recurrent(h, c) if the policy is recurrent", optional=True),
)
_ANY = Threshold("count", "policy.logratio.nonfinite", ">", 0.0, "NaN or infinite values", severity=Severity.CRITICAL)
_FORMULA = "a count of non-finite values > 0, or a NaN or infinite signal"

SPEC = Spec(
    kind="nonfinite",
    stage=Stage.OBS,
    title="NaN or infinity",
    meaning="Something in the update is no longer a number. From the first optimizer step after it the weights are lost, and "
    "every later update is wasted.",
    source="true by definition; stable-baselines3 #1593, ray #7923, verl #747, IsaacLab #1999",
    fails_when="A mixed-precision loss scaler that probes its limit makes infinite gradients on purpose and skips those steps. "
    "Non-finite numbers inside the model that cancel before the loss are not seen. Logged scalars are not judged.",
    tries=(
        "Look at the earliest stage named here first; all later ones follow from it.",
        "Go back to a checkpoint before the onset: weights that are NaN stay NaN.",
        "Observations or rewards: check the environment and its normaliser for division by a zero variance.",
        "Loss or gradients: lower the learning rate, clip gradients, bound log_std and divisions.",
    ),
    explains=("*",),
    sentence="{quantity} in {stage} at update {update}{where}: {value}, since update {onset}.",
    profiles={
        "default": Variant(check, _NEEDS, (_ANY,), once(Severity.CRITICAL), keep_firing=20, formula=_FORMULA),
        "classic": Variant(
            check_all,
            _NEEDS,
            (_ANY,),
            once(Severity.CRITICAL),
            keep_firing=20,
            formula=_FORMULA,
        ),
    },
)
