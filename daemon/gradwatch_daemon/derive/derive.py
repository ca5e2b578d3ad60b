"""Columns to signals, vectorised over rows: one pass per formula.

How the columns of a schema become signals is worked out once per schema and kept in the `Deriver`. Signals are rounded
to their storage type here, before detection, so that a replay of stored rows detects on the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gradwatch_contracts.columns import WIDTH, Kind, Status
from gradwatch_contracts.signals import COLUMNS, SIGNALS
from gradwatch_daemon.derive.formulas import FORMULAS, NOTHING, Slots
from gradwatch_daemon.records import F32, F64, SignalBlock, SignalKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_contracts.columns import Schema
    from gradwatch_contracts.signals import Signal
    from gradwatch_daemon.derive.formulas import Formula
    from gradwatch_daemon.records import I64, U8, RowBlock

PLANS_MAX = 256
"""Schemas remembered. A run has a handful (each new head or log key makes one); the oldest is worked out again."""

SMALL_ROWS = 64
"""Blocks below it are derived together; those above pay for themselves, and joining them costs copies."""

F32_MAX = np.finfo(np.float32).max


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One column position of one formula, for all its signals: where each slot of its kind lies, and their status columns."""

    slots: tuple[I64, ...]
    columns: I64


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """All signals of one formula; `rows` are their places in the block."""

    formula: Formula
    rows: I64
    parts: tuple[_Part, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    signals: tuple[SignalKey, ...]
    groups: tuple[_Group, ...]


class Deriver:
    """Derives blocks; remembers the plan of each schema. The same schema gives the same `signals` tuple each time."""

    __slots__ = ("_plans",)

    def __init__(self) -> None:
        self._plans: dict[str, _Plan] = {}

    def derive(self, block: RowBlock) -> SignalBlock:
        """Return the signals of a block: values f32[signals, n], status u8[signals, n].

        A signal's status is the worst (highest) of its columns', or UNDEFINED where its formula is; there the value is
        0. A finite value beyond the range of float32 becomes the largest finite one of its sign.
        """
        plan = self._plan(block.schema)
        return _signals(block, plan, *_derive(plan, block.values, block.status))

    def derive_all(self, blocks: Sequence[RowBlock]) -> list[SignalBlock]:
        """The signals of blocks of any runs, as `derive` gives them, those of one schema derived together: most of what a
        small block costs, 0.6 ms, does not depend on its rows."""
        found: dict[int, SignalBlock] = {}
        together: dict[str, list[int]] = {}
        for place, block in enumerate(blocks):
            if len(block.update) < SMALL_ROWS:
                together.setdefault(block.schema.id, []).append(place)
        for places in together.values():
            if len(places) > 1:
                found.update(zip(places, self._derive_joined([blocks[place] for place in places]), strict=True))
        return [found[place] if place in found else self.derive(block) for place, block in enumerate(blocks)]

    def _derive_joined(self, blocks: list[RowBlock]) -> list[SignalBlock]:
        plan = self._plan(blocks[0].schema)
        values = np.concatenate([block.values for block in blocks])
        derived, status = _derive(plan, values, np.concatenate([block.status for block in blocks]))
        ends = np.cumsum([len(block.update) for block in blocks]).tolist()
        # Copies: a block that is kept must not keep all others.
        return [
            _signals(block, plan, derived[:, first:end].copy(), status[:, first:end].copy())
            for block, first, end in zip(blocks, [0, *ends], ends, strict=False)
        ]

    def _plan(self, schema: Schema) -> _Plan:
        plan = self._plans.get(schema.id)
        if plan is None:
            if len(self._plans) >= PLANS_MAX:
                del self._plans[next(iter(self._plans))]
            plan = self._plans[schema.id] = _make_plan(schema)
        return plan


def _derive(plan: _Plan, values: F64, status: U8) -> tuple[F32, U8]:
    """Values f32[signals, n] and status u8[signals, n] of rows f64[n, slots] and u8[n, columns]."""
    n, count = len(values), len(plan.signals)
    # Turned once: then a slot is one stretch of memory, and so is a signal.
    of_slot, of_column = np.ascontiguousarray(values.T), np.ascontiguousarray(status.T)
    derived, worst_of = np.zeros((count, n), np.float64), np.zeros((count, n), np.uint8)
    undefined = np.zeros((count, n), np.bool_)
    with np.errstate(all="ignore"):
        for group in plan.groups:
            found = group.formula.function(*(_slots(of_slot, part) for part in group.parts))
            derived[group.rows], undefined[group.rows] = found
            worst = of_column[group.parts[0].columns]
            for part in group.parts[1:]:
                worst = np.maximum(worst, of_column[part.columns])
            worst_of[group.rows] = worst
        rounded = _round(derived)
    worst_of[undefined & (worst_of == 0)] = Status.UNDEFINED
    rounded[worst_of != 0] = 0.0
    return rounded, worst_of


def _signals(block: RowBlock, plan: _Plan, values: F32, status: U8) -> SignalBlock:
    return SignalBlock(
        block.stream, block.update, block.t_ns, block.env_steps, block.level, block.flags, plan.signals, values, status
    )


def _slots(of_slot: F64, part: _Part) -> Slots:
    found: list[F64] = [of_slot[places] for places in part.slots]
    return Slots(x=found[0]) if len(found) == 1 else Slots(NOTHING, *found)


def _round(values: F64) -> F32:
    rounded: F32 = values.astype(np.float32)
    saturated = np.isinf(rounded)
    if saturated.any():
        saturated &= np.isfinite(values)
        rounded[saturated] = np.copysign(F32_MAX, values[saturated])
    return rounded


def _make_plan(schema: Schema) -> _Plan:
    """Signals in registry order, subjects in schema order; a column of another kind than the registry's is not used.

    A column of kind `last` with the name of a signal is that signal, as another program computed it; where its own columns
    are there too, they count.
    """
    places = {
        column.key: place
        for place, column in enumerate(schema.columns)
        if column.name in COLUMNS and COLUMNS[column.name].kind is column.kind
    }
    subjects: dict[str, list[str]] = {}
    for name, subject in places:
        subjects.setdefault(name, []).append(subject)
    signals: list[SignalKey] = []
    grouped: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
    ready = _ready(schema)
    for signal in SIGNALS.values():
        for subject in dict.fromkeys((*subjects.get(signal.columns[0], ()), *ready.get(signal.name, ()))):
            how, found = signal.formula, _columns(signal, subject, places)
            if found is None and subject in ready.get(signal.name, ()):
                how, found = "value", (ready[signal.name][subject],)
            if found is not None:
                grouped.setdefault(how, []).append((len(signals), found))
                signals.append(SignalKey(signal.name, subject))
    groups = []
    for name, members in grouped.items():
        formula = FORMULAS[name]
        parts = []
        for place, kind in enumerate(formula.kinds):
            columns = [found[place] for _, found in members]
            first = np.array([schema.offsets[c] for c in columns])
            parts.append(_Part(tuple(first + slot for slot in range(WIDTH[kind])), np.array(columns)))
        groups.append(_Group(formula, np.array([row for row, _ in members]), tuple(parts)))
    return _Plan(tuple(signals), tuple(groups))


def _ready(schema: Schema) -> dict[str, dict[str, int]]:
    """Signal → subject → place of the column that holds it as it is."""
    ready: dict[str, dict[str, int]] = {}
    for place, column in enumerate(schema.columns):
        spec = COLUMNS.get(column.name)
        if column.kind is Kind.LAST and column.name in SIGNALS and (spec is None or spec.kind is not Kind.LAST):
            ready.setdefault(column.name, {})[column.subject] = place
    return ready


def _columns(signal: Signal, subject: str, places: dict[tuple[str, str], int]) -> tuple[int, ...] | None:
    """Places of a signal's columns for one subject, '' standing in where only the whole was sent; None if one is missing."""
    found = []
    for name in signal.columns:
        place = places.get((name, subject), places.get((name, "")))
        if place is None:
            return None
        found.append(place)
    return tuple(found)
