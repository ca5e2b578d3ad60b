"""Rows as text: JSON Lines, and CSV with one column a signal."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any, TextIO

from gradwatch_daemon.exporting.flat import FIXED, MISSING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gradwatch_daemon.exporting.flat import FlatRow


def write_jsonl(rows: Iterable[FlatRow], out: TextIO) -> int:
    """One object a row: its head, `values` and `missing`. Returns the number of rows."""
    count = 0
    for row in rows:
        count += 1
        document: dict[str, Any] = row.head._asdict()
        document["values"] = {name: _number(value) for name, value in row.values.items()}
        document[MISSING] = row.missing
        out.write(json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n")
    return count


def write_csv(rows: Iterable[FlatRow], columns: Sequence[str], out: TextIO) -> int:
    """A header and one line a row. A cell of a signal is a number, `NaN`, `Infinity`, `-Infinity`, or empty where it was not
    measured; the last column then has `signal=reason`, with `;` between. Returns the number of rows."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*FIXED, *columns, MISSING])
    count = 0
    for row in rows:
        count += 1
        head = ["" if cell is None else cell for cell in row.head[:-1]]
        cells = [spelled(row.values[name]) if name in row.values else "" for name in columns]
        why = ";".join(f"{name}={reason}" for name, reason in row.missing.items())
        writer.writerow([*head, " ".join(row.head.flags), *cells, why])
    return count


def spelled(value: float) -> str:
    """As the API spells what JSON has no number for; else the digits."""
    return repr(value) if math.isfinite(value) else str(_number(value))


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
