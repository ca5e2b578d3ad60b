"""The columns of this run and where each lies in a row; a row starts with every value missing, for a reason."""

from __future__ import annotations

import math
import sys
from array import array
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from gradwatch_agent.collect.host import NO_SCALARS
from gradwatch_contracts import limits
from gradwatch_contracts.collectors import COLLECTORS
from gradwatch_contracts.columns import WIDTH, Column, Kind, RankRule, RowFlag, Schema, Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection

    from gradwatch_agent.collect.host import Key, Scalars, Tally

EMPTY_MAX = 256
"""Empty rows kept: one for each level and each set of resting collectors."""

REST = bytes(code if code == Status.LEVEL else Status.THINNED for code in range(256))
"""Why a value of a resting collector is missing, by why it would be otherwise."""

Place = tuple[int, int]
"""(first slot, column index)."""

Frame = tuple[Level, bool, bool, "frozenset[str]"]
"""What decides why a column is missing before anything was measured: the level, whether the update is a part of one, whether it
was thinned, and the collectors that rested."""


class Plan(NamedTuple):
    """Where each number of a row goes, and its statuses: for all rows with the partial columns `parts` and the scalars `user`,
    in this order, and with these reasons. `run`: the first slot of scalars that lie side by side, as they do unless keys
    vary."""

    parts: tuple[Key, ...]
    reasons: dict[Key, Status]
    user: tuple[str, ...]
    slots: list[int]
    user_slots: list[int]
    run: int | None
    status: bytes

    def fits(self, tally: Tally, user: tuple[str, ...], numbers: int) -> bool:
        """Whether it holds for a row with so many numbers in partial columns."""
        alike = numbers == len(self.slots) and user == self.user and tally.reasons == self.reasons
        return alike and tuple(tally.parts) == self.parts


class Catalogue:
    """Every registered column, then the subjects (heads, keys) in the order in which they appeared.

    Columns are only ever appended, so a row built late, from values that were on their way, still fits. Those of the calls in
    `never`, which nobody makes in this run, are listed only once something was measured for them. What is measured under the
    name of a signal that is no column travels as that signal.
    """

    __slots__ = ("_blank", "_columns", "_empty", "_never", "_places", "_plans", "_schema", "_slots", "_users")

    def __init__(self, never: Collection[str] = ()) -> None:
        self._never = frozenset(never)
        self._columns: list[Column] = []
        self._places: dict[tuple[str, str], Place] = {}
        self._users: dict[str, Place] = {}
        self._slots = 0
        self._schema: Schema | None = None
        self._blank: array[float] = array("d")
        self._empty: dict[Frame, bytes] = {}
        self._plans: dict[Frame, Plan] = {}
        for spec in COLUMNS.values():
            if not spec.per and spec.call not in self._never:
                self.place(spec.name, "")

    @property
    def schema(self) -> Schema:
        """The columns so far."""
        if self._schema is None:
            self._schema = Schema.of(self._columns)
            self._blank = array("d", [math.nan]) * (self._slots + 1)  # the last for what has no column
            self._empty.clear()
            self._plans.clear()
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
        user: Scalars = NO_SCALARS,
        *,
        thinned: bool = False,
        resting: frozenset[str] = frozenset(),
    ) -> tuple[Schema, bytes, bytes]:
        """Lay out one row: the schema, the values (f64 little-endian) and the statuses (u8). `thinned`: above MINIMAL
        nothing was collected although the level includes it. `resting`: collectors left out of this update to save time.

        A slot without a measured value holds NaN, so that reading it by mistake shows. Nearly every row of a run is like one
        before: the same columns in the same order, and missing for the same reasons. Then only its numbers are laid out.
        """
        keys, packed = user
        frame = level, bool(flags & RowFlag.PARTIAL), thinned, resting
        numbers = list(chain.from_iterable(tally.parts.values()))
        plan = self._plans.get(frame)
        if plan is None or not plan.fits(tally, keys, len(numbers)):
            plan = self._plan(frame, tally, keys)
        schema, values = self.schema, self._blank[:]
        for slot, number in zip(plan.slots, numbers, strict=True):
            values[slot] = number
        scalars = array("d", packed)
        if plan.run is not None:
            values[plan.run : plan.run + len(scalars)] = scalars
        else:
            for slot, number in zip(plan.user_slots, scalars, strict=True):
                values[slot] = number
        values.pop()
        if sys.byteorder == "big":
            values.byteswap()
        return schema, values.tobytes(), plan.status

    def _plan(self, frame: Frame, tally: Tally, user: tuple[str, ...]) -> Plan:
        """The long way: give each key a column, and find where its numbers and its status go."""
        places, missing = self._places, tally.missing()
        for key in (*tally.parts, *missing):
            if key not in places and (key in tally.parts or COLUMNS[key[0]].call not in self._never):
                self.place(*key)
        user_places = [self._users.get(key) or self.place("user", key) for key in user]
        bin_slot, slots = self.schema.slots, []
        status = bytearray(self._missing(*frame))
        for key, part in tally.parts.items():
            slot, index = places.get(key, (bin_slot, None))
            slots += [bin_slot if index is None else slot + offset for offset in range(len(part))]
            if index is not None:
                status[index] = 0
        for place in user_places:
            if place is not None:
                status[place[1]] = 0
        for key, reason in missing.items():
            if key in places:
                status[places[key][1]] = reason
        user_slots = [bin_slot if place is None else place[0] for place in user_places]
        first = user_slots[0] if user_slots else bin_slot
        together = user_slots == list(range(first, first + len(user_slots)))
        run = first if together and first + len(user_slots) <= bin_slot else None
        plan = Plan(tuple(tally.parts), dict(tally.reasons), user, slots, user_slots, run, bytes(status))
        if len(self._plans) >= EMPTY_MAX:
            self._plans.clear()
        self._plans[frame] = plan
        return plan

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
