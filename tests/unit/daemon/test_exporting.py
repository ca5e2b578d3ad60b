"""Rows in every table format, on blocks made by hand: all ranks together, no env steps, flags, signals that come and go."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from gradwatch_contracts.columns import RowFlag, Status
from gradwatch_daemon.exporting.flat import flat_rows
from gradwatch_daemon.exporting.parquet import write_parquet
from gradwatch_daemon.exporting.text import write_csv, write_jsonl
from gradwatch_daemon.records import ALL_RANKS, SignalBlock, SignalKey, Stream

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ["policy.kl.k3", "policy.entropy.norm[arm]", "opt.lr"]


def _block(
    first: int, signals: list[SignalKey], values: list[list[float]], status: list[list[int]], **head: Any
) -> SignalBlock:
    n = len(values[0])
    given = {"env_steps": [-1] * n, "level": [2] * n, "flags": [0] * n, **head}
    return SignalBlock(
        Stream("ant-ppo", 2, ALL_RANKS),
        np.arange(first, first + n, dtype=np.int64),
        np.arange(n, dtype=np.int64) + 1_769_860_800_123_456_789,
        np.array(given["env_steps"], np.int64),
        np.array(given["level"], np.uint8),
        np.array(given["flags"], np.uint8),
        tuple(signals),
        np.array(values, np.float32),
        np.array(status, np.uint8),
    )


def _blocks() -> list[SignalBlock]:
    kl, entropy, rate = SignalKey("policy.kl.k3"), SignalKey("policy.entropy.norm", "arm"), SignalKey("opt.lr")
    level, undefined = int(Status.LEVEL), int(Status.UNDEFINED)
    both = int(RowFlag.PARTIAL) | int(RowFlag.RANKS_MISSING)
    return [
        _block(5, [kl, entropy], [[0.1, math.nan], [0.0, -math.inf]], [[0, 0], [level, 0]], flags=[0, both], level=[3, 0]),
        _block(7, [rate], [[2.5e-4, 0.0]], [[0, undefined]], env_steps=[4096, -1]),
    ]


EXPECTED = [
    ("debug", [], None, {"policy.kl.k3": "0.1"}, {"policy.entropy.norm[arm]": "level"}),
    ("off", ["partial", "ranks_missing"], None, {"policy.kl.k3": "NaN", "policy.entropy.norm[arm]": "-Infinity"}, {}),
    ("normal", [], 4096, {"opt.lr": "0.00025"}, {}),
    ("normal", [], None, {}, {"opt.lr": "undefined"}),
]
"""Level, flags, env steps, values by their shortest digits, reasons."""


def _shown(value: Any) -> str:
    if isinstance(value, str) or math.isfinite(value):
        return value if isinstance(value, str) else str(np.float32(value))
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def test_jsonl_rows_have_head_values_and_reasons() -> None:
    """A signal in neither was not part of what the trainer sent then."""
    out = io.StringIO()
    count = write_jsonl(flat_rows(_blocks(), None, None), out)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]

    assert count == len(rows) == 4
    assert [(row["run"], row["attempt"], row["rank"]) for row in rows] == [("ant-ppo", 2, None)] * 4
    assert [row["t_ns"] for row in rows[:2]] == [1_769_860_800_123_456_789, 1_769_860_800_123_456_790]
    assert [
        (
            row["level"],
            row["flags"],
            row["env_steps"],
            {name: _shown(value) for name, value in row["values"].items()},
            row["missing"],
        )
        for row in rows
    ] == EXPECTED


def test_csv_rows_are_those_of_jsonl() -> None:
    """Empty where nothing was measured or nothing was sent; the last column tells the two apart."""
    out = io.StringIO()
    write_csv(flat_rows(_blocks(), None, None), COLUMNS, out)
    found = []
    for row in csv.DictReader(out.getvalue().splitlines()):
        missing = dict(pair.split("=") for pair in row["missing"].split(";") if pair)
        values = {name: row[name] for name in COLUMNS if row[name]}
        steps = int(row["env_steps"]) if row["env_steps"] else None
        found.append((row["level"], row["flags"].split(), steps, values, missing))
        assert row["rank"] == ""

    assert found == EXPECTED


def test_parquet_rows_are_those_of_jsonl(tmp_path: Path) -> None:
    """Null where nothing was measured; the map of reasons tells why, or that nothing was sent."""
    count = write_parquet(_blocks(), COLUMNS, tmp_path / "rows.parquet", None, None)
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()

    assert count == len(rows) == 4
    assert [
        (
            row["level"],
            row["flags"],
            row["env_steps"],
            {name: _shown(row[name]) for name in COLUMNS if row[name] is not None},
            dict(row["missing"]),
        )
        for row in rows
    ] == EXPECTED
    assert [row["rank"] for row in rows] == [None] * 4


def test_window_takes_the_same_rows_in_every_format(tmp_path: Path) -> None:
    """Both ends included, across blocks; an empty window is an empty file that can be read."""
    rows = [row.head.update for row in flat_rows(_blocks(), 6, 7)]
    write_parquet(_blocks(), COLUMNS, tmp_path / "some.parquet", 6, 7)
    none = write_parquet(_blocks(), COLUMNS, tmp_path / "none.parquet", 90, None)

    assert rows == pq.read_table(tmp_path / "some.parquet")["update"].to_pylist() == [6, 7]
    assert none == len(pq.read_table(tmp_path / "none.parquet")) == 0
