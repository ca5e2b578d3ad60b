"""What several ranks say of one thing they were asked for, summed up. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gradwatch_contracts.control import ControlState, RankState

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

State = ControlState
Ranks = tuple[RankState, ...]


NOT_BEGUN = "no trainer began with it before its deadline"
NOT_HEARD = "the trainer was not heard of again before its deadline"


def asked(ranks: Iterable[int]) -> Ranks:
    """Ranks that are to be told."""
    return tuple(RankState(rank, State.REQUESTED) for rank in sorted(set(ranks)))


def joined(ranks: Ranks, rank: int) -> Ranks:
    """With a rank that was not among them."""
    if any(one.rank == rank for one in ranks):
        return ranks
    return tuple(sorted((*ranks, RankState(rank, State.REQUESTED)), key=lambda one: one.rank))


def told(ranks: Ranks, rank: int) -> Ranks:
    """A rank was told."""
    return _put(ranks, rank, (State.REQUESTED,), state=State.DELIVERED)


def heard(ranks: Ranks, rank: int, state: State, update: int, reason: str) -> Ranks:
    """A rank's own word: applied, ended or rejected. A word never goes back, a rank nobody asked says nothing, and one that was
    given up and speaks was not lost."""
    waits = (State.REQUESTED, State.DELIVERED, State.LOST)
    before = waits if state is State.APPLIED else (*waits, State.APPLIED)
    applied = {"applied": update} if state is State.APPLIED else {}
    return _put(ranks, rank, before, state=state, update=update, reason=reason, **applied)


def gone(ranks: Ranks, rank: int, why: str) -> Ranks:
    """A rank ended before it had answered."""
    return _put(ranks, rank, (State.REQUESTED, State.DELIVERED, State.APPLIED), state=State.LOST, reason=why)


def back(ranks: Ranks, rank: int) -> Ranks:
    """A rank that was given up has greeted again: it is told anew, or goes on with what it had begun."""
    began = any(one.rank == rank and one.applied is not None for one in ranks)
    return _put(ranks, rank, (State.LOST,), state=State.APPLIED if began else State.DELIVERED, reason="")


def overdue(ranks: Ranks, heard: Container[int]) -> Ranks:
    """At the deadline: a rank that has not begun is waited for no longer, nor one that has and is not `heard` any more."""
    for one in ranks:
        if one.state in (State.REQUESTED, State.DELIVERED):
            ranks = gone(ranks, one.rank, NOT_BEGUN)
        elif one.state is State.APPLIED and one.rank not in heard:
            ranks = gone(ranks, one.rank, NOT_HEARD)
    return ranks


def onward(was: State, state: State) -> State:
    """The state of all together, which never goes back: a rank that came later has not begun yet."""
    return was if was.open and state.open and _ORDER.index(state) < _ORDER.index(was) else state


def summary(ranks: Ranks) -> tuple[State, int | None, int | None, str]:
    """State of all together, the update by which all had begun, that by which all had ended, and why.

    One that waits holds all back; one that refused or failed spoils it for all; those that were lost count only where nobody
    is left. What one rank said names it, where there are several.
    """
    states = {rank.state for rank in ranks if rank.state is not State.LOST}
    state = next((one for one in _ORDER if one in states), State.LOST)
    began = [rank.applied for rank in ranks if rank.applied is not None]
    applied = max(began) if began and state not in (State.REQUESTED, State.DELIVERED) else None
    if state.open:
        return state, applied, None, ""
    said = [rank for rank in ranks if rank.state is state]
    updates = [rank.update for rank in said if rank.update is not None]
    reasons = {rank.reason for rank in said}
    single = len(reasons) == 1 and len(said) == len(ranks)
    why = said[0].reason if single else "; ".join(f"rank {rank.rank}: {rank.reason}" for rank in said[:SAID_MAX])
    return state, applied, max(updates, default=None), why


SAID_MAX = 8
"""Ranks whose words stand in one sentence; all of them are in `ranks`."""

_ORDER = (State.REQUESTED, State.DELIVERED, State.APPLIED, State.REJECTED, State.ENDED)


def _put(ranks: Ranks, rank: int, before: tuple[State, ...], **changes: object) -> Ranks:
    return tuple(
        replace(one, **changes) if one.rank == rank and one.state in before else one  # type: ignore[arg-type]
        for one in ranks
    )
