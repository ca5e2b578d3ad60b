"""Which rank keeps the others waiting. Pure: from what the ranks' rows say; no clocks of two machines are compared.

Ranks that reduce gradients together end their updates together, however slow one of them was: the others wait for it. So where
all ranks time their rollouts (`mon.phase("rollout")`), that is compared; else the time from one row of a rank to its next.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gradwatch_contracts.columns import Schema
    from gradwatch_daemon.derive.ranks import RankRow

TIMES = 1.5
"""Times the median of the other ranks."""

SHARE = 0.1
"""And by this share of the time of an update more than it: what costs less is not worth a word."""

ROLLOUT = ("sys.phase_ms", "rollout")


@dataclass(frozen=True, slots=True)
class Slow:
    """A rank that took `ms`, where the median of the others is `others_ms`."""

    rank: int
    what: str
    ms: float
    others_ms: float

    def __str__(self) -> str:
        return f"rank {self.rank} keeps the others waiting: {self.what} {self.ms:.0f} ms, theirs {self.others_ms:.0f} ms"


class Pace:
    """When each rank's last row was made, by its own clock."""

    __slots__ = ("_last",)

    def __init__(self, last: Mapping[int, Sequence[int]] | None = None) -> None:
        """`last` as `state` gave it: rank → (update, t_ns)."""
        self._last = {rank: (at[0], at[1]) for rank, at in (last or {}).items()}

    def state(self) -> dict[int, tuple[int, int]]:
        """Everything it remembers."""
        return self._last

    def step(self, rows: Sequence[RankRow]) -> Slow | None:
        """Take the rows of one update, of as many ranks as sent it; the rank that keeps the others waiting, if one does."""
        spans = {row.rank: self._span_ms(row) for row in rows}
        self._last = {row.rank: (row.update, row.t_ns) for row in rows}
        known = [span for span in spans.values() if span is not None]
        if len(rows) < 2 or len(known) < len(rows):
            return None
        rollouts = {row.rank: _measured(row, ROLLOUT) for row in rows}
        timed = {rank: ms for rank, ms in rollouts.items() if ms is not None}
        whole = len(timed) < len(rows)
        times = {rank: span for rank, span in spans.items() if span is not None} if whole else timed
        slowest = max(times, key=lambda rank: times[rank])
        others = median(ms for rank, ms in times.items() if rank != slowest)
        if times[slowest] < TIMES * others or times[slowest] - others < SHARE * max(known):
            return None
        return Slow(slowest, "its update took" if whole else "its rollout took", times[slowest], others)

    def _span_ms(self, row: RankRow) -> float | None:
        """Time since the rank's row of the update before; None where that was not seen."""
        update, t_ns = self._last.get(row.rank, (None, 0))
        return (row.t_ns - t_ns) / 1e6 if update == row.update - 1 else None


def _measured(row: RankRow, key: tuple[str, str]) -> float | None:
    """A column of one number, None where the row does not have it or did not measure it."""
    place = _place(row.schema, key)
    return None if place is None or row.status[place[1]] else float(row.values[place[0]])


def _place(schema: Schema, key: tuple[str, str]) -> tuple[int, int] | None:
    for index, column in enumerate(schema.columns):
        if column.key == key:
            return schema.offsets[index], index
    return None
