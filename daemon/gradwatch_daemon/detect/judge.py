"""Judges all rules that are made of parts over a block at once: operands, tests, parts, lanes, verdicts.

Hardly any part holds anywhere, and a row in which none does has the verdicts of the one before it. So the tests of all parts
are gone through first, with the wider of their two limits; only the parts that pass are looked at closely.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts.columns import Status
from gradwatch_daemon.detect.board import OUTLIER
from gradwatch_daemon.detect.context import muted_words
from gradwatch_daemon.detect.lanes import ABSENT, PRESENT, SCORED, Calm
from gradwatch_daemon.detect.layout import EARLY
from gradwatch_daemon.detect.reasons import CUT_SHORT, NOT_SENT, blind_reason, learning_reason
from gradwatch_daemon.detect.view import BLIND, BREACH, CLEAR, CODES, HOLD, LEARNING, NOTHING
from gradwatch_daemon.detect.waiting import Waiting
from gradwatch_daemon.records import Verdicts
from gradwatch_daemon.records.rules import Measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gradwatch_daemon.detect.board import Scored
    from gradwatch_daemon.detect.lanes import Lane, Plan, Shown, Test
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import F64, U8

    Mask = NDArray[np.bool_]

_UNDEFINED = int(Status.UNDEFINED)

CALM_MAX = 64
"""Calm rows remembered for one plan: few patterns of what is measured come in turn."""


def judge(view: View, plan: Plan, restarts: list[int]) -> dict[str, list[Verdicts]]:
    """Verdicts of every lane by kind. The board learns from the block."""
    if view.single:
        return _judge_row(view, plan, restarts)
    view.state.catch_up()
    values, status = _signals(view)
    first_row = view.state.rows
    scored = _scored(view, plan, values, restarts)
    view.state.rows += view.n
    operands = _operands(view, values, scored, first_row)
    code = np.zeros((len(plan.lanes), view.n), np.uint8)
    holds: dict[int, Mask] = {}
    for part in _possible(plan, operands):
        tests = plan.parts[part]
        held = _all(operands, tests, [test.at for test in tests])
        if held.any():
            holds[part] = held
        code[plan.lane_of[part]][_all(operands, tests, [test.back for test in tests])] = HOLD
    _mark_unlearned(plan, code, scored)
    _mark_unseen(plan, code, np.isnan(values), status)
    breaches: dict[int, Mask] = {}
    for part, held in holds.items():
        place = plan.lane_of[part]
        breaches[place] = held | breaches[place] if place in breaches else held
    if view.whole is not None:
        for place, lane in enumerate(plan.lanes):
            if not lane.rule.invariant:
                code[place][~view.whole] = BLIND
                if place in breaches:
                    breaches[place] = breaches[place] & view.whole
    last_status = status[:, -1]
    by_kind: dict[str, list[Verdicts]] = {}
    for place, lane in enumerate(plan.lanes):
        of_lane, breach = code[place], breaches.get(place)
        if breach is not None:
            of_lane[breach] = BREACH
        judged = view.whole is None or lane.rule.invariant or bool(view.whole[-1])
        reason = _reason(view, lane, int(of_lane[-1]), judged, last_status)
        said = of_lane.tobytes()
        found = breach is not None and bool(breach.any())
        verdicts = _found(lane, said, holds, operands, scored) if found else _calm(view, lane, said)
        by_kind.setdefault(lane.rule.kind, []).append(verdicts._replace(reason=reason) if reason else verdicts)
    return by_kind


def _judge_row(view: View, plan: Plan, restarts: list[int]) -> dict[str, list[Verdicts]]:
    """The same for one row: what is said of a calm one like it is known, and only what holds is looked at."""
    state, board = view.state, view.state.board
    if restarts:
        state.catch_up()
        board.restart()
    waiting = state.waiting
    if waiting is None or waiting.plan is not plan:
        state.catch_up()
        waiting = state.waiting = Waiting(plan)
    pattern = board.pattern
    state.rows += 1
    scored = None
    if not waiting.take(view):
        scored = waiting.learn(board)
    elif not waiting.calm:
        scored = waiting.unscored(board)
    if waiting.full(board):
        waiting.learn(board)
    calm = _calm_of(view, plan, pattern, waiting)
    if scored is None:
        return calm.by_kind
    values = plan.guards.numbers[: len(view.block.signals) + 2, None]
    operands = _operands(view, values, scored, state.rows - 1)
    row = operands[:, 0]
    possible = np.logical_and.reduce((row.take(plan.table) * plan.sign > plan.loose) != plan.inverted, axis=0)
    if 1 not in possible.tobytes():
        return calm.by_kind
    return _with_held(view, plan, calm, np.flatnonzero(possible).tolist(), operands, scored)


def _calm_of(view: View, plan: Plan, pattern: bytes, waiting: Waiting) -> Calm:
    """What is said of a row in which no part holds; `pattern` is what was unknown when it came."""
    calm = waiting.said.get(view.row[1]) if waiting else None
    if calm is not None:
        return calm
    board = view.state.board
    readable = b"" if isfinite(view.total) else np.isnan(view.block.values).tobytes()
    alike = (view.row[1], view.whole is None, pattern, board.pattern, waiting.told(board), muted_words(view), readable)
    calm = plan.calm.get(alike)
    if calm is None:
        if len(plan.calm) >= CALM_MAX:
            plan.calm.clear()
        calm = plan.calm[alike] = _calm_row(view, plan, np.frombuffer(pattern, np.bool_))
    if waiting:  # the row waits itself: it taught nothing, and is whole and finite as the next one that may
        waiting.said[view.row[1]] = calm
    return calm


def _calm_row(view: View, plan: Plan, unlearned: Mask) -> Calm:
    """`_calm_of`, worked out."""
    code = np.zeros((len(plan.lanes), 1), np.uint8)
    for place, lane in enumerate(plan.lanes):
        if lane.relative and unlearned[list(lane.learns or (0,))].any():
            code[place] = LEARNING
    values, status = _signals(view)
    _mark_unseen(plan, code, np.isnan(values), status)
    by_kind: dict[str, list[Verdicts]] = {}
    for place, lane in enumerate(plan.lanes):
        judged = view.whole is None or lane.rule.invariant
        if not judged:
            code[place] = BLIND
        last = int(code[place, 0])
        view.subject = lane.subject
        verdicts = view.calm_row(lane.rule.kind, last, _reason(view, lane, last, judged, status[:, 0]))
        by_kind.setdefault(lane.rule.kind, []).append(verdicts)
    return Calm(by_kind, code.tobytes())


def _with_held(  # noqa: PLR0917 (what one row consists of)
    view: View, plan: Plan, calm: Calm, possible: list[int], operands: F64, scored: Scored
) -> dict[str, list[Verdicts]]:
    """The verdicts of a row in which these parts may hold."""
    holds: dict[int, Mask] = {}
    code: dict[int, int] = {}
    numbers = operands[:, 0].tolist()
    for part in possible:
        place, tests = plan.lane_of[part], plan.parts[part]
        if all((numbers[test.operand] * test.sign > test.at) != test.inverted for test in tests):
            holds[part] = _ONE
            if view.whole is None or plan.lanes[place].rule.invariant:
                code[place] = BREACH
        kept = all((numbers[test.operand] * test.sign > test.back) != test.inverted for test in tests)
        if kept and calm.codes[place] == CLEAR and place not in code:
            code[place] = HOLD
    if not code:
        return calm.by_kind
    by_kind, status = dict(calm.by_kind), np.append(view.block.status[:, 0], (NOT_SENT, 0))
    for place, said in code.items():
        lane = plan.lanes[place]
        verdicts = by_kind[lane.rule.kind] = list(by_kind[lane.rule.kind])
        at = next(at for at, known in enumerate(verdicts) if known.subject == lane.subject)
        if said == HOLD:
            verdicts[at] = verdicts[at]._replace(code=CODES[HOLD])
            continue
        reason = _reason(view, lane, BREACH, True, status)
        verdicts[at] = _found(lane, CODES[BREACH], holds, operands, scored)._replace(reason=reason)
    return by_kind


_ONE = np.ones(1, np.bool_)


def _signals(view: View) -> tuple[F64, U8]:
    """Values f64[signals + 2, n] with NaN where nothing can be read, and statuses (`lanes.ABSENT`, `lanes.PRESENT`)."""
    block = view.block
    shape = len(block.signals) + 2, view.n
    values, status = np.empty(shape), np.empty(shape, np.uint8)
    values[:-2], status[:-2] = block.values, block.status
    values[-2:], status[ABSENT], status[PRESENT] = 0.0, NOT_SENT, 0
    np.copyto(values, np.nan, where=status != 0)
    return values, status


def _scored(view: View, plan: Plan, values: F64, restarts: list[int]) -> Scored:
    """The board's answer to the rows, from which it learns."""
    tracked = values.take(plan.signals, axis=0)
    for column, key, compute in plan.computed:
        tracked[column] = view.compute(key, compute)
    tracked = np.ascontiguousarray(tracked.T)
    usable = np.isfinite(tracked)
    if view.whole is not None:
        usable &= view.whole[:, None]
    return view.state.board.step(tracked, usable, restarts)


