"""What is usual for every tracked series of a run, as one matrix: median and MAD of its own good values, and two sums.

Intuition: a value is odd when it is far from the middle of the last 64 good ones, measured in their own spread, on the scale
of the series. A fault must not teach what is usual: values beyond 4 spreads never enter, nor does anything while a
cumulative sum says that a shift is going on, nor do the newest values. As many refusals in a row as learning takes are no
outliers any more: the run has changed, and they are the new usual.

The sums (Page 1954) gather scores beyond an allowance, capped so that one wild value cannot carry them; they find a moderate
shift that lasts, which no single value shows. On synthetic healthy streams with autocorrelated log-normal noise an allowance
of 1.5 and a limit of 12 gave at most 0.06 alarms in 1,000 updates and found 98 % of steps by a factor of 4.

All series take a row at once, whatever their number: one column each. Centre and spread move only every `REFRESH` rows, so
between two of those moments a whole block is scored at once. Equal bits however the rows are batched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradwatch_daemon.detect.middles import find_middles
from gradwatch_daemon.detect.scales import Scales
from gradwatch_daemon.detect.series import series_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gradwatch_daemon.records import F64, I64

WINDOW = 64
"""Good values measured. Twice as many adapt too slowly to a run that anneals, half as many give a jumpy spread."""

GUARD = 4
"""Newest good values that are not measured yet: a fault that starts slowly is not yet in its own baseline."""

REFRESH = 16
"""Rows between two measurements."""

LEARNED = 28
"""Values measured from which on a score is given: with the guard band two refreshes, about half a window."""

LEARNED_AGAIN = 12
"""The same after the run has changed its regime: one refresh. The spread of so few is widened (`SMALL`)."""

SMALL = 4.0
"""The spread of n values counts as 1 + SMALL / n times itself: a MAD of few values is often far too small."""

WIDENED = 1.0 + SMALL / np.maximum(np.arange(WINDOW + 1), 1)
"""That factor, by the number of values."""

OUTLIER = 4.0
"""|z| beyond which a value never enters."""

REFUSALS = 36
"""Good values refused in a row that become the new usual. Gradient norms of healthy runs fall tenfold while they learn; with
twice as many the baseline was of no use for a third of such a run."""

FIRST = 16
"""Good values whose median is where the run began."""

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a Gaussian / its MAD."""

ALLOWANCE, CAP = 1.5, 4.0
"""Taken off each score before it is added to a sum, and the largest score that counts."""

SUM_LIMIT = 12.0
"""A sum beyond this is a shift that lasts; while it stands, nothing is learned."""

SUM_MOST = 24.0
"""Where a sum stops growing, so that a shift that is over is over within a few updates."""

KEPT = WINDOW + GUARD
_IGNORED, _TAKEN, _REFUSED = 0, 1, 2
_BOTH = np.array([[1.0], [-1.0]])
"""Upwards and downwards."""


class Scored:
    """One block against the board, f64[n, columns] each; `usual`, `limit` (at z = 4) and `first` in the signal's own unit."""

    __slots__ = ("down", "first", "limit", "up", "usual", "values", "z")

    def __init__(self, values: F64) -> None:
        self.values = values
        shape = values.shape
        self.z, self.usual, self.limit, self.first = np.empty(shape), np.empty(shape), np.empty(shape), np.empty(shape)
        self.up, self.down = np.empty(shape), np.empty(shape)

    def last(self) -> Scored:
        """The last row alone."""
        found = Scored(self.values[-1:])
        for name in ("z", "usual", "limit", "first", "up", "down"):
            setattr(found, name, getattr(self, name)[-1:])
        return found


