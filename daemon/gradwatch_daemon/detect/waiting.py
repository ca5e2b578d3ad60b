"""Rows that came one by one, were judged, and have not taught yet.

A row alone costs the board nearly as much as sixteen do, and most can be judged before anything is scored (`guards`). These
wait, and teach together: when one comes whose scores count, when the next measurement is due, and before anybody else looks at
the state. So state and verdicts are those of a block.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gradwatch_daemon.detect.board import Board, Scored
    from gradwatch_daemon.detect.lanes import Calm, Plan
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import F64


class Waiting:
    """The rows of one stream that wait, all of one plan. `calm` is whether no part can hold in the last of them."""

    __slots__ = ("_limits", "_rows", "_sources", "_told", "_unlearned", "_usual", "_whole", "calm", "plan", "said")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.calm = False
        self.said: dict[bytes, Calm] = {}
        """What is said of calm rows with these statuses, until the rows that wait have taught."""
        self._rows: list[F64] = []
        self._whole = True
        """Whether the last row is of a complete update; those that wait all are."""
        self._usual: F64 | None = None
        """What was usual when the rest was derived from it: an array that every measurement makes anew."""
        self._limits: F64
        self._unlearned: list[int]
        self._sources: list[int]
        self._told: tuple[tuple[int, int], ...] | None

    def take(self, view: View) -> bool:
        """Take a row; whether it may wait: it is whole and finite, no score counts, and it teaches nothing that is said."""
        plan, board = self.plan, view.state.board
        self._rows.append(plan.guards.read(view).take(plan.sources))
        self._whole, self.calm = view.whole is None, False
        if board.usual is not self._usual:
            self._look(board)
        if not self._whole or not isfinite(view.total):
            return False
        status = view.row[1]
        if not all(status[source] for source in self._sources):
            return False
        possible = plan.guards.may_hold(self._limits)
        self.calm = 1 not in possible.tobytes()
        return self.calm or not plan.guards.scores_count(possible)

    def unscored(self, board: Board) -> Scored:
        """The last row and what is usual, without scores."""
        return board.beside(self._rows[-1][None])

    def full(self, board: Board) -> bool:
        """Whether the next measurement is due."""
        return len(self._rows) == board.room

    def learn(self, board: Board) -> Scored:
        """Let the rows that wait teach; the scores of the last of them."""
        rows, self._rows = np.array(self._rows), []
        self._told, self.said = None, {}
        usable = np.isfinite(rows)
        usable[-1] &= self._whole
        return board.step(rows, usable).last()

    def told(self, board: Board) -> tuple[tuple[int, int], ...]:
        """Values learned and needed, for each column of the plan without a usual value."""
        if board.usual is not self._usual:
            self._look(board)
        if self._told is None:
            self._told = tuple(map(board.learned, self._unlearned))
        return self._told

    def __bool__(self) -> bool:
        return bool(self._rows)

    def _look(self, board: Board) -> None:
        plan = self.plan
        self._usual, self._told, self.said = board.usual, None, {}
        self._limits = plan.guards.limits(board)
        self._unlearned = [column for column in plan.learns if board.pattern[column]]
        self._sources = [source for source in plan.signals[self._unlearned].tolist() if source < plan.guards.signals - 2]
