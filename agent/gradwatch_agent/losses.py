"""Ranges of records that will never come, kept in order and joined, so that a long outage is a few messages."""

from __future__ import annotations

from bisect import bisect_left

from gradwatch_contracts import limits
from gradwatch_contracts.messages import Loss


class Losses:
    """Disjoint ranges in order of seq.

    Neighbours with one reason are one range. From `limits.LOSSES_PENDING_MAX` ranges on, neighbours with different
    reasons are joined too and name both. Ranges with a surviving record between them are never joined: that would
    lose the survivor; their number is bounded by the bytes that the survivors are charged.
    """

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[Loss] = []

    def __len__(self) -> int:
        return len(self._ranges)

    @property
    def first_seq(self) -> int | None:
        """The least record covered, None when there is none."""
        return self._ranges[0].first_seq if self._ranges else None

    def add(self, first: int, last: int, reason: str) -> None:
        """Cover `first` to `last`, none of which may be covered already. The reason is cut to what may travel."""
        at = bisect_left(self._ranges, first, key=lambda held: held.first_seq)
        new = Loss(first, last, reason[: limits.NAME_CHARS_MAX] or "unknown")
        if at < len(self._ranges) and (joined := self._join(new, self._ranges[at])):
            new = joined
            del self._ranges[at]
        if at > 0 and (joined := self._join(self._ranges[at - 1], new)):
            self._ranges[at - 1] = joined
        else:
            self._ranges.insert(at, new)

    def pop(self) -> Loss:
        """Remove and return the first range."""
        return self._ranges.pop(0)

    def forget(self, seq: int) -> None:
        """Drop everything up to `seq`; a range that reaches beyond keeps its rest."""
        while self._ranges and self._ranges[0].last_seq <= seq:
            del self._ranges[0]
        if self._ranges and self._ranges[0].first_seq <= seq:
            held = self._ranges[0]
            self._ranges[0] = Loss(seq + 1, held.last_seq, held.reason)

    def absorb(self, other: Losses) -> None:
        """Move every range of `other` here."""
        for held in other._ranges:
            self.add(held.first_seq, held.last_seq, held.reason)
        other.clear()

    def clear(self) -> None:
        """Forget all."""
        self._ranges.clear()

    def _join(self, left: Loss, right: Loss) -> Loss | None:
        if left.last_seq + 1 != right.first_seq:
            return None
        if left.reason == right.reason:
            return Loss(left.first_seq, right.last_seq, left.reason)
        if len(self._ranges) < limits.LOSSES_PENDING_MAX:
            return None
        reasons = dict.fromkeys((*left.reason.split("; "), *right.reason.split("; ")))
        return Loss(left.first_seq, right.last_seq, "; ".join(reasons)[: limits.NAME_CHARS_MAX])
