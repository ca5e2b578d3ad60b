"""What a detector sees of one block: inputs with their status, what is computed of them, and how it answers.

A finite check always precedes a comparison here: NaN compares as False, and a detector built on that calls it healthy.

Over one row every "array" below is a plain number (see `plain`): types say arrays, and detectors are written for them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradwatch_contracts.columns import RowFlag
from gradwatch_daemon.detect.layout import EARLY, PER_SUBJECT, Constants, Layout
from gradwatch_daemon.detect.plain import BLOCK_MATH, ROW_MATH, BlockMath
from gradwatch_daemon.detect.reasons import CUT_SHORT, NOT_SENT, blind_reason, learning_words
from gradwatch_daemon.detect.series import series_of
from gradwatch_daemon.detect.trend import Trend
from gradwatch_daemon.records import F64, I64, U8, Verdict, Verdicts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gradwatch_daemon.detect.state import StreamState
    from gradwatch_daemon.records import SignalBlock
    from gradwatch_daemon.records.rules import Rule

Mask = NDArray[np.bool_]
T = TypeVar("T")

CLEAR, HOLD, BREACH, LEARNING, BLIND = (int(verdict) for verdict in Verdict)
CODES = tuple(bytes([verdict]) for verdict in Verdict)
NOTHING = math.nan
"""No number: there is no usual value, or no limit."""

PARTIAL = int(RowFlag.PARTIAL)

CALM_MAX = 1024
"""Verdicts of calm rows remembered for one layout."""


class Input(NamedTuple):
    """One signal over the block. `readable` is measured and not NaN (infinite is readable)."""

    name: str
    values: F64
    readable: Mask
    status: U8


class Finding(NamedTuple):
    """What a detector found, row by row: `severity` is a rank, read where `breach`. One number stands for all rows."""

    breach: Mask
    severity: NDArray[Any] | int
    clear: Mask
    value: F64
    limit: F64 | float
    usual: F64 | float = NOTHING


class View:
    """One block of one stream, for all detectors; what several need is computed once and shared."""

    __slots__ = (
        "_computed",
        "_inputs",
        "_row",
        "_row_status",
        "block",
        "constants",
        "flags",
        "layout",
        "math",
        "n",
        "shared",
        "single",
        "state",
        "subject",
        "total",
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
        self.constants: Constants = constants  # type: ignore[assignment]
        self.subject = ""
        self.shared: dict[str, Any] = {}
        """What a detector keeps for its other subjects in this block."""
        self._inputs: dict[str | tuple[str, str], Input] = {}
        self._computed: dict[tuple[str, str], F64] = {}
        self.math: BlockMath = ROW_MATH if self.single else BLOCK_MATH
        self.update: I64
        self.whole: Mask | None
        """Rows of complete updates; None when all are."""
        if self.single:
            self._row: list[float] = block.values[:, 0].tolist()
            self._row_status: bytes = block.status.tobytes()
            self.total = sum(self._row)
            """Finite only where every value is: what was not measured is 0, and float32 values cannot overflow it."""
            self.update = int(block.update[0])  # type: ignore[assignment]
            self.flags = int(block.flags[0])
            """Those of the one row."""
            self.whole = False if self.flags & PARTIAL else None  # type: ignore[assignment]
        else:
            self.update = block.update
            partial = (block.flags & PARTIAL) != 0
            self.whole = ~partial if partial.any() else None

    @property
    def row(self) -> tuple[list[float], bytes]:
        """Values and statuses of the one row."""
        return self._row, self._row_status

    def input(self, name: str) -> Input:
        """A signal of the present subject; of the whole where the registry does not take it per subject."""
        key: Any
        if self.subject and name in PER_SUBJECT:
            key = (name, self.subject)
            found = self._inputs.get(key)
            if found is not None:
                return found
            place = self.layout.index.get(key)
        else:
            key = name
            found = self._inputs.get(key)
            if found is not None:
                return found
            place = self.layout.places.get(key)
        if self.single:
            if place is None:
                found = _ABSENT_ROW._replace(name=name)
            else:
                value, status = self._row[place], self._row_status[place]
                found = Input(name, value, status == 0 and value == value, status)  # type: ignore[arg-type]  # noqa: PLR0124 (NaN; half the cost of math.isnan)
        elif place is None:
            constants = self.constants
            found = Input(name, constants.number(0.0), constants.never, constants.integer(NOT_SENT))  # type: ignore[arg-type]
        else:
            values, status_row = self.block.values[place].astype(np.float64), self.block.status[place]
            found = Input(name, values, (status_row == 0) & ~np.isnan(values), status_row)
        self._inputs[key] = found
        return found

    def usable(self, given: Input) -> Mask:
        """The rows of a signal that may teach: measured, finite, of a complete update."""
        if self.single:
            return given.readable and self.whole is None and math.isfinite(given.values)  # type: ignore[return-value]
        usable = given.readable & self.math.finite(given.values)
        return usable if self.whole is None else usable & self.whole

    def computed(self, name: str) -> F64:
        """A series that is computed from signals, of the present subject."""
        found = self._computed.get((name, self.subject))
        if found is None:
            compute = series_of(name).compute
            assert compute is not None, "only such are asked for"
            found = self.compute((name, self.subject), compute)
        return found

    def compute(self, key: tuple[str, str], compute: Callable[[View], F64]) -> F64:
        """A series of a subject; what was computed for another series already is not computed again."""
        found = self._computed.get(key)
        if found is None:
            before, self.subject = self.subject, key[1]
            if self.single:
                found = compute(self)
            else:
                with np.errstate(all="ignore"):
                    found = compute(self)
            self._computed[key] = found
            self.subject = before
        return found

    def each(self, usable: Mask, *columns: F64, step: Callable[..., T], skip: Callable[[], T]) -> list[T]:
        """`step` of the numbers of each usable row, `skip` of the others, in order: for what remembers row by row."""
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        if usable.all():
            return [step(*row) for row in rows]
        return [step(*row) if good else skip() for good, row in zip(usable.tolist(), rows, strict=True)]

    def slopes(self, name: str) -> F64:
        """Slope of a signal of the present subject over the last updates, f64[n], NaN where not known."""
        given = self.input(name)
        usable = self.usable(given)
        trend = self.state.memory(Trend, name, self.subject)
        if self.single:
            return trend.slope(self.update, given.values) if usable else NOTHING  # type: ignore[arg-type, return-value]
        slopes = np.full(self.n, np.nan)
        if usable.any():
            slopes[usable] = trend.slopes(self.block.update[usable], given.values[usable])
        return slopes

    def by_progress(self, borders: Sequence[tuple[int, int]], limits: Sequence[float]) -> F64:
        """Limit of the phase of each update: `limits` before each border, a (part, whole) of `updates_total`, and after.

        Whole numbers throughout, so that an update on a border is always behind it. An update beyond `updates_total` is
        in the last phase. Only where progress is known.
        """
        assert self.updates_total is not None, "progress is known"
        if self.single:
            for (part, whole), limit in zip(borders, limits, strict=False):
                if self.update * whole < self.updates_total * part:
                    return limit  # type: ignore[return-value]
            return limits[-1]  # type: ignore[return-value]
        chosen: Any = limits[-1]
        for place in range(len(borders) - 1, -1, -1):
            part, whole = borders[place]
            chosen = self.math.where(self.update * whole < self.updates_total * part, limits[place], chosen)
        return chosen  # type: ignore[no-any-return]

    def answer(
        self,
        rule: Rule,
        inputs: Sequence[Input],
        found: Finding,
        learning: tuple[Mask, int | str] | None = None,
        *,
        invariant: bool = False,
        note: str = "",
        blind: str = "",
    ) -> Verdicts:
        """Verdicts of one subject. A breach that the readable inputs prove stands; else an unreadable one makes it blind.

        `learning` marks the rows without a baseline and says how much is learned (a count, or in words). Only an `invariant`
        judges an update that was cut short. `note` is the reason given where the detector is neither blind nor learning;
        `blind` why it cannot judge at all.
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
            reason = learning_words(learning[1])
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

    def _answer_row(  # noqa: PLR0917 (by position: keywords cost a tenth of a check)
        self,
        rule: Rule,
        inputs: Sequence[Input],
        found: Finding,
        learning: tuple[Mask, int | str] | None,
        invariant: bool,
        note: str,
        blind: str,
    ) -> Verdicts:
        if found.breach and not blind and (invariant or self.whole is None):
            severity: Any
            value: Any
            limit: Any
            usual: Any
            _, severity, _, value, limit, usual = found
            stage = (rule.stage_order,)
            kind, subject, breach = rule.kind, self.subject, CODES[BREACH]
            return Verdicts(kind, subject, breach, (severity,), (value,), (limit,), (usual,), _EARLY_ROW, stage, note)
        return self.calm(rule, inputs, found.clear, learning, invariant=invariant, note=note, blind=blind)

    def calm(
        self,
        rule: Rule,
        inputs: Sequence[Input],
        clear: Mask,
        learning: tuple[Mask, int | str] | None = None,
        *,
        invariant: bool = False,
        note: str = "",
        blind: str = "",
    ) -> Verdicts:
        """`answer` for one row that is known to be no breach: the numbers, which nobody reads then, are spared."""
        code, reason = CLEAR if clear else HOLD, note
        if self.whole is not None and not invariant:
            code, reason = BLIND, CUT_SHORT
        elif blind:
            code, reason = BLIND, blind
        else:
            for given in inputs:
                if not given.readable:
                    code, reason = BLIND, self._blind_reason(inputs, rule)
                    break
            else:
                if learning is not None and learning[0]:
                    code, reason = LEARNING, learning_words(learning[1])
        return self.calm_row(rule.kind, code, reason)

    def calm_row(self, kind: str, code: int, reason: str = "") -> Verdicts:
        """The verdict of one row that is no breach. They repeat, so they are kept (a bounded few)."""
        known = self.layout.calm
        found = known.get((kind, self.subject, code, reason))
        if found is None:
            if len(known) >= CALM_MAX:
                known.clear()
            key, said = (kind, self.subject, code, reason), CODES[code]
            found = Verdicts(kind, self.subject, said, _ZERO_ROW, _NAN_ROW, _NAN_ROW, _NAN_ROW, _EARLY_ROW, _ZERO_ROW, reason)
            known[key] = found
        return found

    def progress_note(self) -> str:
        """What to say where progress contradicts itself."""
        total, last = self.updates_total, self.update if self.single else self.update[-1]
        return f"update {last} is beyond updates_total {total}" if total is not None and last >= total else ""

    def _blind_reason(self, inputs: Sequence[Input], rule: Rule) -> str:
        """Why the last row cannot be judged, and the line to add; about the first input at fault."""
        for given in inputs:
            last = int(given.status if self.single else given.status[-1])
            readable = bool(given.readable if self.single else given.readable[-1])
            if not readable:
                key = (rule.kind, given.name, last, readable)
                reason = self.layout.reasons.get(key)
                if reason is None:
                    reason = self.layout.reasons[key] = blind_reason(given.name, last, rule.need(given.name))
                return reason
        return "not judged"


_EARLY_ROW, _ZERO_ROW, _NAN_ROW = (EARLY,), (0,), (NOTHING,)
_ABSENT_ROW = Input("", 0.0, False, NOT_SENT)  # type: ignore[arg-type]
