"""The columns of this run and where each lies in a row; a row starts with every value missing, for a reason."""

from __future__ import annotations

import math
import sys
from array import array
from typing import TYPE_CHECKING

from gradwatch_contracts import limits
from gradwatch_contracts.collectors import COLLECTORS
from gradwatch_contracts.columns import WIDTH, Column, Kind, RankRule, RowFlag, Schema, Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gradwatch_agent.collect.host import Tally

EMPTY_MAX = 256
"""Empty rows kept: one for each level and each set of resting collectors."""

REST = bytes(code if code == Status.LEVEL else Status.THINNED for code in range(256))
"""Why a value of a resting collector is missing, by why it would be otherwise."""

Place = tuple[int, int]
"""(first slot, column index)."""


class Catalogue:
    """Every registered column, then the subjects (heads, keys) in the order in which they appeared.

    Columns are only ever appended, so a row built late, from values that were on their way, still fits. Those of the calls in
    `never`, which nobody makes in this run, are listed only once something was measured for them. What is measured under the
    name of a signal that is no column travels as that signal.
    """

    __slots__ = ("_blank", "_columns", "_empty", "_never", "_places", "_run", "_schema", "_slots", "_users")

    def __init__(self, never: Collection[str] = ()) -> None:
        self._never = frozenset(never)
        self._columns: list[Column] = []
        self._places: dict[tuple[str, str], Place] = {}
        self._users: dict[str, Place] = {}
        self._run: tuple[tuple[str, ...], Place | None] = ((), None)
        self._slots = 0
        self._schema: Schema | None = None
        self._blank: array[float] = array("d")
        self._empty: dict[tuple[int, bool, bool, frozenset[str]], bytes] = {}
        for spec in COLUMNS.values():
            if not spec.per and spec.call not in self._never:
                self.place(spec.name, "")

    @property
    def schema(self) -> Schema:
        """The columns so far."""
        if self._schema is None:
            self._schema = Schema.of(self._columns)
            self._blank = array("d", [math.nan]) * self._slots
            self._empty.clear()
        return self._schema

    def place(self, name: str, subject: str) -> Place | None:
        """Where a column lies; appended when new, None when the schema is full."""
        key = (name, subject)
        found = self._places.get(key)
        if found is not None or len(self._columns) >= limits.COLUMNS_MAX:
            return found
        column = COLUMNS[name].column(subject) if name in COLUMNS else Column(name, Kind.LAST, RankRule.RANK0, subject)
        place = (self._slots, len(self._columns))
        self._places[key] = place
        if name == "user":
            self._users[subject] = place
        self._columns.append(column)
        self._slots += WIDTH[column.kind]
        self._schema = None
        return place

    def fill(
        self,
        level: Level,
        flags: int,
        tally: Tally,
        user: Mapping[str, float],
        *,
        thinned: bool = False,
        resting: frozenset[str] = frozenset(),
    ) -> tuple[Schema, bytes, bytes]:
        """Lay out one row: the schema, the values (f64 little-endian) and the statuses (u8). `thinned`: above MINIMAL
        nothing was collected although the level includes it. `resting`: collectors left out of this update to save time.

        A slot without a measured value holds NaN, so that reading it by mistake shows.
        """
        missing = tally.missing()
        places = self._places
        for key in (*tally.parts, *missing):
            if key not in places and (key in tally.parts or COLUMNS[key[0]].call not in self._never):
                self.place(*key)
        run = self._place_users(user) if user else None
        schema = self.schema
        values = self._blank[:]
        status = bytearray(self._missing(level, bool(flags & RowFlag.PARTIAL), thinned, resting))
        for key, part in tally.parts.items():
            place = places.get(key)
            if place is None:
                continue
            slot, index = place
            for offset, number in enumerate(part):
                values[slot + offset] = number
            status[index] = 0
        if run is not None:
            (slot, index), count = run, len(user)
            values[slot : slot + count] = array("d", user.values())
            status[index : index + count] = bytes(count)
        else:
            for user_key, number in user.items():
                place = self._users.get(user_key)
                if place is not None:
                    values[place[0]] = number
                    status[place[1]] = 0
        for key, reason in missing.items():
            place = places.get(key)
            if place is not None:
                status[place[1]] = reason
        if sys.byteorder == "big":
            values.byteswap()
        return schema, values.tobytes(), bytes(status)

    def _place_users(self, user: Mapping[str, float]) -> Place | None:
        """Give each key a column; the first place when they lie side by side in this order, as they do unless keys vary."""
        keys = tuple(user)
        if keys == self._run[0]:
            return self._run[1]
        places = [self._users.get(key) or self.place("user", key) for key in keys]
        first = places[0]
        if first is None or any(place != (first[0] + i, first[1] + i) for i, place in enumerate(places)):
            return None
        self._run = (keys, first)
        return first

    def _missing(self, level: Level, partial: bool, thinned: bool, resting: frozenset[str]) -> bytes:
        """Why each column is missing before anything was measured."""
        found = self._empty.get((level, partial, thinned, resting))
        if found is None:
            unmeasured = Status.INCOMPLETE if partial else Status.NOT_CALLED
            rich = Status.THINNED if thinned else unmeasured
            by_level = {one: Status.LEVEL if one > level else rich if one > Level.MINIMAL else unmeasured for one in Level}
            levels = (COLUMNS[column.name].level if column.name in COLUMNS else Level.NORMAL for column in self._columns)
            found = bytes(by_level[one] for one in levels)
            if resting:
                columns = {column for name in resting for column in COLLECTORS[name].columns}
                missing = zip(self._columns, found, strict=True)
                found = bytes([REST[code] if column.name in columns else code for column, code in missing])
            if len(self._empty) >= EMPTY_MAX:
                self._empty.clear()
            self._empty[level, partial, thinned, resting] = found
        return found
