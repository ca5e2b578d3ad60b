"""Rows as a Parquet file, through pyarrow. Column by column: a million updates are no million objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.exporting.flat import FIXED, LEVELS, MISSING, STATUS_NAMES, column_name, flags_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from gradwatch_daemon.records import SignalBlock

GROUP_ROWS = 8192
"""Rows held at once, and of one row group: blocks may be of one row each."""

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


def write_parquet(
    blocks: Iterable[SignalBlock], columns: Sequence[str], path: Path, first: int | None, last: int | None
) -> int:
    """The rows of blocks whose update lies from `first` to `last`: null is not measured, with its reason in `missing`; NaN is
    NaN. Returns their number."""
    schema, count = schema_of(columns), 0
    waiting: list[pa.Table] = []
    with pq.ParquetWriter(path, schema) as writer:
        for block in blocks:
            kept = np.ones(len(block), np.bool_)
            kept &= True if first is None else block.update >= first
            kept &= True if last is None else block.update <= last
            if kept.any():
                waiting.append(pa.table(_arrays(block, kept, columns), schema=schema))
                count += len(waiting[-1])
            if sum(map(len, waiting)) >= GROUP_ROWS:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return count


def _arrays(block: SignalBlock, kept: NDArray[np.bool_], columns: Sequence[str]) -> list[Any]:
    n = int(kept.sum())
    values, status = block.values[:, kept], block.status[:, kept]
    rank = block.stream.rank_shown
    steps = block.env_steps[kept]
    names = [column_name(key) for key in block.signals]
    places = {name: place for place, name in enumerate(names)}
    head = [
        pa.repeat(pa.scalar(block.stream.run, pa.string()), n),
        pa.repeat(pa.scalar(block.stream.attempt, pa.int32()), n),
        pa.repeat(pa.scalar(rank, pa.int32()), n),
        pa.array(block.update[kept]),
        pa.array(block.t_ns[kept]),
        pa.array(steps, mask=steps < 0),
        pa.array(LEVELS).take(pa.array(block.level[kept])),
        pa.array([flags_of(flags) for flags in block.flags[kept].tolist()], _HEAD_TYPES["flags"]),
    ]
    # Not as pandas would have it: a NaN that was measured stays one and does not become null.
    signals = [
        pa.array(values[places[name]], pa.float32(), mask=status[places[name]] != 0, from_pandas=False)
        if name in places
        else pa.nulls(n, pa.float32())
        for name in columns
    ]
    return [*head, *signals, _missing(status, names)]


def _missing(status: NDArray[np.uint8], names: Sequence[str]) -> pa.MapArray:
    """For each row the signals without a value, and why."""
    rows, signals = np.nonzero(status.T)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=status.shape[1]))])
    reasons = status.T[rows, signals]
    keys = pa.array(list(names), pa.string()).take(pa.array(signals))
    return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), keys, pa.array(STATUS_NAMES).take(pa.array(reasons)))
