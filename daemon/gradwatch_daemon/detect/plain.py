"""The same few operations on arrays over a block and on the plain numbers of a single row, with equal bits.

A detector is written once, for arrays, with operators (`&`, `|`, `>`, `*`) and with these. In a block of one row it is
given floats and bools instead: numpy's fixed cost of half a microsecond an operation was nine tenths of a single check.
Only operations that IEEE 754 rounds in one way are here: no logarithm, no exponential.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gradwatch_daemon.records import F64

    Mask = NDArray[np.bool_]


class BlockMath:
    """On arrays over the rows of a block."""

    __slots__ = ()

    def where(self, mask: Mask, yes: Any, no: Any) -> NDArray[Any]:
        """`yes` where the mask holds, else `no`."""
        chosen: NDArray[Any] = np.where(mask, yes, no)
        return chosen

    def negate(self, mask: Mask) -> Mask:
        """Where the mask does not hold (`~` turns a bool into -2)."""
        return ~mask

    def finite(self, values: F64) -> Mask:
        """Neither NaN nor infinite."""
        return np.isfinite(values)

    def unknown(self, values: F64) -> Mask:
        """NaN."""
        return np.isnan(values)

    def divide(self, a: F64, b: F64) -> F64:
        """Quotient; x / 0 is infinite or NaN."""
        with np.errstate(all="ignore"):
            quotient: F64 = a / b
        return quotient

    def larger(self, a: F64, b: F64 | float) -> F64:
        """The larger; a NaN yields to the other."""
        return np.fmax(a, b)


class RowMath(BlockMath):
    """On the numbers of one row."""

    __slots__ = ()

    def where(self, mask: Any, yes: Any, no: Any) -> Any:
        """`yes` if the mask holds, else `no`."""
        return yes if mask else no

    def negate(self, mask: Any) -> Any:
        """Whether the mask does not hold."""
        return not mask

    def finite(self, values: Any) -> Any:
        """Neither NaN nor infinite."""
        return math.isfinite(values)

    def unknown(self, values: Any) -> Any:
        """NaN."""
        return values != values  # noqa: PLR0124 (NaN; half the cost of math.isnan)

    def divide(self, a: Any, b: Any) -> Any:
        """Quotient; x / 0 is infinite or NaN."""
        if b:
            return a / b
        return math.nan if a != a or not a else math.copysign(math.inf, a) * math.copysign(1.0, b)  # noqa: PLR0124 (NaN; half the cost of math.isnan)

    def larger(self, a: Any, b: Any) -> Any:
        """The larger; a NaN yields to the other."""
        return a if b != b or a >= b else b  # noqa: PLR0124 (NaN; half the cost of math.isnan)


BLOCK_MATH, ROW_MATH = BlockMath(), RowMath()
