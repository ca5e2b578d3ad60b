"""The columns of several ranks as those of the whole run, each by the rank rule it declares.

Exact because columns are mergeable reductions: the moments of the ranks' shares of a batch merge into the moments of the batch
(Chan, Golub and LeVeque, 1979). No rank waits for another and none takes part in a collective of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gradwatch_contracts.columns import WIDTH, RankRule, RowFlag, Schema, Status, merge
from gradwatch_daemon.records import ALL_RANKS, RowBlock, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_contracts.columns import Column, Kind
    from gradwatch_daemon.records import F64, I64, U8

Mask = NDArray[np.bool_]

EQUAL_TOLERANCE = 1e-6
"""Relative. Each rank computes what must be equal from the same numbers: float64 sums in another order differ by 1e-15."""


@dataclass(frozen=True, slots=True, eq=False)
class RankRow:
    """One rank's row of one update: `values` f64[slots] and `status` u8[columns] of its schema."""

    rank: int
    schema: Schema
    update: int
    t_ns: int
    env_steps: int
    level: int
    flags: int
    values: F64
    status: U8
    differing: tuple[str, ...] = ()
    """Of a combined row: the columns that must be equal on all ranks and are not."""


def rows_of(block: RowBlock) -> list[RankRow]:
    """The rows of a block, one by one."""
    shared = (block.update, block.t_ns, block.env_steps, block.level, block.flags)
    columns = zip(*(column.tolist() for column in shared), block.values, block.status, strict=True)
    return [RankRow(block.stream.rank, block.schema, *row) for row in columns]


def block_of(rows: Sequence[RankRow], run: str, attempt: int) -> RowBlock:
    """Combined rows of one schema as a block of the run as a whole."""
    return RowBlock(
        Stream(run, attempt, ALL_RANKS),
        "",
        (-1, -1),
        rows[0].schema,
        np.array([row.update for row in rows], np.int64),
        np.array([row.t_ns for row in rows], np.int64),
        np.array([row.env_steps for row in rows], np.int64),
        np.array([row.level for row in rows], np.uint8),
        np.array([row.flags for row in rows], np.uint8),
        np.stack([row.values for row in rows]),
        np.stack([row.status for row in rows]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Where the slots and the columns of one rank's schema go, and where they are."""

    slots_to: I64
    slots_from: I64
    columns_to: I64
    columns_from: I64


class Combination:
    """How rows of given schemas, one a rank, become one. Columns of rule `none` stay with their rank."""

    __slots__ = ("_groups", "_places", "_widths", "schema")

    def __init__(self, schemas: Sequence[Schema]) -> None:
        united: dict[tuple[str, str], Column] = {}
        for schema in schemas:
            for column in schema.columns:
                united.setdefault(column.key, column)
        self.schema = Schema.of(column for column in united.values() if column.rank_rule is not RankRule.NONE)
        self._places = [self._find(schema) for schema in schemas]
        groups: dict[tuple[Kind, RankRule], list[int]] = {}
        for place, column in enumerate(self.schema.columns):
            groups.setdefault((column.kind, column.rank_rule), []).append(place)
        offsets = np.array(self.schema.offsets, np.int64)
        self._groups = [(kind, rule, np.array(m), offsets[m]) for (kind, rule), m in groups.items()]
        self._widths = [WIDTH[column.kind] for column in self.schema.columns]

    def _find(self, schema: Schema) -> _Places:
        known = {column.key: place for place, column in enumerate(self.schema.columns)}
        slots_to: list[int] = []
        slots_from: list[int] = []
        columns: list[tuple[int, int]] = []
        for i, (column, offset) in enumerate(zip(schema.columns, schema.offsets, strict=True)):
            place = known.get(column.key)
            if place is not None and self.schema.columns[place].kind is column.kind:
                columns.append((place, i))
                slots_to.extend(range(self.schema.offsets[place], self.schema.offsets[place] + WIDTH[column.kind]))
                slots_from.extend(range(offset, offset + WIDTH[column.kind]))
        to, of = np.array(columns, np.int64).reshape(-1, 2).T
        return _Places(np.array(slots_to, np.int64), np.array(slots_from, np.int64), to, of)

    def combine(self, rows: Sequence[RankRow], world: int) -> RankRow:
        """One row for the run, of rows in order of rank with the schemas this was made for.

        A column is combined over the ranks that measured it, and keeps the worst status where none did. The flags say whether
        fewer than `world` ranks are in it, and whether ranks differ in what must be equal (then it has the first one's).
        """
        values = np.zeros((len(rows), self.schema.slots))
        status = np.full((len(rows), len(self.schema.columns)), np.uint8(Status.NOT_CALLED))
        for i, (row, places) in enumerate(zip(rows, self._places, strict=True)):
            values[i, places.slots_to] = row.values[places.slots_from]
            status[i, places.columns_to] = row.status[places.columns_from]
        measured = status == 0
        out = np.zeros(self.schema.slots)
        differing: list[str] = []
        with np.errstate(all="ignore"):
            for kind, rule, members, slots in self._groups:
                if rule is RankRule.RANK0:
                    measured[0 if rows[0].rank else 1 :, members] = False
                if rule is RankRule.MERGE:
                    for place, slot in zip(members.tolist(), slots.tolist(), strict=True):
                        part = slice(slot, slot + WIDTH[kind])
                        out[part] = _merge_parts(kind, values[measured[:, place], part])
                elif rule is RankRule.SUM:
                    out[slots] = np.sum(values[:, slots], axis=0, where=measured[:, members])
                elif rule is RankRule.MIN:
                    out[slots] = np.min(values[:, slots], axis=0, where=measured[:, members], initial=np.inf)
                elif rule is RankRule.MAX:
                    out[slots] = np.max(values[:, slots], axis=0, where=measured[:, members], initial=-np.inf)
                else:
                    first = measured[:, members].argmax(axis=0)
                    out[slots] = values[first, slots]
                    if rule is RankRule.EQUAL:
                        agree = _agrees(values[:, slots], out[slots], measured[:, members])
                        differing += [self.schema.columns[place].name for place in members[~agree].tolist()]
        flags = int(np.bitwise_or.reduce([row.flags for row in rows]))
        flags |= RowFlag.RANKS_MISSING if len(rows) < world else 0
        flags |= RowFlag.RANKS_DIFFER if differing else 0
        some = measured.any(axis=0)
        return RankRow(
            ALL_RANKS,
            self.schema,
            rows[0].update,
            max(row.t_ns for row in rows),
            max(row.env_steps for row in rows),
            min(row.level for row in rows),
            flags,
            np.where(np.isinf(out) & ~np.repeat(some, self._widths), 0.0, out),
            np.where(some, np.uint8(0), np.where(status.max(axis=0) == 0, np.uint8(Status.INCOMPLETE), status.max(axis=0))),
            tuple(differing),
        )


def _merge_parts(kind: Kind, parts: F64) -> tuple[float, ...]:
    """Partial columns f64[ranks, width] merged in order of rank; zeros where there is none."""
    found: tuple[float, ...] = (0.0,) * parts.shape[1]
    for place, part in enumerate(parts.tolist()):
        found = merge(kind, found, tuple(part)) if place else tuple(part)
    return found


def _agrees(values: F64, first: F64, measured: Mask) -> Mask:
    """Of each column, whether all that was measured is what the first rank measured; NaN is NaN on all or on none."""
    near = np.abs(values - first) <= EQUAL_TOLERANCE * np.abs(first)
    same = (values == first) | near | (np.isnan(values) & np.isnan(first))
    agree: Mask = (same | ~measured).all(axis=0)
    return agree
