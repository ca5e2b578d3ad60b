"""Which parts of rules may hold in a row, told from its plain numbers, before anything is scored.

Between two measurements of the board every limit on a score or on a multiple of the usual value is a limit on the value
itself. So a row is compared with those, each a little wider than exact. What only scoring tells (sums) and
what a part must not have counts as holding: a part is left out only where it cannot hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gradwatch_daemon.detect.scales import Scales
from gradwatch_daemon.detect.series import LINEAR, series_of
from gradwatch_daemon.records.rules import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gradwatch_daemon.detect.board import Board
    from gradwatch_daemon.detect.lanes import Key, Test
    from gradwatch_daemon.detect.series import Compute
    from gradwatch_daemon.detect.view import View
    from gradwatch_daemon.records import F64, I64

    Computed = Sequence[tuple[int, Key, Compute]]
    """Column of the board, key and function of each computed series."""

MARGIN = 1e-9
"""Share by which a limit is wider than exact: a million times what rounding makes of a logarithm and its inverse."""

PATTERNS_MAX = 256
"""Rows of statuses remembered for one plan."""

RATIOS = (Measure.TIMES, Measure.FIRST)
SCORES = (Measure.Z, Measure.UP, Measure.DOWN)


class Compared(NamedTuple):
    """A test, with what it compares: a measure of a column of the board (-1 for none), and the place of the plain number that
    this is a measure of. Places: the signals', updates seen, progress, the computed series'."""

    test: Test
    measure: Measure
    column: int
    place: int


class _Limits(NamedTuple):
    """Tests of one measure: their places in the table, columns of the board, signs and limits."""

    at: I64
    columns: I64
    signs: F64
    loose: F64


class Guards:
    """The tests of all parts of a plan, and room for the plain numbers of one row."""

    __slots__ = (
        "_both",
        "_ceiling",
        "_computed",
        "_fixed",
        "_floor",
        "_ratios",
        "_scales",
        "_scored",
        "_scores",
        "_table",
        "_unread",
        "numbers",
        "signals",
    )

    def __init__(
        self, parts: Sequence[Sequence[Compared]], keys: Sequence[tuple[str, str]], signals: int, computed: Computed
    ) -> None:
        self.signals = signals
        self._computed = [(signals + 2 + place, key, compute) for place, (_, key, compute) in enumerate(computed)]
        width = signals + 2 + len(computed)
        self._both = np.zeros(2 * width)
        self.numbers = self._both[:width]
        """Those of the row that was read last; behind them stand their negatives."""
        self._unread: dict[bytes, I64] = {}
        deepest = max(map(len, parts), default=0)
        shape = deepest, len(parts)
        # A test that always holds fills up: that 0, the number of the column of what is always there, is above -1.
        self._table, self._fixed = np.full(shape, signals - 1), np.full(shape, -1.0)
        self._scored = np.array([any(compared.measure in SCORES for compared in tests) for tests in parts], np.bool_)
        listed: dict[Measure, list[tuple[int, int, float, float]]] = {measure: [] for measure in (*RATIOS, Measure.Z)}
        for part, tests in enumerate(parts):
            for depth, compared in enumerate(tests):
                test, measure, column, place = compared
                if not _bounded(compared, keys):
                    continue
                loose = min(test.at, test.back)
                self._table[depth, part] = place if test.sign > 0 else width + place
                self._fixed[depth, part] = loose
                if measure in listed:
                    listed[measure].append((depth * len(parts) + part, column, test.sign, loose))
        self._ratios = {measure: _limits_of(listed[measure]) for measure in RATIOS}
        self._scores = _limits_of(listed[Measure.Z])
        self._scales = Scales([series_of(keys[column][0]) for column in self._scores.columns.tolist()])
        self._floor, self._ceiling = self._scales.range

    def limits(self, board: Board) -> F64:
        """What the numbers are compared with until the next measurement, f64[tests of a part, parts]."""
        found: F64 = self._fixed.copy()
        for measure, known in ((Measure.TIMES, board.usual), (Measure.FIRST, board.first)):
            at, columns, _, loose = self._ratios[measure]
            limit = known.take(columns) * loose
            found.put(at, limit - MARGIN * np.abs(limit))
        at, columns, signs, loose = self._scores
        centre, far = board.centre.take(columns), loose * board.spread.take(columns)
        x = centre + signs * (far - MARGIN * (1.0 + np.abs(centre) + np.abs(far)))
        limit = self._scales.back(x) * signs
        limit -= MARGIN * np.abs(limit)
        # What lies beyond the ends of a scale counts as its end: a limit there lets all of them pass, or none.
        up = signs > 0
        limit[np.where(up, x <= self._floor, x >= self._ceiling)] = -np.inf
        limit[np.where(up, x >= self._ceiling, x <= self._floor)] = np.inf
        found.put(at, limit)
        return found

    def read(self, view: View) -> F64:
        """Make `numbers` those of a row; NaN for what is not readable."""
        numbers, signals, status = self.numbers, self.signals, view.row[1]
        numbers[: signals - 2] = view.block.values[:, 0]
        unread = self._unread.get(status)
        if unread is None:
            if len(self._unread) >= PATTERNS_MAX:
                self._unread.clear()
            unread = self._unread[status] = np.array([*np.flatnonzero(view.block.status[:, 0]), signals - 2], np.int64)
        numbers[unread] = np.nan
        numbers[signals] = view.state.rows
        numbers[signals + 1] = np.nan if view.updates_total is None else view.update / view.updates_total
        for place, key, compute in self._computed:
            numbers[place] = view.compute(key, compute)
        return numbers

    def may_hold(self, limits: F64) -> NDArray[np.bool_]:
        """Which parts may hold in the row that was read, all of whose values are finite."""
        both, width = self._both, len(self.numbers)
        np.negative(self.numbers, out=both[width:])
        possible: NDArray[np.bool_] = np.logical_and.reduce(both.take(self._table) > limits, axis=0)
        return possible

    def scores_count(self, possible: NDArray[np.bool_]) -> bool:
        """Whether a score or a sum decides over one of these parts."""
        return bool((possible & self._scored).any())


def _limits_of(listed: list[tuple[int, int, float, float]]) -> _Limits:
    at, columns, signs, loose = zip(*listed, strict=True) if listed else ((), (), (), ())
    return _Limits(np.array(at, np.int64), np.array(columns, np.int64), np.array(signs), np.array(loose))


def _bounded(compared: Compared, keys: Sequence[tuple[str, str]]) -> bool:
    """Whether a test can be told from a plain number."""
    test, measure, column, _ = compared
    if test.inverted or measure in (Measure.UP, Measure.DOWN, Measure.USUAL):
        return False
    # A usual value below 0 would turn the comparison round.
    return measure not in RATIOS or series_of(keys[column][0]).scale.kind != LINEAR
