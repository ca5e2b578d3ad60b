"""Rows laid out as one before was: the same bytes as the long way gives, whatever came in between."""

from __future__ import annotations

import math
import random
import struct
from itertools import combinations, islice
from typing import TYPE_CHECKING

import pytest

from gradwatch_agent.collect.catalogue import EMPTY_MAX, Catalogue
from gradwatch_agent.collect.host import Hints, Tally, UserScalars
from gradwatch_contracts import limits
from gradwatch_contracts.collectors import COLLECTORS
from gradwatch_contracts.columns import WIDTH, RowFlag, Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS

if TYPE_CHECKING:
    from gradwatch_agent.collect.host import Key, Scalars

PLAIN = sorted(spec.name for spec in COLUMNS.values() if not spec.per)
SUBJECTS = ("", "b", "a", "c")
RESTING: tuple[frozenset[str], ...] = (frozenset(), frozenset({"ranges"}), frozenset({"host_memory", "ranges"}))


class LongWay(Catalogue):
    """Forgets after each row how it went."""

    def fill(self, *args: object, **kwargs: object) -> tuple[object, bytes, bytes]:  # type: ignore[override]
        """See Catalogue."""
        self._plans.clear()
        return super().fill(*args, **kwargs)  # type: ignore[arg-type]


def tally(chance: random.Random, keys: list[Key], reasons: list[Key]) -> Tally:
    """An update that measured `keys`, and says of `reasons` why they are missing."""
    made = Tally()
    for key in keys:
        width = WIDTH[COLUMNS[key[0]].kind] if key[0] in COLUMNS else 1
        made.parts[key] = tuple(chance.choice((chance.random(), float("nan"), float("-inf"), -0.0)) for _ in range(width))
    for name, subject in reasons:
        made.refuse(name, chance.choice((Status.UNDEFINED, Status.DTYPE, Status.INCOMPLETE)), subject)
    return made


def scalars(chance: random.Random, keys: list[str]) -> Scalars:
    """Numbers of the trainer under these keys."""
    return tuple(keys), struct.pack(f"{len(keys)}d", *[chance.random() for _ in keys])


@pytest.mark.parametrize("seed", range(8))
def test_row_like_one_before_has_the_bytes_of_the_long_way(seed: int) -> None:
    """Mostly alike, and now and then with other columns, orders, reasons, scalars, levels, flags or resting collectors; in half
    of them nobody makes a call."""
    chance = random.Random(seed)
    never = ("recurrent",) if seed % 2 else ()
    short, long = Catalogue(never), LongWay(never)
    keys: list[Key] = []
    reasons: list[Key] = []
    users: list[str] = []
    for _ in range(120):
        if chance.random() < 0.2 or not keys:
            keys = [(name, "") for name in chance.sample(PLAIN, chance.randrange(1, 30))]
            keys += [("grad.group_norm", subject) for subject in chance.sample(SUBJECTS, 2)]
            keys += [("made.up.signal", "")] * chance.randrange(2)
        if chance.random() < 0.2:
            reasons = [(name, chance.choice(SUBJECTS)) for name in chance.sample(PLAIN, chance.randrange(4))]
        if chance.random() < 0.2:
            users = [f"u{number}" for number in chance.sample(range(6), chance.randrange(6))]
        seeded = chance.randrange(1 << 30)
        level, flags = chance.choice((Level.NORMAL, Level.DEBUG)), chance.choice((0, 0, RowFlag.PARTIAL, RowFlag.SKIPPED))
        thinned, resting = chance.random() < 0.2, chance.choice(RESTING)
        rows = []
        for catalogue in (short, long):
            same = random.Random(seeded)
            made, user = tally(same, keys, reasons), scalars(same, users)
            schema, values, status = catalogue.fill(level, flags, made, user, thinned=thinned, resting=resting)
            rows.append((schema.id, values, status))
        assert rows[0] == rows[1]


def test_row_beyond_the_last_column_keeps_what_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the numbers without a column nor those behind them land elsewhere, in the first such row and in the next."""
    monkeypatch.setattr(limits, "COLUMNS_MAX", len(Catalogue().schema.columns) + 1)
    catalogue, chance = Catalogue(), random.Random(0)
    rows = []
    for _ in range(2):
        made = Tally()
        made.parts.update({("grad.group_norm", "a"): (4.0, 2.0, 1.0), ("grad.group_norm", "b"): (7.0, 7.0, 7.0)})
        made.parts["sys.update_ms", ""] = (5.0,)
        rows.append(catalogue.fill(Level.NORMAL, 0, made, scalars(chance, ["x", "y"])))
    for schema, values, status in rows:
        numbers = struct.unpack(f"<{schema.slots}d", values)
        assert schema.columns[-1].key == ("grad.group_norm", "a")
        assert [number for number in numbers if not math.isnan(number)] == [5.0, 4.0, 2.0, 1.0]
        assert status.count(0) == 2


def test_plans_of_rows_are_bounded() -> None:
    """Each set of resting collectors has one."""
    catalogue = Catalogue()
    for names in islice(combinations(sorted(COLLECTORS), 3), EMPTY_MAX + 10):
        catalogue.fill(Level.NORMAL, 0, Tally(), resting=frozenset(names))
        assert len(catalogue._plans) <= EMPTY_MAX


def test_scalars_of_an_update_join_whether_they_were_packed_or_not() -> None:
    """The keys of last time are packed at once; what comes with others, or as another type, is joined with that."""
    user = UserScalars(Hints(), lambda key, value: False)
    told = []
    for puts in (
        [{"a": 1.0, "b": 2.0}],
        [{"a": 3.0, "b": 4.0}],
        [{"a": 5.0, "b": 6.0}, {"a": 7.0, "b": 8.0}],
        [{"a": 9.0, "b": 1.0}, {"c": 2.0}],
        [{"c": 3.0}, {"a": 4.0, "b": True}],
        [{"a": 5, "b": "none"}],
        [],
    ):
        for put in puts:
            user.put(put)
        assert user.started is bool(puts)
        keys, packed = user.take()
        told.append(dict(zip(keys, struct.unpack(f"{len(keys)}d", packed), strict=True)))
    assert told == [
        {"a": 1.0, "b": 2.0},
        {"a": 3.0, "b": 4.0},
        {"a": 7.0, "b": 8.0},
        {"a": 9.0, "b": 1.0, "c": 2.0},
        {"c": 3.0, "a": 4.0, "b": 1.0},
        {"a": 5.0},
        {},
    ]
    assert user.take_refused() == {"b": Status.DTYPE}
