"""Rows as a Parquet file, through pyarrow."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.exporting.flat import FIXED, MISSING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from gradwatch_daemon.exporting.flat import FlatRow

GROUP_ROWS = 8192
"""Rows held at once."""

_HEAD_TYPES = {
    "run": pa.string(),
    "attempt": pa.int32(),
    "rank": pa.int32(),
    "update": pa.int64(),
    "t_ns": pa.int64(),
    "env_steps": pa.int64(),
    "level": pa.string(),
    "flags": pa.list_(pa.string()),
}


def schema_of(columns: Sequence[str]) -> pa.Schema:
    """The head, a nullable float32 for each signal with unit and estimator as its metadata, and the map of what is missing."""
    head = [pa.field(name, _HEAD_TYPES[name]) for name in FIXED]
    signals = [pa.field(name, pa.float32(), metadata=_meaning(name)) for name in columns]
    return pa.schema([*head, *signals, pa.field(MISSING, pa.map_(pa.string(), pa.string()))])


def _meaning(column: str) -> dict[str, str]:
    signal = SIGNALS.get(column.partition("[")[0])
    if signal is None:
        return {}
    return {"unit": signal.unit.value, "estimator": signal.estimator, "window": signal.window, "sign": signal.sign}


def write_parquet(rows: Iterable[FlatRow], columns: Sequence[str], path: Path) -> int:
    """Null is not measured, with its reason in `missing`; NaN is NaN. Returns the number of rows."""
    schema, waiting, count = schema_of(columns), iter(rows), 0
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(islice(waiting, GROUP_ROWS)):
            writer.write_table(pa.table(_arrays(group, columns, schema), schema=schema))
            count += len(group)
    return count


def _arrays(group: Sequence[FlatRow], columns: Sequence[str], schema: pa.Schema) -> list[Any]:
    heads = zip(*(row.head for row in group), strict=True)
    given = [list(map(list, column)) if name == "flags" else list(column) for name, column in zip(FIXED, heads, strict=True)]
    given += [[row.values.get(name) for row in group] for name in columns]
    given.append([list(row.missing.items()) for row in group])
    # `from_pandas=False`: a NaN that was measured stays one and does not become null.
    return [pa.array(column, type=field.type, from_pandas=False) for column, field in zip(given, schema, strict=True)]
