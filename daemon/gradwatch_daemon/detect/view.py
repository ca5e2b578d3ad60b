"""What a detector sees of one block: inputs with their status, scores against the baseline, and how it answers.

A finite check always precedes a comparison here: NaN compares as False, and a detector built on that calls it healthy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from gradwatch_contracts.columns import STATUS_REASON, RowFlag, Status
from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.detect.baseline import LEARNED, Scale
from gradwatch_daemon.detect.trend import Trend
from gradwatch_daemon.records import F32, F64, I64, U8, SignalKey, Verdict, Verdicts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gradwatch_contracts.control import Severity
    from gradwatch_daemon.detect.state import StreamState
    from gradwatch_daemon.records import SignalBlock
    from gradwatch_daemon.rules import Need, Rule

Mask = NDArray[np.bool_]
T = TypeVar("T")
D = TypeVar("D", bound=np.generic)

CLEAR, HOLD, BREACH, LEARNING, BLIND = (np.uint8(verdict) for verdict in Verdict)
NOT_SENT = 255
"""`Input.status` of a signal that is not in the rows at all."""


class Input(NamedTuple):
    """One signal over the block. `readable` is measured and not NaN (infinite is readable)."""

    name: str
    values: F32
    readable: Mask
    status: U8


class Scores(NamedTuple):
    """Scores of one signal: f64[n] each, NaN while learning or where unreadable; `learned` values known at the end."""

    z: F64
    usual: F64
    limit: F64
    learned: int


class Finding(NamedTuple):
    """What a detector found, row by row: `severity` u8[n] is a rank, read where `breach`; the numbers are f64[n]."""

    breach: Mask
    severity: U8
    clear: Mask
    value: F64
    limit: F64
    usual: F64


class Constants:
    """Read-only arrays of one length that every block of that length shares: making them was half of a single check."""

    __slots__ = ("_limits", "_ranks", "_stages", "absent", "early", "never", "nothing")

    def __init__(self, n: int) -> None:
        self.nothing: F64 = _frozen(np.full(n, np.nan))
        """No number."""
        self.early: I64 = _frozen(np.full(n, -1, np.int64))
        """Before the first minibatch, or not known where."""
        self.never: Mask = _frozen(np.zeros(n, np.bool_))
        self.absent: U8 = _frozen(np.full(n, NOT_SENT, np.uint8))
        self._limits: dict[float, F64] = {}
        self._ranks: dict[Severity, U8] = {}
        self._stages: dict[int, I64] = {}

    def limit(self, value: float) -> F64:
        """One number for every row."""
        if value not in self._limits:
            self._limits[value] = _frozen(np.full(len(self.nothing), value))
        return self._limits[value]

    def rank(self, severity: Severity) -> U8:
        """The rank of a severity for every row."""
        if severity not in self._ranks:
            self._ranks[severity] = _frozen(np.full(len(self.nothing), severity.rank, np.uint8))
        return self._ranks[severity]

    def stage(self, order: int) -> I64:
        """The causal order of a stage for every row."""
        if order not in self._stages:
            self._stages[order] = _frozen(np.full(len(self.nothing), order, np.int64))
        return self._stages[order]


def _frozen(array: NDArray[D]) -> NDArray[D]:
    array.setflags(write=False)
    return array


class Layout:
    """Where each signal of a tuple of signals stands, and what detectors worked out from it. One per tuple."""

    __slots__ = ("index", "plans", "signals", "subjects")

    def __init__(self, signals: tuple[SignalKey, ...]) -> None:
        self.signals = signals
        self.index = {key: place for place, key in enumerate(signals)}
        self.subjects: dict[str, tuple[str, ...]] = {}
        for name, subject in signals:
            self.subjects[name] = (*self.subjects.get(name, ()), subject)
        self.plans: dict[str, object] = {}

    def plan(self, name: str, build: Callable[[tuple[SignalKey, ...]], T]) -> T:
        """What `build` makes of the signals, once."""
        if name not in self.plans:
            self.plans[name] = build(self.signals)
        return cast("T", self.plans[name])


class View:
    """One block of one stream, for all detectors; what several need is computed once and shared."""

    __slots__ = (
        "_at_best",
        "_inputs",
        "_measured",
        "_readable",
        "_scores",
        "block",
        "constants",
        "layout",
        "n",
        "state",
        "subject",
        "updates_total",
        "whole",
    )

    def __init__(
        self, block: SignalBlock, layout: Layout, constants: Constants, state: StreamState, updates_total: int | None
    ) -> None:
        self.block = block
        self.layout = layout
        self.constants = constants
        self.state = state
        self.updates_total = updates_total
        self.n = len(block)
        partial = (block.flags & RowFlag.PARTIAL) != 0
        self.whole: Mask | None = ~partial if partial.any() else None
        """Rows of complete updates; None when all are."""
        self.subject = ""
        self._measured: Mask = block.status == 0
        self._readable: Mask = self._measured & ~np.isnan(block.values)
        self._inputs: dict[SignalKey, Input] = {}
        self._scores: dict[SignalKey, Scores] = {}
        self._at_best: Mask | None = None

    @property
    def measured(self) -> Mask:
        """Which value of the block was measured, bool[signals, n]."""
        return self._measured

    def input(self, name: str) -> Input:
        """A signal of the present subject; of the whole where the registry does not take it per subject."""
        key = self._key(name)
        found = self._inputs.get(key)
        if found is None:
            found = self._inputs[key] = self._read(key)
        return found

    def _key(self, name: str) -> SignalKey:
        return SignalKey(name, self.subject if self.subject and SIGNALS[name].spec.per else "")

    def _read(self, key: SignalKey) -> Input:
        place = self.layout.index.get(key)
        if place is None:
            return Input(key.name, np.zeros(self.n, np.float32), self.constants.never, self.constants.absent)
        return Input(key.name, self.block.values[place], self._readable[place], self.block.status[place])

    def scores(self, name: str, scale: Scale) -> Scores:
        """Scores of a signal against its baseline, which learns from the block's complete updates."""
        given, usable = self._usable(name)
        return self.scores_of(self._key(name), scale, given.values.astype(np.float64), usable)

    def scores_of(self, key: SignalKey, scale: Scale, values: F64, usable: Mask) -> Scores:
        """Scores of any series under a key of its own; rows that are not `usable` neither score nor teach."""
        found = self._scores.get(key)
        if found is None:
            step = (baseline := self.state.baseline(key, scale)).step
            rows = np.flatnonzero(usable)
            every = np.full((3, self.n), np.nan)
            if len(rows):
                scored = [step(u, x) for u, x in zip(self.block.update[rows].tolist(), values[rows].tolist(), strict=True)]
                every[:, rows] = np.array(scored).T
            found = self._scores[key] = Scores(every[0], every[1], every[2], baseline.learned)
        return found

    def slopes(self, name: str) -> F64:
        """Slope of a signal of the present subject over the last updates, f64[n], NaN where not known."""
        given, usable = self._usable(name)
        rows = np.flatnonzero(usable)
        slopes = np.full(self.n, np.nan)
        trend = self.state.trends.setdefault(self._key(name), Trend())
        if len(rows):
            slopes[rows] = trend.slopes(self.block.update[rows], given.values[rows].astype(np.float64))
        return slopes

    def at_best_return(self) -> Mask:
        """Rows at which the run's return is known to stand at its own best and not to fall."""
        if self._at_best is None:
            given, usable = self._usable("episode.return.mean")
            self._at_best = self.state.best.near(given.values.astype(np.float64), usable)
        return self._at_best

    def _usable(self, name: str) -> tuple[Input, Mask]:
        """A signal, and the rows that may teach: measured, finite, of a complete update."""
        given = self.input(name)
        usable = given.readable & np.isfinite(given.values)
        return given, usable if self.whole is None else usable & self.whole

    def answer(
        self,
        rule: Rule,
        inputs: Sequence[Input],
        found: Finding,
        learning: tuple[Mask, int] | None = None,
        *,
        invariant: bool = False,
        note: str = "",
    ) -> Verdicts:
        """Verdicts of one subject. A breach that the readable inputs prove stands; else an unreadable one makes it blind.

        `learning` marks the rows without a baseline and says how much is learned. Only an `invariant` judges an update
        that was cut short. `note` is the reason given where the detector is neither blind nor learning.
        """
        readable = inputs[0].readable
        for given in inputs[1:]:
            readable = readable & given.readable
        code = np.where(found.clear, CLEAR, HOLD)
        if learning is not None:
            code[learning[0]] = LEARNING
        code[~readable] = BLIND
        code[found.breach] = BREACH
        whole = None if invariant else self.whole
        if whole is not None:
            code[~whole] = BLIND
        reason = note
        if code[-1] == BLIND:
            reason = _blind_reason(inputs, rule) if whole is None or whole[-1] else "the last update was cut short"
        elif code[-1] == LEARNING and learning is not None:
            reason = f"{min(learning[1], LEARNED)} of {LEARNED} updates to learn from"
        return Verdicts(
            kind=rule.kind,
            subject=self.subject,
            code=code,
            severity=found.severity,
            value=found.value,
            limit=found.limit,
            baseline=found.usual,
            minibatch=self.constants.early,
            stage=self.constants.stage(rule.stage_order),
            reason=reason,
        )


def _blind_reason(inputs: Sequence[Input], rule: Rule) -> str:
    """Why the last row cannot be judged, and the line to add; about the first input at fault."""
    for given in inputs:
        need, last = rule.need(given.name), int(given.status[-1])
        if last == NOT_SENT:
            return f"{given.name} is not sent: {need.add}"
        if last != Status.MEASURED:
            return f"{given.name}: {STATUS_REASON[Status(last)]}{_remedy(Status(last), need)}"
        if not given.readable[-1]:
            return f"{given.name} is NaN, so it compares with nothing"
    return "not judged"


def _remedy(status: Status, need: Need) -> str:
    if status is Status.NOT_CALLED:
        return f"; {need.add}"
    if status is Status.LEVEL:
        return "; raise the level to normal"
    return f"; {need.undefined}" if status is Status.UNDEFINED and need.undefined else ""