def _operands(view: View, values: F64, scored: Scored, first_row: int) -> F64:
    """Everything that a test may compare, f64[operands, n] (`lanes.SCORED`)."""
    signals, series, n = len(values), scored.values.shape[1], view.n
    found = np.empty((signals + len(SCORED) * series + 2, n))
    found[:signals] = values
    with np.errstate(all="ignore"):
        times, since_first = scored.values / scored.usual, scored.values / scored.first
    blocks = (scored.values, scored.z, times, scored.usual, since_first, scored.up, scored.down)
    for place, measured in enumerate(blocks):
        found[signals + place * series : signals + (place + 1) * series] = measured.T
    found[-2] = np.arange(first_row + 1, first_row + n + 1)
    found[-1] = NOTHING if view.updates_total is None else view.update / view.updates_total
    return found


def _possible(plan: Plan, operands: F64) -> list[int]:
    """The parts that may hold somewhere in the block: their tests in turn, for the parts that are left."""
    left = np.arange(len(plan.parts))
    passed: Mask | None = None
    for table, sign, loose, inverted in zip(plan.table, plan.sign, plan.loose, plan.inverted, strict=True):
        tested = operands[table[left]]
        tested *= sign[left, None]
        holds = (tested > loose[left, None]) != inverted[left, None]
        passed = holds if passed is None else passed & holds
        some = passed.any(axis=1)
        left, passed = left[some], passed[some]
    parts: list[int] = left.tolist()
    return parts


