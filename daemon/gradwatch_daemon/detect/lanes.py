"""What the rules of a profile compare, laid out as index arrays: so that all of them are judged at once, whatever their number.

A lane is one rule on one subject, made of parts, made of tests. A test compares one column of the operands (a signal's value,
or a measure of a tracked series) with a limit; "<" is ">" of the negatives, so that one comparison does for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gradwatch_daemon.detect.series import series_of
from gradwatch_daemon.records.rules import RELATIVE, Measure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gradwatch_daemon.detect.layout import Layout
    from gradwatch_daemon.records import F64, I64
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


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """One rule on one subject: its parts from `first` to `last`, gravest first. `needs` are (column, signal)."""

    rule: Rule
    subject: str
    first: int
    last: int
    shown: tuple[Shown, ...]
    needs: tuple[tuple[int, str], ...]
    learns: tuple[int, ...]
    """Columns of the board without which it is learning, or, where it has parts that need none, judges less."""
    relative: bool
    """Whether its main part, the first declared, cannot judge without them."""
    notes: tuple[tuple[int, str], ...]
    """Columns of optional signals and what to say while they are missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The lanes of a layout, and the arrays they are judged with. `signals` and `series` say what the operands are."""

    columns: int
    signals: I64
    computed: tuple[tuple[int, Key], ...]
    lanes: tuple[Lane, ...]
    operands: I64
    sign: F64
    at: F64
    back: F64
    inverted: np.ndarray
    part_starts: I64
    lane_starts: I64
    need_columns: I64
    need_starts: I64
    void: np.ndarray
    learn_columns: I64
    learn_starts: I64
    invariant: np.ndarray
    relative: np.ndarray
    progress: bool


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


def make_plan(layout: Layout, keys: Sequence[tuple[str, str]], rules: Iterable[tuple[Rule, Sequence[str]]]) -> Plan:
    """Lay out the rules with parts, each with its subjects, over a board with these `keys`."""
    columns = _Columns(layout, keys)
    lanes: list[Lane] = []
    tests: list[tuple[int, Threshold, bool]] = []
    part_sizes: list[int] = []
    needs: list[tuple[int, bool]] = []
    for rule, subjects in rules:
        for subject in subjects:
            parts = sorted((p for p in rule.parts if p.subject in ("", subject)), key=lambda p: -p.severity.rank)
            first = len(part_sizes)
            for part in parts:
                of = [(columns.operand(t, subject), t, False) for t in map(rule.threshold, part.of)]
                unless = [(columns.operand(t, subject), t, True) for t in map(rule.threshold, part.unless)]
                tests += of + unless
                part_sizes.append(len(of) + len(unless))
            lane = _lane(rule, subject, parts, first, columns)
            lanes.append(lane)
    for lane in lanes:
        void = {need.signal for need in lane.rule.needs if need.void}
        needs += [(column, name in void) for column, name in lane.needs] or [(columns.signals + PRESENT, False)]
    at = [(t.at if t.op == ">" else -t.at) for _, t, _ in tests]
    back = [(t.back if t.op == ">" else -t.back) for _, t, _ in tests]
    for place, (_, _, inverted) in enumerate(tests):
        back[place] = at[place] if inverted else back[place]
    learns = [column for lane in lanes for column in lane.learns or (0,)]
    return Plan(
        len(keys),
        np.array([_source(columns, Key(*key)) for key in keys], np.int64),
        tuple((place, Key(*key)) for place, key in enumerate(keys) if series_of(key[0]).compute is not None),
        tuple(lanes),
        np.array([column for column, _, _ in tests], np.int64),
        np.array([1.0 if t.op == ">" else -1.0 for _, t, _ in tests]),
        np.array(at),
        np.array(back),
        np.array([inverted for _, _, inverted in tests], np.bool_),
        _starts(part_sizes),
        np.array([lane.first for lane in lanes], np.int64),
        np.array([column for column, _ in needs], np.int64),
        _starts([max(len(lane.needs), 1) for lane in lanes]),
        np.array([void for _, void in needs], np.bool_),
        np.array(learns, np.int64),
        _starts([max(len(lane.learns), 1) for lane in lanes]),
        np.array([lane.rule.invariant for lane in lanes], np.bool_),
        np.array([lane.relative for lane in lanes], np.bool_),
        any(t.measure is Measure.PROGRESS for _, t, _ in tests),
    )


def _source(columns: _Columns, key: Key) -> int:
    return columns.signal(series_of(key.series).signal, key.subject)


def _starts(sizes: Sequence[int]) -> I64:
    return np.array([0, *accumulate(sizes)][:-1], np.int64)


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
        (columns.signal(need.signal, subject), need.signal)
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
