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

from gradwatch_daemon.detect.series import LINEAR, LOGIT, series_of

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


class Scored:
    """One block against the board, f64[n, columns] each; `usual`, `limit` (at z = 4) and `first` in the signal's own unit."""

    __slots__ = ("down", "first", "limit", "up", "usual", "values", "z")

    def __init__(self, values: F64) -> None:
        self.values = values
        shape = values.shape
        self.z, self.usual, self.limit, self.first = np.empty(shape), np.empty(shape), np.empty(shape), np.empty(shape)
        self.up, self.down = np.empty(shape), np.empty(shape)


class Board:
    """Baselines and sums of one stream: a column per (series, subject), in the order they were first met."""

    __slots__ = (
        "_begun",
        "_centre",
        "_first",
        "_good",
        "_history",
        "_least",
        "_limit",
        "_linear",
        "_logit",
        "_logits",
        "_mad_least",
        "_marks",
        "_needed",
        "_pending",
        "_refused",
        "_seen",
        "_spread",
        "_strided",
        "_sums",
        "_usual",
        "_waiting",
        "keys",
    )

    def __init__(self) -> None:
        self.keys: tuple[tuple[str, str], ...] = ()
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
        self._centre, self._spread, self._usual, self._limit, self._begun, self._first = (np.empty(0) for _ in range(6))
        self._needed, self._good = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._sums = np.zeros((2, 0))
        self._describe()

    def _describe(self) -> None:
        """What the scales say of each column."""
        series = [series_of(name) for name, _ in self.keys]
        kinds = [one.scale.kind for one in series]
        self._linear = np.array([kind == LINEAR for kind in kinds], np.bool_)
        self._logit = np.array([kind == LOGIT for kind in kinds], np.bool_)
        self._least = np.array([-np.inf if one.scale.kind == LINEAR else one.scale.least for one in series], np.float64)
        self._mad_least = np.array([one.scale.mad_least for one in series], np.float64)
        self._logits = bool(self._logit.any())
        strides = sorted({one.stride for one in series if one.stride > 1})
        self._strided = [(np.array([p for p, one in enumerate(series) if one.stride == stride]), stride) for stride in strides]

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
        for name in ("_centre", "_spread", "_usual", "_limit", "_begun", "_first"):
            setattr(self, name, np.concatenate((getattr(self, name), nothing)))
        self._needed = np.concatenate((self._needed, np.full(more, LEARNED, np.int64)))
        self._good = np.concatenate((self._good, np.zeros(more, np.int64)))
        self._sums = np.concatenate((self._sums, np.zeros((2, more))), axis=1)
        self._describe()

    def step(self, values: F64, usable: NDArray[np.bool_], restarts: Sequence[int] = ()) -> Scored:
        """Score rows f64[n, columns] and let the `usable` (finite) ones teach. Before a row of `restarts` all is forgotten."""
        scored = Scored(values)
        # What is not usable becomes NaN on the scale, and no comparison holds for it.
        x = self._scaled(np.where(usable, values, np.nan))
        row, n, edges = 0, len(values), [*restarts, len(values)]
        while row < n:
            while edges[0] <= row:
                if edges.pop(0) == row:
                    self._restart()
            rows = slice(row, min(row + REFRESH - self._pending, edges[0]))
            self._score(x[rows], scored, rows)
            row = rows.stop
            if self._pending == REFRESH:
                self._measure()
        return scored

    def _scaled(self, values: F64) -> F64:
        """Values on the scales of their columns. numpy's log gives equal bits in any contiguous shape (a test holds it)."""
        x = np.maximum(values, self._least)
        if self._logits:
            odds = np.minimum(x, 1.0 - self._least)
            x = np.where(self._logit, odds / np.where(self._logit, 1.0 - odds, 1.0), x)
        return np.where(self._linear, values, np.log(np.where(self._linear, 1.0, x)))

    def _score(self, x: F64, out: Scored, rows: slice) -> None:
        """Score rows between two measurements: x f64[rows, columns], NaN where there is nothing."""
        z = (x - self._centre) / self._spread
        out.z[rows], out.usual[rows], out.limit[rows], out.first[rows] = z, self._usual, self._limit, self._first
        # A row without a score adds nothing and takes nothing off.
        capped = np.minimum(np.maximum(z, -CAP), CAP)
        gains, losses = capped - ALLOWANCE, -capped - ALLOWANCE
        unknown = np.isnan(z)
        gains[unknown] = losses[unknown] = 0.0
        up, down = self._sums
        for row in range(len(x)):
            up = np.minimum(np.maximum(up + gains[row], 0.0), SUM_MOST)
            down = np.minimum(np.maximum(down + losses[row], 0.0), SUM_MOST)
            out.up[rows.start + row], out.down[rows.start + row] = up, down
        self._sums[0], self._sums[1] = up, down
        refused = (np.abs(z) > OUTLIER) | (out.up[rows] > SUM_LIMIT) | (out.down[rows] > SUM_LIMIT)
        place = slice(self._pending, self._pending + len(x))
        marks = np.where(refused, np.uint8(_REFUSED), np.uint8(_TAKEN))
        marks[np.isnan(x)] = _IGNORED
        for thinned, stride in self._strided:
            skipped = np.arange(self._seen, self._seen + len(x)) % stride != 0
            marks[np.ix_(skipped, thinned)] = _IGNORED
        self._marks[place] = marks
        self._waiting[place] = np.where(marks == _IGNORED, 0.0, x)
        self._good += (marks == _TAKEN).sum(axis=0)
        self._pending += len(x)
        self._seen += len(x)

    def _measure(self) -> None:
        """Take in what waits, and find centre and spread anew."""
        taken = self._marks == _TAKEN
        whole = taken.all(axis=0)
        self._history[whole] = np.concatenate((self._history[whole, REFRESH:], self._waiting.T[whole]), axis=1)
        for column in np.flatnonzero(taken.any(axis=0) & ~whole):
            kept = np.concatenate((self._history[column], self._waiting[taken[:, column], column]))
            self._history[column] = kept[-KEPT:]
        for column in sorted({*np.flatnonzero((self._marks == _REFUSED).any(axis=0)).tolist(), *self._refused}):
            self._refuse(column)
        self._pending = 0
        self._marks[:] = _IGNORED
        self._waiting[:] = 0.0
        count = self._good = (~np.isnan(self._history)).sum(axis=1)
        self._begin(count)
        old = self._history[:, :WINDOW]
        measured = np.maximum(count - GUARD, 0)
        centre = _middle(np.sort(old, axis=1), measured)
        deviations = np.sort(np.abs(old - centre[:, None]), axis=1)
        mad = deviations[np.arange(len(deviations)), np.maximum(measured - 1, 0) // 2]
        spread = MAD_TO_SIGMA * np.maximum(mad, self._mad_least) * (1.0 + SMALL / np.maximum(measured, 1))
        known = measured >= self._needed
        self._set(np.where(known, centre, np.nan), np.where(known, spread, np.nan))

    def _refuse(self, column: int) -> None:
        """Follow the refusals of a column through what waits; enough of them in a row are the new usual."""
        refused = self._refused.pop(column, [])
        for mark, x in zip(self._marks[:, column].tolist(), self._waiting[:, column].tolist(), strict=True):
            if mark == _TAKEN:
                refused = []
            elif mark == _REFUSED:
                refused.append(x)
        if len(refused) >= REFUSALS:
            self._history[column] = np.nan
            kept = refused[-KEPT:]
            self._history[column, KEPT - len(kept) :] = kept
            self._sums[:, column] = 0.0
        elif refused:
            self._refused[column] = refused

    def _begin(self, count: I64) -> None:
        """Where a column began: the median of its first good values."""
        for column in np.flatnonzero(np.isnan(self._begun) & (count >= FIRST)):
            oldest = KEPT - int(count[column])
            self._begun[column] = np.median(self._history[column, oldest : oldest + FIRST])
        self._first = self._back(self._begun)

    def _set(self, centre: F64, spread: F64) -> None:
        self._centre, self._spread = centre, spread
        self._usual, self._limit = self._back(centre), self._back(centre + OUTLIER * spread)

    def _back(self, x: F64) -> F64:
        """Scale → values, column by column."""
        size = np.exp(np.minimum(np.where(self._linear, 0.0, x), 700.0))
        return np.where(self._linear, x, np.where(self._logit, size / (1.0 + size), size))

    def _restart(self) -> None:
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
        return bool(self._centre[column] == self._centre[column])

    def learned(self, column: int) -> tuple[int, int]:
        """(values that may be measured at the next measurement, how many it takes) of a column."""
        needed = int(self._needed[column])
        return min(max(int(self._good[column]) - GUARD, 0), needed), needed

    def progress(self) -> bytes:
        """How far learning is, column by column; equal bytes say the same of it."""
        return np.where(np.isnan(self._centre), self._good, -1).tobytes()

    def rewind(self) -> None:
        """The trainer went back: what gathered since then did not happen."""
        self._sums[:] = 0.0

    def state(self) -> list[Any]:
        """Everything that is not derived, as plain values."""
        arrays = (self._history, self._waiting, self._marks, self._centre, self._spread, self._begun, self._needed, self._sums)
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
        board._first = board._back(board._begun)
        board._good = (~np.isnan(board._history)).sum(axis=1) + (board._marks == _TAKEN).sum(axis=0)
        return board


def _middle(ordered: F64, count: I64) -> F64:
    """Median of the first `count` of each sorted row; NaN of none."""
    rows = np.arange(len(ordered))
    high, low = count // 2, np.maximum(count - 1, 0) // 2
    median: F64 = 0.5 * (ordered[rows, np.minimum(high, ordered.shape[1] - 1)] + ordered[rows, low])
    return median
