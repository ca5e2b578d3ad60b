"""What a detector sees of one block: inputs with their status, scores against the baseline, and how it answers.

A finite check always precedes a comparison here: NaN compares as False, and a detector built on that calls it healthy.

Over one row every "array" below is a plain number (see `plain`): types say arrays, and detectors are written for them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from gradwatch_contracts.columns import STATUS_REASON, RowFlag, Status
from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.detect.baseline import LEARNED, Scale
from gradwatch_daemon.detect.plain import BLOCK_MATH, ROW_MATH, BlockMath
from gradwatch_daemon.detect.recent import Recent
from gradwatch_daemon.detect.trend import Best, Trend
from gradwatch_daemon.records import F64, I64, U8, Numbers, SignalKey, Verdict, Verdicts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gradwatch_contracts.control import Severity
    from gradwatch_daemon.detect.state import StreamState
    from gradwatch_daemon.records import SignalBlock
    from gradwatch_daemon.rules import Need, Rule

Mask = NDArray[np.bool_]
T = TypeVar("T")
D = TypeVar("D", bound=np.generic)

CLEAR, HOLD, BREACH, LEARNING, BLIND = (int(verdict) for verdict in Verdict)
CODES = tuple(bytes([verdict]) for verdict in Verdict)
NOT_SENT = 255
"""`Input.status` of a signal that is not in the rows at all."""

NOTHING = math.nan
"""No number: there is no usual value, or no limit."""

EARLY = -1
"""Before the first minibatch, or not known where."""

PER_SUBJECT = frozenset(name for name, signal in SIGNALS.items() if signal.spec.per)

UPDATES_TOTAL_CALL = "pass updates_total to watch()"


class Input(NamedTuple):
    """One signal over the block. `readable` is measured and not NaN (infinite is readable)."""

    name: str
    values: F64
    readable: Mask
    status: U8


class Scores(NamedTuple):
    """Scores of one signal: f64[n] each; `z` is NaN where unusable or learning, all are NaN while learning.

    `learned` values are known at the end.
    """

    z: F64
    usual: F64
    limit: F64
    learned: int


class Finding(NamedTuple):
    """What a detector found, row by row: `severity` is a rank, read where `breach`. One number stands for all rows."""

    breach: Mask
    severity: NDArray[Any] | int
    clear: Mask
    value: F64
    limit: F64 | float
    usual: F64 | float = NOTHING


class Constants:
    """Read-only arrays of one length that every block of that length shares."""

    __slots__ = ("_ints", "_numbers", "early", "never")

    def __init__(self, n: int) -> None:
        self.early: I64 = _frozen(np.full(n, EARLY, np.int64))
        self.never: Mask = _frozen(np.zeros(n, np.bool_))
        self._numbers: dict[float, F64] = {}
        self._ints: dict[int, I64] = {}

    def number(self, value: float) -> F64:
        """One number for every row. NaN is one key, as long as it is `math.nan`."""
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = _frozen(np.full(len(self.never), value))
        return found

    def integer(self, value: int) -> I64:
        """One whole number for every row."""
        found = self._ints.get(value)
        if found is None:
            found = self._ints[value] = _frozen(np.full(len(self.never), value, np.int64))
        return found


def _frozen(array: NDArray[D]) -> NDArray[D]:
    array.setflags(write=False)
    return array


class Layout:
    """Where each signal of a tuple of signals stands, and what detectors worked out from it. One per tuple."""

    __slots__ = ("index", "plans", "reasons", "signals", "subjects")

    def __init__(self, signals: tuple[SignalKey, ...]) -> None:
        self.signals = signals
        self.index: dict[tuple[str, str], int] = {key: place for place, key in enumerate(signals)}
        self.subjects: dict[str, tuple[str, ...]] = {}
        for name, subject in signals:
            self.subjects[name] = (*self.subjects.get(name, ()), subject)
        self.plans: dict[str, object] = {}
        self.reasons: dict[tuple[str, str, int, bool], str] = {}

    def plan(self, name: str, build: Callable[[tuple[SignalKey, ...]], T]) -> T:
        """What `build` makes of the signals, once."""
        found = self.plans.get(name)
        if found is None:
            found = self.plans[name] = build(self.signals)
        return cast("T", found)


class View:
    """One block of one stream, for all detectors; what several need is computed once and shared."""

    __slots__ = (
        "_at_best",
        "_inputs",
        "_row",
        "_row_status",
        "_scores",
        "block",
        "constants",
        "layout",
        "math",
        "n",
        "shared",
        "single",
        "state",
        "subject",
        "update",
        "updates_total",
        "whole",
    )

    def __init__(
        self, block: SignalBlock, layout: Layout, constants: Constants | None, state: StreamState, updates_total: int | None
    ) -> None:
        self.block = block
        self.layout = layout
        self.state = state
        self.updates_total = updates_total if updates_total is not None and updates_total > 0 else None
        self.n = len(block)
        self.single = constants is None
        self.constants = cast("Constants", constants)
        self.subject = ""
        self.shared: dict[str, Any] = {}
        """What a detector keeps for its other subjects in this block."""
        self._inputs: dict[tuple[str, str], Input] = {}
        self._scores: dict[tuple[str, str], Scores] = {}
        self._at_best: Mask | None = None
        self.math: BlockMath = ROW_MATH if self.single else BLOCK_MATH
        self.update: I64
        self.whole: Mask | None
        """Rows of complete updates; None when all are."""
        if self.single:
            self._row: list[float] = block.values[:, 0].tolist()
            self._row_status: bytes = block.status.tobytes()
            self.update = cast("I64", int(block.update[0]))
            self.whole = cast("Mask", False) if block.flags[0] & RowFlag.PARTIAL else None
        else:
            self.update = block.update
            partial = (block.flags & RowFlag.PARTIAL) != 0
            self.whole = ~partial if partial.any() else None

    @property
    def row(self) -> tuple[list[float], bytes]:
        """Values and statuses of the one row."""
        return self._row, self._row_status

    def input(self, name: str) -> Input:
        """A signal of the present subject; of the whole where the registry does not take it per subject."""
        key = (name, self.subject if self.subject and name in PER_SUBJECT else "")
        found = self._inputs.get(key)
        if found is None:
            found = self._inputs[key] = self._read(key)
        return found

    def _read(self, key: tuple[str, str]) -> Input:
        place = self.layout.index.get(key)
        if self.single:
            if place is None:
                return Input(key[0], *cast("Any", (0.0, False, NOT_SENT)))
            value, status = self._row[place], self._row_status[place]
            return Input(key[0], *cast("Any", (value, status == 0 and value == value, status)))
        if place is None:
            constants = self.constants
            return Input(key[0], constants.number(0.0), constants.never, cast("U8", constants.integer(NOT_SENT)))
        values, status_row = self.block.values[place].astype(np.float64), self.block.status[place]
        return Input(key[0], values, (status_row == 0) & ~np.isnan(values), status_row)

    def usable(self, given: Input) -> Mask:
        """The rows of a signal that may teach: measured, finite, of a complete update."""
        usable = given.readable & self.math.finite(given.values)
        return usable if self.whole is None else usable & self.whole

    def scores(self, name: str, scale: Scale) -> Scores:
        """Scores of a signal against its baseline, which learns from the block's complete updates."""
        subject = self.subject if self.subject and name in PER_SUBJECT else ""
        found = self._scores.get((name, subject))
        if found is None:
            given = self.input(name)
            found = self.scores_of((name, subject), scale, given.values, self.usable(given))
        return found

    def scores_of(self, key: tuple[str, str], scale: Scale, values: F64, usable: Mask) -> Scores:
        """Scores of any series under a key of its own; rows that are not `usable` neither score nor teach."""
        found = self._scores.get(key)
        if found is None:
            baseline = self.state.baseline(key, scale)
            step = baseline.step
            if self.single:
                score = step(cast("float", values)) if usable else baseline.standing
                found = Scores(*cast("Any", score), baseline.learned)
            else:
                scored = self.each(usable, values, step=step, skip=lambda: baseline.standing)
                found = Scores(*(np.array(column) for column in zip(*scored, strict=True)), baseline.learned)
            self._scores[key] = found
        return found

    def each(self, usable: Mask, *columns: F64, step: Callable[..., T], skip: Callable[[], T]) -> list[T]:
        """`step` of the numbers of each usable row, `skip` of the others, in order: for what remembers row by row."""
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        if usable.all():
            return [step(*row) for row in rows]
        return [step(*row) if good else skip() for good, row in zip(usable.tolist(), rows, strict=True)]

    def numbers(self, usable: Mask, *columns: F64, step: Callable[..., float], skip: Callable[[], float]) -> F64:
        """The same for a step that gives one number: f64[n]."""
        if self.single:
            return cast("F64", step(*columns) if usable else skip())
        return np.array(self.each(usable, *columns, step=step, skip=skip), np.float64)

    def agreed(self, name: str, held: Mask, k: int, n: int) -> Mask:
        """Rows at which a condition of the present subject held in `k` of the last `n` updates, this one among them."""
        recent = self.state.memory(Recent, name, self.subject)
        if self.single:
            return cast("Mask", recent.step(cast("int", self.update), bool(held), k, n))
        if recent.empty and not held.any():
            return held
        updates = self.update.tolist()
        return np.array([recent.step(u, h, k, n) for u, h in zip(updates, held.tolist(), strict=True)], np.bool_)

    def slopes(self, name: str) -> F64:
        """Slope of a signal of the present subject over the last updates, f64[n], NaN where not known."""
        given = self.input(name)
        usable = self.usable(given)
        trend = self.state.memory(Trend, name, self.subject)
        if self.single:
            return cast("F64", trend.slope(cast("int", self.update), cast("float", given.values)) if usable else NOTHING)
        slopes = np.full(self.n, np.nan)
        if usable.any():
            slopes[usable] = trend.slopes(self.block.update[usable], given.values[usable])
        return slopes

    def at_best_return(self) -> Mask:
        """Rows at which the run's return is known to stand at its own best and not to fall."""
        if self._at_best is None:
            given = self.input("episode.return.mean")
            usable = self.usable(given)
            best = self.state.memory(Best, "episode.return.mean")
            if self.single:
                self._at_best = cast("Mask", best.step(cast("float", given.values)) if usable else best.standing)
            else:
                self._at_best = best.near(given.values, usable)
        return self._at_best

    def by_progress(self, borders: Iterable[tuple[int, int]], limits: Sequence[float]) -> F64:
        """Limit of the phase of each update: `limits` before each border, a (part, whole) of `updates_total`, and after.

        Whole numbers throughout, so that an update on a border is always behind it. An update beyond `updates_total` is
        in the last phase. Only where progress is known.
        """
        assert self.updates_total is not None, "progress is known"
        chosen: Any = limits[-1]
        for (part, whole), limit in reversed(list(zip(borders, limits, strict=False))):
            chosen = self.math.where(self.update * whole < self.updates_total * part, limit, chosen)
        return cast("F64", chosen)

    def answer(
        self,
        rule: Rule,
        inputs: Sequence[Input],
        found: Finding,
        learning: tuple[Mask, str] | None = None,
        *,
        invariant: bool = False,
        note: str = "",
        blind: str = "",
    ) -> Verdicts:
        """Verdicts of one subject. A breach that the readable inputs prove stands; else an unreadable one makes it blind.

        `learning` marks the rows without a baseline and says how much is learned. Only an `invariant` judges an update
        that was cut short. `note` is the reason given where the detector is neither blind nor learning; `blind` why it
        cannot judge at all.
        """
        if self.single:
            return self._answer_row(rule, inputs, found, learning, invariant, note, blind)
        readable = inputs[0].readable
        for given in inputs[1:]:
            readable = readable & given.readable
        code = np.where(found.clear, np.uint8(CLEAR), np.uint8(HOLD))
        if learning is not None:
            code[learning[0]] = LEARNING
        code[~readable] = BLIND
        code[found.breach] = BREACH
        if blind:
            code[:] = BLIND
        whole = None if invariant else self.whole
        if whole is not None:
            code[~whole] = BLIND
        reason = note
        if code[-1] == BLIND:
            cut = whole is not None and not whole[-1]
            reason = CUT_SHORT if cut else blind or self._blind_reason(inputs, rule)
        elif code[-1] == LEARNING and learning is not None:
            reason = learning[1]
        constants = self.constants
        return Verdicts(
            rule.kind,
            self.subject,
            code.tobytes(),
            constants.integer(found.severity) if isinstance(found.severity, int) else found.severity,
            found.value,
            constants.number(found.limit) if isinstance(found.limit, float) else found.limit,
            constants.number(found.usual) if isinstance(found.usual, float) else found.usual,
            constants.early,
            constants.integer(rule.stage_order),
            reason,
        )

    def _answer_row(
        self,
        rule: Rule,
        inputs: Sequence[Input],
        found: Finding,
        learning: tuple[Mask, str] | None,
        invariant: bool,
        note: str,
        blind: str,
    ) -> Verdicts:
        cut = self.whole is not None and not invariant
        reason = note
        if cut or blind:
            code, reason = BLIND, CUT_SHORT if cut else blind
        elif found.breach:
            code = BREACH
        elif not all([given.readable for given in inputs]):  # a list is faster than a generator
            code, reason = BLIND, self._blind_reason(inputs, rule)
        elif learning is not None and learning[0]:
            code, reason = LEARNING, learning[1]
        else:
            code = CLEAR if found.clear else HOLD
        numbers = cast("Any", ((found.severity,), (found.value,), (found.limit,), (found.usual,)))
        return Verdicts(rule.kind, self.subject, CODES[code], *numbers, _EARLY_ROW, (rule.stage_order,), reason)

    def progress_note(self) -> str:
        """What to say where progress contradicts itself."""
        total, last = self.updates_total, int(self.block.update[-1])
        return f"update {last} is beyond updates_total {total}" if total is not None and last >= total else ""

    def _blind_reason(self, inputs: Sequence[Input], rule: Rule) -> str:
        """Why the last row cannot be judged, and the line to add; about the first input at fault."""
        for given in inputs:
            last = int(cast("int", given.status) if self.single else given.status[-1])
            readable = bool(given.readable if self.single else given.readable[-1])
            if not readable:
                key = (rule.kind, given.name, last, readable)
                reason = self.layout.reasons.get(key)
                if reason is None:
                    reason = self.layout.reasons[key] = blind_reason(given.name, last, rule.need(given.name))
                return reason
        return "not judged"


_EARLY_ROW: Numbers = (EARLY,)
CUT_SHORT = "the last update was cut short"


def learning_reason(learned: int, needed: int = LEARNED) -> str:
    """How far learning is."""
    return f"{min(learned, needed)} of {needed} updates to learn from"


def blind_reason(name: str, status: int, need: Need) -> str:
    """Why a signal with this status cannot be judged, and the line to add."""
    if status == NOT_SENT:
        return f"{name} is not sent: {need.add}"
    if status != Status.MEASURED:
        return f"{name}: {STATUS_REASON[Status(status)]}{_remedy(Status(status), need)}"
    return f"{name} is NaN, so it compares with nothing"


def _remedy(status: Status, need: Need) -> str:
    if status is Status.NOT_CALLED:
        return f"; {need.add}"
    if status is Status.LEVEL:
        return "; raise the level to normal"
    return f"; {need.undefined}" if status is Status.UNDEFINED and need.undefined else ""
