"""What travels: mergeable reductions, their layout in a row, and why a value is missing.

A column is one reduction (`kind`) of one quantity over one update. Two partial columns of the same kind merge into the
column of the whole, so a large tensor may be reduced in slices, a ragged minibatch apart from the others, and the
ranks of one run in the daemon, all by `merge`.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

import msgpack

from gradwatch_contracts import limits
from gradwatch_contracts.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Kind(str, Enum):
    """How a column was reduced, and so how two of it merge. `moments` takes three slots, `moments4` five, the others one."""

    MOMENTS = "moments"
    MOMENTS4 = "moments4"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    COUNT = "count"
    LAST = "last"


class RankRule(str, Enum):
    """How the ranks of one update combine: `equal` must agree, `rank0` is the first rank's, `none` stays per rank."""

    SUM = "sum"
    MIN = "min"
    MAX = "max"
    MERGE = "merge"
    EQUAL = "equal"
    RANK0 = "rank0"
    NONE = "none"


class Status(IntEnum):
    """Whether a value was measured and, if not, why. Only a MEASURED value may be read."""

    MEASURED = 0
    NOT_CALLED = 1
    LEVEL = 2
    THINNED = 3
    UNDEFINED = 4
    NO_GRADIENT = 5
    SHAPE = 6
    DTYPE = 7
    DEVICE = 8
    INCOMPLETE = 9
    CAPTURING = 10
    OUR_ERROR = 11
    SWITCHED_OFF = 12


STATUS_REASON: dict[Status, str] = {
    Status.MEASURED: "measured",
    Status.NOT_CALLED: "the trainer did not pass it in this update",
    Status.LEVEL: "not collected at this telemetry level",
    Status.THINNED: "skipped to stay within the overhead budget",
    Status.UNDEFINED: "not defined for these inputs, for example zero variance",
    Status.NO_GRADIENT: "no parameter had a gradient",
    Status.SHAPE: "the tensor had another shape than its partners",
    Status.DTYPE: "the tensor had an unsupported dtype",
    Status.DEVICE: "the tensor was on another device than its partners",
    Status.INCOMPLETE: "the update ended before it was measured",
    Status.CAPTURING: "a CUDA graph was being captured",
    Status.OUR_ERROR: "the agent failed; see the run's events",
    Status.SWITCHED_OFF: "switched off by collect= of watch()",
}
"""One plain clause per status, shown wherever the value would have been."""


class RowFlag(IntEnum):
    """Bits of a row's flags byte. The last three are the daemon's, of rows combined over ranks: some rank is not in it, ranks
    differ in what must be equal, or one keeps the others waiting."""

    PARTIAL = 1
    SKIPPED = 2
    RANKS_MISSING = 4
    RANKS_DIFFER = 8
    RANK_SLOW = 16


WIDTH: dict[Kind, int] = {kind: {Kind.MOMENTS: 3, Kind.MOMENTS4: 5}.get(kind, 1) for kind in Kind}
"""Slots per kind: `moments` is (n, mean, M2) with M2 the sum of squared deviations from the mean; `moments4` goes on with M3
and M4, the sums of their third and fourth powers."""


@dataclass(frozen=True, slots=True)
class Column:
    """One travelling reduction: `name` as in the registry, `subject` the head, layer or key it belongs to, else ''."""

    name: str
    kind: Kind
    rank_rule: RankRule
    subject: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """(name, subject): what identifies a column in a schema."""
        return self.name, self.subject


@dataclass(frozen=True, slots=True)
class Schema:
    """An ordered list of columns; `id` is content, so two agents with the same columns share it."""

    columns: tuple[Column, ...]
    id: str
    offsets: tuple[int, ...]
    slots: int

    @classmethod
    def of(cls, columns: Iterable[Column]) -> Schema:
        """Build a schema; offsets are the first slot of each column.

        Raises:
            ContractError: `schema-mismatch` on a duplicate column, a bad name or more than `limits.COLUMNS_MAX`.
        """
        listed = tuple(columns)
        if not 0 < len(listed) <= limits.COLUMNS_MAX:
            raise ContractError(
                "schema-mismatch", where="schema.columns", expected=f"1 to {limits.COLUMNS_MAX}", got=str(len(listed))
            )
        seen: set[tuple[str, str]] = set()
        offsets, slots = [], 0
        for column in listed:
            if column.key in seen:
                raise ContractError("schema-mismatch", where="schema.columns", expected="each once", got=f"{column.key} twice")
            if not column.name or max(len(column.name), len(column.subject)) > limits.NAME_CHARS_MAX:
                raise ContractError(
                    "schema-mismatch",
                    where="schema.columns.name",
                    expected=f"1 to {limits.NAME_CHARS_MAX} characters",
                    got=repr(column.name[:40]),
                )
            seen.add(column.key)
            offsets.append(slots)
            slots += WIDTH[column.kind]
        canonical = msgpack.packb([[c.name, c.subject, c.kind.value, c.rank_rule.value] for c in listed])
        return cls(listed, hashlib.blake2b(canonical, digest_size=8).hexdigest(), tuple(offsets), slots)


def merge(kind: Kind, left: tuple[float, ...], right: tuple[float, ...]) -> tuple[float, ...]:
    """Merge two partial columns of one kind; the second is the later one.

    `moments` by Chan, Golub and LeVeque (1979), `moments4` by Pébay (2008), exact in real arithmetic. NaN and infinities
    propagate: a part that holds one makes the whole hold one, also for `min` and `max`.
    """
    if kind is Kind.MOMENTS:
        return _merge_moments(left, right)
    if kind is Kind.MOMENTS4:
        return _merge_moments4(left, right)
    (a,), (b,) = left, right
    if kind is Kind.LAST:
        return (b,)
    if kind in (Kind.SUM, Kind.COUNT):
        return (a + b,)
    if math.isnan(a) or math.isnan(b):
        return (math.nan,)
    return (min(a, b),) if kind is Kind.MIN else (max(a, b),)


def _merge_moments(left: tuple[float, ...], right: tuple[float, ...]) -> tuple[float, ...]:
    n_a, mean_a, m2_a = left
    n_b, mean_b, m2_b = right
    if n_a == 0 or n_b == 0:
        return right if n_a == 0 else left
    n = n_a + n_b
    delta = mean_b - mean_a
    return n, mean_a + delta * (n_b / n), m2_a + m2_b + delta * delta * (n_a * n_b / n)


def _merge_moments4(left: tuple[float, ...], right: tuple[float, ...]) -> tuple[float, ...]:
    n_a, _, m2_a, m3_a, m4_a = left
    n_b, _, m2_b, m3_b, m4_b = right
    if n_a == 0 or n_b == 0:
        return right if n_a == 0 else left
    n, mean, m2 = _merge_moments(left[:3], right[:3])
    delta, share_a, share_b = right[1] - left[1], n_a / n, n_b / n
    square = delta * delta  # a product overflows to infinity, a power raises
    m3 = m3_a + m3_b + square * delta * n_a * share_b * (share_a - share_b) + 3 * delta * (share_a * m2_b - share_b * m2_a)
    m4 = (
        m4_a
        + m4_b
        + square * square * n_a * share_b * (share_a * share_a - share_a * share_b + share_b * share_b)
        + 6 * square * (share_a * share_a * m2_b + share_b * share_b * m2_a)
        + 4 * delta * (share_a * m3_b - share_b * m3_a)
    )
    return n, mean, m2, m3, m4
