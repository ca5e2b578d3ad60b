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

from gradwatch_daemon.detect.middles import Middles
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


class Board:
    """Baselines and sums of one stream: a column per (series, subject), in the order they were first met.

    Rows are scored as they come; which of them teach (`_settle`) is worked out for all at once when it is asked for, at the
    latest at the next measurement.
    """

    __slots__ = (
        "_begun",
        "_centre",
        "_few",
        "_first",
        "_gathered",
        "_good",
        "_history",
        "_limit",
        "_marks",
        "_middles",
        "_needed",
        "_pending",
        "_refused",
        "_scales",
        "_scores",
        "_seen",
        "_settled",
        "_spread",
        "_sums",
        "_taught",
        "_unknown",
        "_usual",
        "_waiting",
        "_widened",
        "_x",
        "keys",
        "pattern",
    )

    def __init__(self) -> None:
        self.keys: tuple[tuple[str, str], ...] = ()
        self.pattern = b""
        """1 for each column without a usual value, else 0; derived, and in no state."""
        self._taught: bytes | None = None
        """`taught`, while nothing came to such a column."""
        self._pending = self._settled = 0
        """Rows since the last measurement, whose values wait to enter the history, and those of them with a mark."""
        self._seen = 0
        """Rows since the run began or changed its regime."""
        self._refused: dict[int, list[float]] = {}
        """Column → values refused in a row."""
        self._history = np.empty((0, KEPT))
        """Good values of each column, oldest first, NaN where there are fewer."""
        self._waiting = np.zeros((REFRESH, 0))
        self._marks = np.zeros((REFRESH, 0), np.uint8)
        self._centre, self._spread, self._usual, self._limit, self._begun, self._first = (np.empty(0) for _ in range(6))
        self._needed, self._good = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._sums = np.zeros((2, 0))
        self._describe()

    def _describe(self) -> None:
        """What is derived from the columns alone, and room for the rows that wait."""
        columns = len(self.keys)
        self._scales = Scales([series_of(name) for name, _ in self.keys])
        self._x, self._scores, self._gathered = (np.empty((REFRESH, *of, columns)) for of in ((), (), (2,)))
        self._middles: Middles | None = None
        self._find_unknown()

    def place(self, keys: Sequence[tuple[str, str]]) -> None:
        """Make sure that these (series, subject) have columns; new ones come last and have learned nothing."""
        known = set(self.keys)
        new = tuple(key for key in keys if key not in known)
        if not new:
            return
        self._settle()
        more = len(new)
        self.keys += new
        self._history = np.concatenate((self._history, np.full((more, KEPT), np.nan)))
        self._waiting = np.concatenate((self._waiting, np.zeros((REFRESH, more))), axis=1)
        self._marks = np.concatenate((self._marks, np.zeros((REFRESH, more), np.uint8)), axis=1)
        nothing = np.full(more, np.nan)
        for name in ("_centre", "_spread", "_usual", "_limit", "_begun", "_first"):
            setattr(self, name, np.concatenate((getattr(self, name), nothing)))
        self._needed = np.concatenate((self._needed, np.full(more, LEARNED, np.int64)))
        self._good = np.concatenate((self._good, np.zeros(more, np.int64)))
        self._sums = np.concatenate((self._sums, np.zeros((2, more))), axis=1)
        self._describe()

    def step(self, values: F64, usable: NDArray[np.bool_], restarts: Sequence[int] = ()) -> Scored:
        """Score rows f64[n, columns] and let the `usable` (finite) ones teach. Before a row of `restarts` all is forgotten."""
        scored, self._taught = Scored(values), None
        # What is not usable becomes NaN on the scale, and no comparison holds for it.
        x = self._scales.scaled(np.where(usable, values, np.nan))
        row, n, edges = 0, len(values), [*restarts, len(values)]
        while row < n:
            while edges[0] <= row:
                if edges.pop(0) == row:
                    self.restart()
            rows = slice(row, min(row + REFRESH - self._pending, edges[0]))
            gathered = self._score(x[rows])
            scored.z[rows] = self._scores[self._pending - len(gathered) : self._pending]
            scored.usual[rows], scored.limit[rows], scored.first[rows] = self._usual, self._limit, self._first
            scored.up[rows], scored.down[rows] = gathered[:, 0], gathered[:, 1]
            row = rows.stop
            if self._pending == REFRESH:
                self._measure()
        return scored

    def step_row(self, measured: F64, *, teaches: bool) -> tuple[F64, F64, F64]:
        """`step` for one row: `measured` f64[7, columns] holds its values, and is given what `lanes.SCORED` lists beside them.
        Returns `usual`, `limit` and `first` of a `Scored`, f64[columns] each."""
        values, known = measured[0], (self._usual, self._limit, self._first)
        x = self._scales.scaled(np.where(np.isfinite(values), values, np.nan)) if teaches else np.full(len(values), np.nan)
        measured[5:] = self._score(x[None])[0]
        measured[1] = self._scores[self._pending - 1]
        measured[3] = self._usual
        np.divide(values, self._usual, out=measured[2])
        np.divide(values, self._first, out=measured[4])
        if len(self._unknown) and np.isfinite(x[self._unknown]).any():
            self._taught = None
        if self._pending == REFRESH:
            self._measure()
        return known

    def _score(self, x: F64) -> F64:
        """Score rows between two measurements, f64[rows, columns], NaN where there is nothing; sums f64[rows, 2, columns]."""
        rows = slice(self._pending, self._pending + len(x))
        z, gathered = self._scores[rows], self._gathered[rows]
        self._x[rows] = x
        np.subtract(x, self._centre, out=z)
        np.divide(z, self._spread, out=z)
        gains = z[:, None] * _BOTH
        np.maximum(gains, -CAP, out=gains)
        np.minimum(gains, CAP, out=gains)
        gains -= ALLOWANCE
        # A row without a score adds nothing and takes nothing off.
        gains[np.isnan(gains)] = 0.0
        sums = self._sums
        for gain, after in zip(gains, gathered, strict=True):
            sums = np.maximum(np.add(sums, gain, out=after), 0.0, out=after)
        if len(x) == 1:
            np.minimum(sums, SUM_MOST, out=sums)
        elif (gathered > SUM_MOST).any():  # seldom, so that the rows are gone through again
            sums = self._sums
            for gain, after in zip(gains, gathered, strict=True):
                np.minimum(np.maximum(sums + gain, 0.0), SUM_MOST, out=after)
                sums = after
        self._sums[:] = sums
        self._pending += len(x)
        self._seen += len(x)
        return gathered

    def _settle(self) -> None:
        """Mark the rows that wait: taken, refused or nothing there."""
        rows = slice(self._settled, self._pending)
        if rows.start == rows.stop:
            return
        x, gathered = self._x[rows], self._gathered[rows]
        refused = np.abs(self._scores[rows]) > OUTLIER
        refused |= gathered[:, 0] > SUM_LIMIT
        refused |= gathered[:, 1] > SUM_LIMIT
        marks = np.where(refused, np.uint8(_REFUSED), np.uint8(_TAKEN))
        marks[np.isnan(x)] = _IGNORED
        seen = self._seen - self._pending
        for column, stride in self._scales.strided:
            kept = slice(-(seen + rows.start) % stride, None, stride)
            thinned = np.zeros(len(marks), np.uint8)
            thinned[kept] = marks[kept, column]
            marks[:, column] = thinned
        self._marks[rows] = marks
        self._waiting[rows] = np.where(marks == _IGNORED, 0.0, x)
        self._settled = self._pending

    def _measure(self) -> None:
        """Take in what waits, and find centre and spread anew."""
        self._settle()
        taken = self._marks == _TAKEN
        count = self._good = np.minimum(self._good + np.add.reduce(taken, axis=0, dtype=np.int64), KEPT)
        self._enter(taken)
        if self._refused or _REFUSED in self._marks.tobytes():
            for column in sorted({*np.flatnonzero((self._marks == _REFUSED).any(axis=0)).tolist(), *self._refused}):
                self._refuse(column)
        self._pending = self._settled = 0
        self._marks[:] = _IGNORED
        self._waiting[:] = 0.0
        self._begin(count)
        measured = np.maximum(count - GUARD, 0)
        if self._middles is None or self._middles.count != measured.tobytes():
            self._middles = Middles(measured, WINDOW)
            self._widened, self._few = 1.0 + SMALL / np.maximum(measured, 1), measured < self._needed
        middle, mad = self._middles.of(self._history[:, :WINDOW])
        spread = MAD_TO_SIGMA * np.maximum(mad, self._scales.mad_least) * self._widened
        middle[self._few] = spread[self._few] = np.nan
        self._set(middle, spread)

    def _enter(self, taken: NDArray[np.bool_]) -> None:
        """Append what was taken to the history of each column; the oldest leave it."""
        past = self._history
        self._history = np.concatenate((past[:, REFRESH:], self._waiting.T), axis=1)
        partly = np.flatnonzero(~taken.all(axis=0))
        if not len(partly):
            return
        fresh = taken.T[partly]
        both = np.concatenate((past[partly], self._waiting.T[partly]), axis=1)
        kept = np.concatenate((np.arange(KEPT) >= np.count_nonzero(fresh, axis=1)[:, None], fresh), axis=1)
        self._history[partly] = both[kept].reshape(-1, KEPT)

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
        begins = np.flatnonzero(np.isnan(self._begun) & (count >= FIRST)).tolist()
        for column in begins:
            oldest = KEPT - int(count[column])
            self._begun[column] = np.median(self._history[column, oldest : oldest + FIRST])
        if begins:
            self._first = self._scales.back(self._begun)

    def _set(self, centre: F64, spread: F64) -> None:
        self._centre, self._spread = centre, spread
        self._usual, self._limit = self._scales.back(np.array((centre, centre + OUTLIER * spread)))
        self._find_unknown()

    def _find_unknown(self) -> None:
        unknown = np.isnan(self._centre)
        self.pattern = unknown.tobytes()
        for column, _ in self._scales.strided:  # nobody waits for these
            unknown[column] = False
        self._unknown = np.flatnonzero(unknown)
        self._taught = None

    def restart(self) -> None:
        """The run has changed its regime: nothing is usual any more, and little will do for the time being."""
        columns = len(self.keys)
        self._history[:] = np.nan
        self._refused = {}
        self._marks[:] = _IGNORED
        self._waiting[:] = 0.0
        self._pending = self._settled = self._seen = 0
        self._sums[:] = 0.0
        self._needed[:] = LEARNED_AGAIN
        self._middles = None
        self._good = np.zeros(columns, np.int64)
        self._set(np.full(columns, np.nan), np.full(columns, np.nan))

    def known(self, column: int) -> bool:
        """Whether a column has a usual value."""
        return bool(self._centre[column] == self._centre[column])

    @property
    def taught(self) -> bytes:
        """How far learning is where nothing is usual yet; equal bytes (with equal `pattern`) say the same of it."""
        if self._taught is None:
            self._settle()
            good = self._good[self._unknown] + np.count_nonzero(self._marks[:, self._unknown] == _TAKEN, axis=0)
            self._taught = good.tobytes() + self._needed[self._unknown].tobytes()
        return self._taught

    def learned(self, column: int) -> tuple[int, int]:
        """(values that may be measured at the next measurement, how many it takes) of a column."""
        self._settle()
        needed = int(self._needed[column])
        good = int(self._good[column]) + self._marks[:, column].tobytes().count(_TAKEN)
        return min(max(good - GUARD, 0), needed), needed

    def rewind(self) -> None:
        """The trainer went back: what gathered since then did not happen."""
        self._sums[:] = 0.0

    def state(self) -> list[Any]:
        """Everything that is not derived, as plain values."""
        self._settle()
        arrays = (self._history, self._waiting, self._marks, self._centre, self._spread, self._begun, self._needed, self._sums)
        refused = [[column, values] for column, values in sorted(self._refused.items())]
        return [[list(key) for key in self.keys], self._pending, self._seen, refused, *(a.tobytes() for a in arrays)]

    @classmethod
    def restored(cls, state: list[Any]) -> Board:
        """The board that gave this `state`."""
        board = cls()
        keys, pending, seen, refused, *arrays = state
        board.place([(name, subject) for name, subject in keys])
        board._pending, board._settled, board._seen = pending, pending, seen
        board._refused = dict(refused)
        history, waiting, marks, centre, spread, begun, needed, sums = arrays
        board._history[:] = np.frombuffer(history).reshape(-1, KEPT)
        board._waiting[:] = np.frombuffer(waiting).reshape(REFRESH, -1)
        board._marks[:] = np.frombuffer(marks, np.uint8).reshape(REFRESH, -1)
        board._begun[:] = np.frombuffer(begun)
        board._needed[:] = np.frombuffer(needed, np.int64)
        board._sums[:] = np.frombuffer(sums).reshape(2, -1)
        board._set(np.frombuffer(centre).copy(), np.frombuffer(spread).copy())
        board._first = board._scales.back(board._begun)
        board._good = (~np.isnan(board._history)).sum(axis=1)
        return board