class Board:
    """Baselines and sums of one stream: a column per (series, subject), in the order they were first met."""

    __slots__ = (
        "_begun",
        "_good",
        "_history",
        "_limit",
        "_marks",
        "_needed",
        "_pending",
        "_refused",
        "_scales",
        "_seen",
        "_sums",
        "_unbegun",
        "_waiting",
        "centre",
        "first",
        "keys",
        "pattern",
        "spread",
        "usual",
    )

    def __init__(self) -> None:
        self.keys: tuple[tuple[str, str], ...] = ()
        self.pattern = b""
        """1 for each column without a usual value, else 0; derived, and in no state."""
        self._pending = 0
        """Rows since the last measurement, whose values wait to enter the history."""
        self._seen = 0
        """Rows since the run began or changed its regime."""
        self._refused: dict[int, list[float]] = {}
        """Column → values refused in a row."""
        self._history = np.empty((0, KEPT))
        """Good values of each column, oldest first, NaN where there are fewer."""
        self._waiting = np.zeros((REFRESH, 0))
        self._marks = np.zeros((REFRESH, 0), np.uint8)
        self.centre, self.spread, self.usual, self._limit, self._begun, self.first = (np.empty(0) for _ in range(6))
        self._needed, self._good = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._sums = np.zeros((2, 0))
        self._scales = Scales(())
        self._unbegun: list[int] = []
        """Columns that have not begun."""

    def place(self, keys: Sequence[tuple[str, str]]) -> None:
        """Make sure that these (series, subject) have columns; new ones come last and have learned nothing."""
        known = set(self.keys)
        new = tuple(key for key in keys if key not in known)
        if not new:
            return
        more = len(new)
        self.keys += new
        self._history = np.concatenate((self._history, np.full((more, KEPT), np.nan)))
        self._waiting = np.concatenate((self._waiting, np.zeros((REFRESH, more))), axis=1)
        self._marks = np.concatenate((self._marks, np.zeros((REFRESH, more), np.uint8)), axis=1)
        nothing = np.full(more, np.nan)
        for name in ("centre", "spread", "usual", "_limit", "_begun", "first"):
            setattr(self, name, np.concatenate((getattr(self, name), nothing)))
        self._needed = np.concatenate((self._needed, np.full(more, LEARNED, np.int64)))
        self._good = np.concatenate((self._good, np.zeros(more, np.int64)))
        self._sums = np.concatenate((self._sums, np.zeros((2, more))), axis=1)
        self._scales = Scales([series_of(name) for name, _ in self.keys])
        self.pattern = np.isnan(self.centre).tobytes()
        self._find_first()

    def step(self, values: F64, usable: NDArray[np.bool_], restarts: Sequence[int] = ()) -> Scored:
        """Score rows f64[n, columns] and let the `usable` (finite) ones teach. Before a row of `restarts` all is forgotten."""
        scored = Scored(values)
        # What is not usable becomes NaN on the scale, and no comparison holds for it.
        x = self._scales.scaled(np.where(usable, values, np.nan))
        row, n, edges = 0, len(values), [*restarts, len(values)]
        while row < n:
            while edges[0] <= row:
                if edges.pop(0) == row:
                    self.restart()
            rows = slice(row, min(row + self.room, edges[0]))
            gathered = self._score(x[rows], scored.z[rows])
            scored.up[rows], scored.down[rows] = gathered[:, 0], gathered[:, 1]
            scored.usual[rows], scored.limit[rows], scored.first[rows] = self.usual, self._limit, self.first
            row = rows.stop
            if self._pending == REFRESH:
                self._measure()
        return scored

    def beside(self, values: F64) -> Scored:
        """`values` f64[1, columns] with what is usual now, and without scores."""
        scored = Scored(values)
        scored.usual[0], scored.limit[0], scored.first[0] = self.usual, self._limit, self.first
        scored.z[0] = scored.up[0] = scored.down[0] = np.nan
        return scored

    @property
    def room(self) -> int:
        """Rows until the next measurement."""
        return REFRESH - self._pending

    def _score(self, x: F64, z: F64) -> F64:
        """Score rows between two measurements into `z`, f64[rows, columns], NaN where there is nothing, and mark which of them
        teach: taken, refused or nothing there. The sums after each row, f64[rows, 2, columns]."""
        np.subtract(x, self.centre, out=z)
        np.divide(z, self.spread, out=z)
        gains: F64 = z[:, None] * _BOTH
        np.maximum(gains, -CAP, out=gains)
        np.minimum(gains, CAP, out=gains)
        gains -= ALLOWANCE
        # A row without a score adds nothing and takes nothing off.
        np.copyto(gains, 0.0, where=np.isnan(gains))
        sums = self._sums
        for gain in gains:  # becomes the sums after its row
            sums = np.minimum(np.maximum(np.add(sums, gain, out=gain), 0.0, out=gain), SUM_MOST, out=gain)
        self._sums[:] = sums
        rows = slice(self._pending, self._pending + len(x))
        self._pending = rows.stop
        marks = self._marks[rows]
        refused = np.abs(z) > OUTLIER
        refused |= np.maximum(gains[:, 0], gains[:, 1]) > SUM_LIMIT
        np.add(refused.view(np.uint8), _TAKEN, out=marks)
        marks *= x == x  # noqa: PLR0124 (not NaN)
        for column, stride in self._scales.strided:
            kept = slice(-self._seen % stride, None, stride)
            thinned = np.zeros(len(x), np.uint8)
            thinned[kept] = marks[kept, column]
            marks[:, column] = thinned
        self._seen += len(x)
        np.copyto(self._waiting[rows], x, where=marks != _IGNORED)
        return gains

    def _measure(self) -> None:
        """Take in what waits, and find centre and spread anew."""
        taken = self._marks == _TAKEN
        fresh = np.add.reduce(taken, axis=0, dtype=np.int64)
        count = self._good = np.minimum(self._good + fresh, KEPT)
        self._enter(taken, fresh)
        if self._refused or _REFUSED in self._marks.tobytes():
            for column in sorted({*np.flatnonzero(np.maximum.reduce(self._marks) == _REFUSED).tolist(), *self._refused}):
                self._refuse(column)
        self._pending = 0
        self._marks[:] = _IGNORED
        self._waiting[:] = 0.0
        self._begin(count)
        measured = np.maximum(count - GUARD, 0)
        middle, mad = find_middles(self._history[:, :WINDOW], measured)
        spread = np.maximum(mad, self._scales.mad_least)
        spread *= MAD_TO_SIGMA
        spread *= WIDENED.take(measured)
        few = measured < self._needed
        np.copyto(middle, np.nan, where=few)
        np.copyto(spread, np.nan, where=few)
        self._set(middle, spread)

    def _enter(self, taken: NDArray[np.bool_], fresh: I64) -> None:
        """Append the `fresh` values of each column that were taken to its history; the oldest leave it."""
        past = self._history
        self._history = np.concatenate((past[:, REFRESH:], self._waiting.T), axis=1)
        for column, count in enumerate(fresh.tolist()):
            if count < REFRESH:
                self._history[column, : KEPT - count] = past[column, count:]
                if count:
                    self._history[column, KEPT - count :] = self._waiting[taken[:, column], column]

    def _refuse(self, column: int) -> None:
        """Follow the refusals of a column through what waits; enough of them in a row are the new usual."""
        refused = self._refused.pop(column, [])
        if self._marks[-1, column] == _TAKEN:
            return
        for mark, x in zip(self._marks[:, column].tolist(), self._waiting[:, column].tolist(), strict=True):
            if mark == _TAKEN:
                refused = []
            elif mark == _REFUSED:
                refused.append(x)
        if len(refused) >= REFUSALS:
            self._history[column] = np.nan
            kept = refused[-KEPT:]
            self._history[column, KEPT - len(kept) :] = kept
            self._good[column] = len(kept)
            self._sums[:, column] = 0.0
        elif refused:
            self._refused[column] = refused

    def _begin(self, count: I64) -> None:
        """Where a column began: the median of its first good values."""
        begins = [column for column in self._unbegun if count[column] >= FIRST]
        for column in begins:
            oldest = KEPT - int(count[column])
            self._begun[column] = np.median(self._history[column, oldest : oldest + FIRST])
        if begins:
            self._find_first()

    def _find_first(self) -> None:
        """What follows from where the columns began."""
        self.first = self._scales.back(self._begun)
        self._unbegun = np.flatnonzero(np.isnan(self._begun)).tolist()

    def _set(self, centre: F64, spread: F64) -> None:
        self.centre, self.spread = centre, spread
        self.usual, self._limit = self._scales.back(np.array((centre, centre + OUTLIER * spread)))
        self.pattern = np.isnan(centre).tobytes()

    def restart(self) -> None:
        """The run has changed its regime: nothing is usual any more, and little will do for the time being."""
        columns = len(self.keys)
        self._history[:] = np.nan
        self._refused = {}
        self._marks[:] = _IGNORED
        self._waiting[:] = 0.0
        self._pending = self._seen = 0
        self._sums[:] = 0.0
        self._needed[:] = LEARNED_AGAIN
        self._good = np.zeros(columns, np.int64)
        self._set(np.full(columns, np.nan), np.full(columns, np.nan))

    def known(self, column: int) -> bool:
        """Whether a column has a usual value."""
        return bool(self.centre[column] == self.centre[column])

    def learned(self, column: int) -> tuple[int, int]:
        """(values that may be measured at the next measurement, how many it takes) of a column."""
        needed = int(self._needed[column])
        good = int(self._good[column]) + self._marks[:, column].tobytes().count(_TAKEN)
        return min(max(good - GUARD, 0), needed), needed

    def rewind(self) -> None:
        """The trainer went back: what gathered since then did not happen."""
        self._sums[:] = 0.0

    def state(self) -> list[Any]:
        """Everything that is not derived, as plain values."""
        arrays = (self._history, self._waiting, self._marks, self.centre, self.spread, self._begun, self._needed, self._sums)
        refused = [[column, values] for column, values in sorted(self._refused.items())]
        return [[list(key) for key in self.keys], self._pending, self._seen, refused, *(a.tobytes() for a in arrays)]

    @classmethod
    def restored(cls, state: list[Any]) -> Board:
        """The board that gave this `state`."""
        board = cls()
        keys, pending, seen, refused, *arrays = state
        board.place([(name, subject) for name, subject in keys])
        board._pending, board._seen = pending, seen
        board._refused = dict(refused)
        history, waiting, marks, centre, spread, begun, needed, sums = arrays
        board._history[:] = np.frombuffer(history).reshape(-1, KEPT)
        board._waiting[:] = np.frombuffer(waiting).reshape(REFRESH, -1)
        board._marks[:] = np.frombuffer(marks, np.uint8).reshape(REFRESH, -1)
        board._begun[:] = np.frombuffer(begun)
        board._needed[:] = np.frombuffer(needed, np.int64)
        board._sums[:] = np.frombuffer(sums).reshape(2, -1)
        board._set(np.frombuffer(centre).copy(), np.frombuffer(spread).copy())
        board._find_first()
        board._good = (~np.isnan(board._history)).sum(axis=1)
        return board
