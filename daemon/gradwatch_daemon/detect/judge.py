"""Judges all rules that are made of parts over a block at once: operands, tests, parts, lanes, verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts.columns import Status
from gradwatch_daemon.detect.board import OUTLIER
from gradwatch_daemon.detect.context import muted_words
from gradwatch_daemon.detect.lanes import SCORED
from gradwatch_daemon.detect.layout import EARLY
from gradwatch_daemon.detect.reasons import CUT_SHORT, NOT_SENT, blind_reason, learning_reason
from gradwatch_daemon.detect.view import BLIND, BREACH, CODES, LEARNING, NOTHING
from gradwatch_daemon.records import Verdicts
from gradwatch_daemon.records.rules import Measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gradwatch_daemon.detect.board import Scored
    from gradwatch_daemon.detect.lanes import Lane, Plan, Shown
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import F64

    Mask = NDArray[np.bool_]

_UNDEFINED = int(Status.UNDEFINED)


def judge(view: View, plan: Plan, restarts: list[int]) -> dict[str, list[Verdicts]]:
    """Verdicts of every lane by kind. The board learns from the block."""
    values, status, readable = _signals(view)
    whole = None if view.whole is None else np.full(view.n, view.whole)
    tracked = values.take(plan.signals, axis=1)
    for column, key in plan.computed:
        tracked[:, column] = view.computed(*key)
    first_row = view.state.rows
    usable = np.isfinite(tracked)
    scored = view.state.board.step(tracked, usable if whole is None else usable & whole[:, None], restarts)
    view.state.rows += view.n
    operands = _operands(view, values, scored, first_row)
    tested = operands.take(plan.operands, axis=1) * plan.sign
    holds = np.logical_and.reduceat((tested > plan.at) != plan.inverted, plan.part_starts, axis=1)
    breach = np.logical_or.reduceat(holds, plan.lane_starts, axis=1)
    kept = np.logical_and.reduceat((tested > plan.back) != plan.inverted, plan.part_starts, axis=1)
    code = np.logical_or.reduceat(kept, plan.lane_starts, axis=1).astype(np.uint8)  # HOLD is 1, CLEAR is 0
    if plan.columns:
        unknown = np.isnan(scored.usual.take(plan.learn_columns, axis=1))
        code[np.logical_or.reduceat(unknown, plan.learn_starts, axis=1) & plan.relative] = LEARNING
    seen = readable.take(plan.need_columns, axis=1)
    if plan.void.any():
        seen |= plan.void & (status.take(plan.need_columns, axis=1) == _UNDEFINED)
    code[~np.logical_and.reduceat(seen, plan.need_starts, axis=1)] = BLIND
    judged = None
    if whole is not None:
        judged = whole[:, None] | plan.invariant
        breach &= judged
        code[~judged] = BLIND
    code[breach] = BREACH
    any_breach = bool(breach.any())
    alike = None
    if view.single and not any_breach:
        alike = (plan, code.tobytes(), status.tobytes(), readable.tobytes(), whole is None, view.state.board.progress())
        if view.state.calm is not None and view.state.calm[0] == alike:
            return view.state.calm[1]
    found: list[bool] = np.logical_or.reduce(breach, axis=0).tolist()
    columns = None if view.single else np.ascontiguousarray(code.T)
    by_kind: dict[str, list[Verdicts]] = {}
    for place, (lane, last) in enumerate(zip(plan.lanes, code[-1].tolist(), strict=True)):
        said = CODES[last] if columns is None else columns[place].tobytes()
        reason = _reason(view, lane, last, judged is None or bool(judged[-1, place]), status[-1])
        verdicts = _found(lane, said, holds, operands, scored) if found[place] else _calm(view, lane, said)
        by_kind.setdefault(lane.rule.kind, []).append(verdicts._replace(reason=reason) if reason else verdicts)
    view.state.calm = None if alike is None else (alike, by_kind)
    return by_kind


def _signals(view: View) -> tuple[F64, NDArray[np.uint8], Mask]:
    """Values f64[n, signals + 2] with NaN where nothing can be read, statuses, and what is readable (`lanes.ABSENT`)."""
    block = view.block
    shape = view.n, len(block.signals) + 2
    values, status = np.empty(shape), np.empty(shape, np.uint8)
    values[:, :-2], status[:, :-2] = block.values.T, block.status.T
    values[:, -2:], status[:, -2], status[:, -1] = 0.0, NOT_SENT, 0
    values[status != 0] = np.nan
    return values, status, ~np.isnan(values)


def _operands(view: View, values: F64, scored: Scored, first_row: int) -> F64:
    """Everything that a test may compare, a column each (`lanes.SCORED`)."""
    n, signals, series = len(values), values.shape[1], scored.values.shape[1]
    found = np.empty((n, signals + len(SCORED) * series + 2))
    found[:, :signals] = values
    with np.errstate(all="ignore"):
        times, since_first = scored.values / scored.usual, scored.values / scored.first
    blocks = (scored.values, scored.z, times, scored.usual, since_first, scored.up, scored.down)
    for place, measured in enumerate(blocks):
        found[:, signals + place * series : signals + (place + 1) * series] = measured
    found[:, -2] = np.arange(first_row + 1, first_row + n + 1)
    found[:, -1] = NOTHING if view.updates_total is None else view.block.update / view.updates_total
    return found


def _found(lane: Lane, said: bytes, holds: Mask, operands: F64, scored: Scored) -> Verdicts:
    """Verdicts of a lane with a breach: each row has the numbers of the gravest part that holds in it."""
    n = len(holds)
    rank, about = np.zeros(n, np.int64), np.zeros(n, np.int64)
    value, limit, usual = np.full(n, NOTHING), np.full(n, NOTHING), np.full(n, NOTHING)
    for part, shown in reversed(list(zip(range(lane.first, lane.last), lane.shown, strict=True))):
        held = holds[:, part]
        if not held.any():
            continue
        rank[held], about[held] = shown.rank, shown.about
        value[held], limit[held] = operands[held, shown.value], _limit(shown, scored, held)
        usual[held] = scored.usual[held, shown.usual] if shown.usual >= 0 else NOTHING
    minibatch, stage = np.full(n, EARLY, np.int64), np.full(n, lane.rule.stage_order, np.int64)
    return Verdicts(lane.rule.kind, lane.subject, said, rank, value, limit, usual, minibatch, stage, "", about)


def _limit(shown: Shown, scored: Scored, held: Mask) -> F64:
    """The narrowest limit of a part on the quantity it is about, in the unit of that."""
    narrowest = np.full(int(held.sum()), NOTHING)
    choose = np.fmax if shown.largest else np.fmin
    for measure, number, column in shown.limits:
        if measure is Measure.TIMES:
            narrowest = choose(narrowest, number * scored.usual[held, column])
        elif measure is Measure.FIRST:
            narrowest = choose(narrowest, number * scored.first[held, column])
        elif measure is Measure.Z:
            if number == OUTLIER:
                narrowest = choose(narrowest, scored.limit[held, column])
        elif measure in (Measure.VALUE, Measure.ROWS, Measure.PROGRESS):
            narrowest = choose(narrowest, number)
    return narrowest


_ZERO, _NOTHING, _EARLY = (0,), (NOTHING,), (EARLY,)
"""Numbers of one row that is no breach: nobody reads them."""


def _calm(view: View, lane: Lane, said: bytes) -> Verdicts:
    kind, subject = lane.rule.kind, lane.subject
    if view.single:
        return Verdicts(kind, subject, said, _ZERO, _NOTHING, _NOTHING, _NOTHING, _EARLY, _ZERO)
    constants = view.constants
    nothing, stage = constants.number(NOTHING), constants.integer(lane.rule.stage_order)
    return Verdicts(kind, subject, said, constants.integer(0), nothing, nothing, nothing, constants.early, stage)


def _reason(view: View, lane: Lane, code: int, judged: bool, status: NDArray[np.uint8]) -> str:
    """Why the last row is blind or still learning, and what part of an armed rule does not judge yet."""
    if code == BLIND:
        return _blind(view, lane, status) if judged else CUT_SHORT
    missing = [words for column, words in lane.notes if status[column] != 0]
    if missing:
        return missing[0]
    board = view.state.board
    unlearned = [board.learned(column) for column in lane.learns if not board.known(column)]
    if not unlearned or code == BREACH:
        return ""
    learned, needed = min(unlearned, key=lambda known: known[0] - known[1])
    part = "" if code == LEARNING else "its relative part: "
    return f"{part}{muted_words(view)}{learning_reason(learned, needed)}"


def _blind(view: View, lane: Lane, status: NDArray[np.uint8]) -> str:
    for column, name in lane.needs:
        need = lane.rule.need(name)
        said = int(status[column])
        if said == 0 and not np.isnan(view.block.values[column, -1]):
            continue
        if need.void and said == _UNDEFINED:
            continue
        return blind_reason(name, said, need)
    return "not judged"
