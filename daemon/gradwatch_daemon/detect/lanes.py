"""What the rules of a profile compare, laid out as index arrays: so that all of them are judged at once, whatever their number.

A lane is one rule on one subject, made of parts, made of tests. A test compares one column of the operands (a signal's value,
or a measure of a tracked series) with a limit; "<" is ">" of the negatives, so that one comparison does for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gradwatch_daemon.detect.guards import Compared, Guards
from gradwatch_daemon.detect.series import series_of
from gradwatch_daemon.records.rules import RELATIVE, Measure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from gradwatch_daemon.detect.layout import Layout
    from gradwatch_daemon.detect.series import Compute
    from gradwatch_daemon.records import F64, I64, Verdicts
    from gradwatch_daemon.records.rules import Part, Rule, Threshold

ABSENT, PRESENT = -2, -1
"""Columns behind the signals' own: one that is never readable, one that always is."""

SCORED = (Measure.VALUE, Measure.Z, Measure.TIMES, Measure.USUAL, Measure.FIRST, Measure.UP, Measure.DOWN)
"""Blocks of operands behind the signals, one column per series each; then the updates seen and the progress."""


class Key(NamedTuple):
    """One column of the board: a series and the subject it is taken of ('' where the registry does not take it per subject)."""

    series: str
    subject: str


def tracked(rule: Rule) -> tuple[str, ...]:
    """Names of the series that a rule's thresholds are about."""
    named = (t.series or t.signal for t in rule.thresholds if t.series or t.measure in RELATIVE)
    return tuple(dict.fromkeys(named))


@dataclass(frozen=True, slots=True)
class Shown:
    """What the verdict of a part shows: columns of `operands` for value and usual (-1 for none), and its limits.

    A limit is (measure, number, column of the board); the narrowest of them is the one that decided. `about` is the place of
    the threshold whose words the sentence uses.
    """

    value: int
    usual: int
    largest: bool
    limits: tuple[tuple[Measure, float, int], ...]
    about: int
    rank: int


class Test(NamedTuple):
    """One threshold of a part: the operand times `sign` above `at`, or not, where it is `inverted`; `back` for what is held."""

    operand: int
    sign: float
    at: float
    back: float
    inverted: bool


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """One rule on one subject: its parts from `first` to `last`, gravest first. `needs` are (column, signal, void)."""

    rule: Rule
    subject: str
    first: int
    last: int
    shown: tuple[Shown, ...]
    needs: tuple[tuple[int, str, bool], ...]
    learns: tuple[int, ...]
    """Columns of the board without which it is learning, or, where it has parts that need none, judges less."""
    relative: bool
    """Whether its main part, the first declared, cannot judge without them."""
    notes: tuple[tuple[int, str], ...]
    """Columns of optional signals and what to say while they are missing."""