def _all(operands: F64, tests: tuple[Test, ...], limits: list[float]) -> Mask:
    """Rows in which every test holds at these limits."""
    held: Mask | None = None
    for test, limit in zip(tests, limits, strict=True):
        holds = (operands[test.operand] * test.sign > limit) != test.inverted
        held = holds if held is None else held & holds
    assert held is not None, "a part has a test"
    return held


def _mark_unlearned(plan: Plan, code: U8, scored: Scored) -> None:
    """Rows without what the main part of a lane is compared with."""
    unknown = np.isnan(scored.usual)
    columns = set(np.flatnonzero(unknown.any(axis=0)).tolist())
    if not columns:
        return
    for place, lane in enumerate(plan.lanes):
        if lane.relative:
            for column in lane.learns or (0,):
                if column in columns:
                    code[place][unknown[:, column]] = LEARNING


def _mark_unseen(plan: Plan, code: U8, unreadable: Mask, status: U8) -> None:
    """Rows without a signal that a lane needs."""
    missing = set(np.flatnonzero(unreadable.any(axis=1)).tolist())
    for place, lane in enumerate(plan.lanes):
        for column, _, void in lane.needs:
            if column in missing:
                unseen = unreadable[column]
                code[place][unseen & (status[column] != _UNDEFINED) if void else unseen] = BLIND


def _found(lane: Lane, said: bytes, holds: dict[int, Mask], operands: F64, scored: Scored) -> Verdicts:
    """Verdicts of a lane with a breach: each row has the numbers of the gravest part that holds in it."""
    n = len(said)
    rank, about, minibatch, stage = np.zeros((4, n), np.int64)
    minibatch[:], stage[:] = EARLY, lane.rule.stage_order
    value, limit, usual = np.full((3, n), NOTHING)
    for part, shown in reversed(list(zip(range(lane.first, lane.last), lane.shown, strict=True))):
        held = holds.get(part)
        if held is None:
            continue
        rank[held], about[held] = shown.rank, shown.about
        value[held], limit[held] = operands[shown.value, held], _limit(shown, scored, held)
        usual[held] = scored.usual[held, shown.usual] if shown.usual >= 0 else NOTHING
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


def _calm(view: View, lane: Lane, said: bytes) -> Verdicts:
    kind, subject = lane.rule.kind, lane.subject
    constants = view.constants
    nothing, stage = constants.number(NOTHING), constants.integer(lane.rule.stage_order)
    return Verdicts(kind, subject, said, constants.integer(0), nothing, nothing, nothing, constants.early, stage)


def _reason(view: View, lane: Lane, code: int, judged: bool, status: NDArray[np.uint8]) -> str:
    """Why the last row is blind or still learning, and what part of an armed rule does not judge yet."""
    if code == BLIND:
        return _blind(view, lane, status) if judged else CUT_SHORT
    missing = [words for column, words in lane.notes if status[column] != 0]
    if missing or code == BREACH:
        return missing[0] if missing else ""
    board = view.state.board
    unlearned = [board.learned(column) for column in lane.learns if not board.known(column)]
    if not unlearned:
        return ""
    learned, needed = min(unlearned, key=lambda known: known[0] - known[1])
    part = "" if code == LEARNING else "its relative part: "
    return f"{part}{muted_words(view)}{learning_reason(learned, needed)}"


def _blind(view: View, lane: Lane, status: NDArray[np.uint8]) -> str:
    for column, name, _ in lane.needs:
        need = lane.rule.need(name)
        said = int(status[column])
        if said == 0 and not np.isnan(view.block.values[column, -1]):
            continue
        if need.void and said == _UNDEFINED:
            continue
        return blind_reason(name, said, need)
    return "not judged"
