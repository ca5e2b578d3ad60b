"""Rows of the ranks of one attempt wait here for each other. Pure: what is due depends on rows and on who left, on no clock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np

from gradwatch_contracts.columns import Column, Kind, RankRule, RowFlag, Schema
from gradwatch_contracts.errors import ContractError
from gradwatch_daemon.derive.ranks import Combination, RankRow, block_of, rows_of
from gradwatch_daemon.derive.stragglers import Pace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_daemon.records import RowBlock

PATIENCE_UPDATES = 8
"""How far one rank may run ahead before an update is combined without the ranks that have not sent it. Ranks of one run meet in
every all-reduce, so they are never an update apart; what is late by eight is lost, or on a rank that is not watched."""

EXPECTED_MAX = 16_384
"""Ranks that are waited for before they were heard of: a HELLO may claim any world, and a billion of them fit no memory."""

NAMED_MAX = 8
"""Ranks that a sentence names."""

COMBINATIONS_MAX = 64
"""Sets of schemas remembered; a run has one or two."""


class Gathering:
    """The updates of one attempt that are not combined yet.

    An update is due when every rank that is expected has sent it, or when some rank has sent one `PATIENCE_UPDATES` later. All
    ranks are expected at first; one that was not waited for is expected again once it sends. Rows of updates that were combined
    already are counted as `late` and not combined; `failed` counts updates whose columns cannot be combined. `apart` says
    in which of the updates taken last ranks are missing, differ or keep the others waiting, and which.
    """

    def __init__(self, run: str, attempt: int, world: int) -> None:
        self.late = self.failed = 0
        self._run, self._attempt, self._world = run, attempt, world
        self._expected = set(range(min(world, EXPECTED_MAX)))
        self._waiting: dict[int, dict[int, RankRow]] = {}
        self._combined_to = -1
        self._newest = -1
        self._known: dict[tuple[str, ...], Combination] = {}
        self._pace = Pace()
        self.apart: dict[int, str] = {}

    @property
    def waiting(self) -> int:
        """Updates that are not combined yet."""
        return len(self._waiting)

    def put(self, block: RowBlock) -> None:
        """Take in the rows of one rank."""
        rank = block.stream.rank
        self._expected.add(rank)
        for row in rows_of(block):
            self._newest = max(self._newest, row.update)
            if row.update <= self._combined_to:
                self.late += 1
            else:
                self._waiting.setdefault(row.update, {})[rank] = row

    def leave(self, rank: int) -> None:
        """A rank ended or fell silent: nobody waits for it any more."""
        self._expected.discard(rank)

    def take(self) -> list[RowBlock]:
        """The updates that are due, combined, in order."""
        done: list[RankRow] = []
        self.apart = {}
        for update in sorted(self._waiting):
            missing = self._expected - self._waiting[update].keys()
            if missing and self._newest - update < PATIENCE_UPDATES:
                break
            self._expected -= missing
            rows = [row for _, row in sorted(self._waiting.pop(update).items())]
            self._combined_to = update
            try:
                done.append(self._judged(rows, self._combination(rows).combine(rows, self._world)))
            except (ArithmeticError, ContractError):
                self.failed += 1
        blocks: list[RowBlock] = []
        first = 0
        for end in range(1, len(done) + 1):
            if end == len(done) or done[end].schema.id != done[first].schema.id:
                blocks.append(block_of(done[first:end], self._run, self._attempt))
                first = end
        return blocks

    def _judged(self, rows: list[RankRow], combined: RankRow) -> RankRow:
        """The combined row, flagged where a rank keeps the others waiting; what is wrong with the ranks goes into `apart`."""
        slow = self._pace.step(rows)
        missing = sorted(set(range(min(self._world, EXPECTED_MAX))) - {row.rank for row in rows})
        said = [f"{_listed('rank', missing)} missing"] if missing else []
        if combined.differing:
            said.append(f"ranks differ in {', '.join(combined.differing[:4])}, which must be equal")
        if slow is not None:
            said.append(str(slow))
        if said:
            self.apart[combined.update] = "; ".join(said)
        return combined if slow is None else replace(combined, flags=combined.flags | RowFlag.RANK_SLOW)

    def _combination(self, rows: list[RankRow]) -> Combination:
        key = tuple(row.schema.id for row in rows)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= COMBINATIONS_MAX:
                del self._known[next(iter(self._known))]
            found = self._known[key] = Combination([row.schema for row in rows])
        return found

    def dump(self) -> bytes:
        """Everything that a restart must not forget, exactly: the rows were acked."""
        schemas = {row.schema.id: row.schema for rows in self._waiting.values() for row in rows.values()}
        columns = {id_: [_described(column) for column in schema.columns] for id_, schema in schemas.items()}
        waiting = [_packed(row) for rows in self._waiting.values() for row in rows.values()]
        facts = [self._world, sorted(self._expected), self._combined_to, self._newest, self.late]
        packed: bytes = msgpack.packb([*facts, columns, waiting, self._pace.state()])
        return packed

    @classmethod
    def load(cls, run: str, attempt: int, data: bytes) -> Gathering:
        """What `dump` made.

        Raises:
            ValueError: bytes that are none of ours.
        """
        world, expected, combined_to, newest, late, columns, waiting, *pace = msgpack.unpackb(data, strict_map_key=False)
        made = cls(run, attempt, world)
        made._expected, made._combined_to, made._newest, made.late = set(expected), combined_to, newest, late
        made._pace = Pace(*pace)
        schemas = {
            id_: Schema.of(Column(name, Kind(kind), RankRule(rule), subject) for name, kind, rule, subject in listed)
            for id_, listed in columns.items()
        }
        for rank, schema, update, t_ns, env_steps, level, flags, values, status in waiting:
            numbers = np.frombuffer(values, "<f8"), np.frombuffer(status, np.uint8)
            row = RankRow(rank, schemas[schema], update, t_ns, env_steps, level, flags, *numbers)
            made._waiting.setdefault(update, {})[rank] = row
        return made


def _listed(word: str, ranks: Sequence[int]) -> str:
    """`rank 3 is`, `ranks 1, 2 and 5 more are`."""
    shown = ", ".join(map(str, ranks[:NAMED_MAX]))
    more = f" and {len(ranks) - NAMED_MAX} more" if len(ranks) > NAMED_MAX else ""
    return f"{word} {shown} is" if len(ranks) == 1 else f"{word}s {shown}{more} are"


def _described(column: Column) -> list[str]:
    return [column.name, column.kind.value, column.rank_rule.value, column.subject]


def _packed(row: RankRow) -> list[Any]:
    shared = [row.update, row.t_ns, row.env_steps, row.level, row.flags]
    return [row.rank, row.schema.id, *shared, row.values.astype("<f8").tobytes(), row.status.tobytes()]