class Calm(NamedTuple):
    """What is said of a row in which no part holds: verdicts by kind, and the codes of the lanes."""

    by_kind: dict[str, list[Verdicts]]
    codes: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The lanes of a layout, and the arrays they are judged with. `signals` and `series` say what the operands are.

    `table`, `sign`, `loose` and `inverted` are of the tests of all parts, [tests of a part, parts], filled up with one that
    always holds; `loose` is the wider of a test's two limits: where it does not hold, neither breach nor hold is possible.
    `learns` are the columns without which a lane judges less. `calm` remembers verdicts of calm rows: streams of one schema
    share them.
    """

    columns: int
    signals: I64
    sources: I64
    computed: tuple[tuple[int, Key, Compute], ...]
    lanes: tuple[Lane, ...]
    parts: tuple[tuple[Test, ...], ...]
    lane_of: tuple[int, ...]
    table: I64
    sign: F64
    loose: F64
    inverted: NDArray[np.bool_]
    learns: I64
    guards: Guards
    calm: dict[tuple[object, ...], Calm]


class _Columns:
    """Where operands stand: signals first, then the measures of each column of the board."""

    def __init__(self, layout: Layout, keys: Sequence[tuple[str, str]]) -> None:
        self.layout = layout
        self.signals = len(layout.signals) + 2
        self.place = {key: place for place, key in enumerate(keys)}
        self.rows = self.signals + len(SCORED) * len(keys)

    def signal(self, name: str, subject: str) -> int:
        """Column of a signal; that of the whole where it is not taken per subject."""
        found = self.layout.index.get((name, subject if self.layout.per_subject(name) else ""))
        return self.signals + ABSENT if found is None else found

    def series(self, name: str, subject: str) -> int:
        """Column of the board, -1 for what is not tracked."""
        return self.place.get((name, subject if self.layout.per_subject(series_of(name).signal) else ""), -1)

    def operand(self, threshold: Threshold, subject: str) -> int:
        """Column of what a threshold is compared with."""
        if threshold.measure is Measure.ROWS:
            return self.rows
        if threshold.measure is Measure.PROGRESS:
            return self.rows + 1
        if not threshold.series and threshold.measure is Measure.VALUE:
            return self.signal(threshold.signal, subject)
        block = SCORED.index(threshold.measure)
        return self.signals + block * len(self.place) + self.series(threshold.series or threshold.signal, subject)

    def compared(self, test: Test, sources: Sequence[int]) -> Compared:
        """What a test compares; `sources` are the places of the plain numbers that the columns of the board are about."""
        if test.operand < self.signals:
            return Compared(test, Measure.VALUE, -1, test.operand)
        if test.operand >= self.rows:
            measure = Measure.ROWS if test.operand == self.rows else Measure.PROGRESS
            return Compared(test, measure, -1, self.signals + test.operand - self.rows)
        block, column = divmod(test.operand - self.signals, len(self.place))
        return Compared(test, SCORED[block], column, sources[column])


def make_plan(layout: Layout, keys: Sequence[tuple[str, str]], rules: Iterable[tuple[Rule, Sequence[str]]]) -> Plan:
    """Lay out the rules with parts, each with its subjects, over a board with these `keys`."""
    columns = _Columns(layout, keys)
    lanes: list[Lane] = []
    tests: list[tuple[Test, ...]] = []
    lane_of: list[int] = []
    for rule, subjects in rules:
        for subject in subjects:
            parts = sorted((p for p in rule.parts if p.subject in ("", subject)), key=lambda p: -p.severity.rank)
            lane_of += [len(lanes)] * len(parts)
            lanes.append(_lane(rule, subject, parts, len(tests), columns))
            tests += [_tests(rule, part, subject, columns) for part in parts]
    always = Test(columns.signals + PRESENT, 1.0, -1.0, -1.0, inverted=False)
    deepest = max(map(len, tests), default=0)
    table = [[part[depth] if depth < len(part) else always for part in tests] for depth in range(deepest)]
    sources = [_source(columns, Key(*key)) for key in keys]
    computed = tuple(
        (place, Key(*key), compute) for place, key in enumerate(keys) if (compute := series_of(key[0]).compute) is not None
    )
    places = {column: columns.signals + 2 + place for place, (column, _, _) in enumerate(computed)}
    plain = [places.get(column, source) for column, source in enumerate(sources)]
    return Plan(
        len(keys),
        np.array(sources, np.int64),
        np.array(plain, np.int64),
        computed,
        tuple(lanes),
        tuple(tests),
        tuple(lane_of),
        np.array([[test.operand for test in row] for row in table], np.int64).reshape(deepest, len(tests)),
        np.array([[test.sign for test in row] for row in table]).reshape(deepest, len(tests)),
        np.array([[min(test.at, test.back) for test in row] for row in table]).reshape(deepest, len(tests)),
        np.array([[test.inverted for test in row] for row in table], np.bool_).reshape(deepest, len(tests)),
        np.array(sorted({column for lane in lanes for column in lane.learns}), np.int64),
        Guards([[columns.compared(test, plain) for test in part] for part in tests], keys, columns.signals, computed),
        {},
    )


def _tests(rule: Rule, part: Part, subject: str, columns: _Columns) -> tuple[Test, ...]:
    found = []
    for inverted, keys in ((False, part.of), (True, part.unless)):
        for threshold in map(rule.threshold, keys):
            sign = 1.0 if threshold.op == ">" else -1.0
            at, back = sign * threshold.at, sign * (threshold.at if inverted else threshold.back)
            found.append(Test(columns.operand(threshold, subject), sign, at, back, inverted))
    return tuple(found)


def _source(columns: _Columns, key: Key) -> int:
    return columns.signal(series_of(key.series).signal, key.subject)


def _lane(rule: Rule, subject: str, parts: Sequence[Part], first: int, columns: _Columns) -> Lane:
    main = next(part for part in rule.parts if part.subject in ("", subject))
    relative = any(rule.threshold(key).measure in RELATIVE for key in main.of)
    named = dict.fromkeys(key for part in ([main] if relative else parts) for key in part.of)
    thresholds = [rule.threshold(key) for key in named]
    series = dict.fromkeys(
        columns.series(t.series or t.signal, subject)
        for t in thresholds
        if t.measure in RELATIVE and series_of(t.series or t.signal).stride == 1
    )
    needs = tuple(
        (columns.signal(need.signal, subject), need.signal, need.void)
        for need in rule.needs
        if not need.optional and need.subject in ("", subject)
    )
    shown = tuple(_shown(rule, part, subject, columns) for part in parts)
    notes = tuple((columns.signal(need.signal, subject), need.without) for need in rule.needs if need.without)
    stand_ins = {need.signal: columns.layout.stands_in.get(need.signal) for need in rule.needs}
    notes += tuple(
        (columns.signals + ABSENT, f"judges {other} in place of {name}, which is not sent")
        for name, other in stand_ins.items()
        if other
    )
    return Lane(rule, subject, first, first + len(parts), shown, needs, tuple(series), relative, notes)


def _shown(rule: Rule, part: Part, subject: str, columns: _Columns) -> Shown:
    lead = rule.threshold(part.of[0])
    name = lead.series or lead.signal
    alike = [t for t in map(rule.threshold, part.of) if (t.series or t.signal, t.op) == (name, lead.op)]
    column = columns.series(name, subject) if name else -1
    if name and not lead.series:
        value = columns.signal(lead.signal, subject)
    else:
        value = columns.signals + column if name else columns.operand(lead, subject)
    return Shown(
        value,
        column,
        lead.op == ">",
        tuple((t.measure, t.limit, column) for t in alike),
        rule.thresholds.index(lead),
        part.severity.rank,
    )
