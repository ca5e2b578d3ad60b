"""GET runs/{run}/layers: the norms of every layer, from the tables that the trainer sends at level debug."""

import bisect
import math
import struct
from collections.abc import Sequence
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request

from gradwatch_daemon.api import moment_models as models
from gradwatch_daemon.api.coverage import of_views
from gradwatch_daemon.api.numbers import Answer, JsonNumber, number
from gradwatch_daemon.api.parameters import UPDATE_MAX, RunName, find_run
from gradwatch_daemon.api.series import Attempt, stream_of
from gradwatch_daemon.records import RunView, Stream, TableRecord
from gradwatch_daemon.store.protocol import StoreReader

KIND = "layers"
METRICS = ("grad_norm", "weight_norm")
TABLES_MAX = 200
NORMS_MAX = 200_000
"""Norms of one answer, of each metric: about 4 MB of JSON."""

TAKEN = " Those of thinned rows were taken with them, but for those near an anomaly."

Rank = Annotated[int, Query(ge=0, le=2**31 - 1, description="Rank whose tables; every rank sends its own")]

router = APIRouter(tags=["signals"])


def columns_of(table: TableRecord) -> dict[str, dict[str, JsonNumber]]:
    """Metric → layer → norm, null where it was not measured.

    The table has NaN for a norm that was not measured and for one that is NaN; the column of its flag tells them apart.
    """
    width = len(table.names)
    cells = struct.unpack(f"<{len(table.index) * width}d", table.values)
    column = {name: cells[place::width] for place, name in enumerate(table.names)}
    found = {}
    for metric in METRICS:
        if metric in column:
            flags = column.get(metric.replace("_norm", "_nonfinite"), column[metric])
            listed = zip(table.index, column[metric], flags, strict=True)
            found[metric] = {name: number(None if math.isnan(flag) else norm) for name, norm, flag in listed}
    return found


def layers_document(
    tables: Sequence[TableRecord], updates: Sequence[int], asked: int | None, stream: Stream, view: RunView
) -> dict[str, Any]:
    """The plain document of `models.LayersAnswer`. A layer that one of the tables lacks has null there."""
    named = list(dict.fromkeys(name for table in tables for name in table.index))
    kept = tables[-max(1, NORMS_MAX // max(1, len(named))) :]
    columns = [columns_of(table) for table in kept]
    return {
        "run": stream.run,
        "attempt": stream.attempt,
        "rank": stream.rank,
        "layers": named,
        "update": [table.update for table in kept],
        **{metric: [[column.get(metric, {}).get(name) for name in named] for column in columns] for metric in METRICS},
        "updates": list(updates),
        "sentence": _sentence(kept, updates, asked, len(named)) + (TAKEN if view.thinned and not kept else ""),
        "coverage": of_views([view]),
    }


def _sentence(tables: Sequence[TableRecord], updates: Sequence[int], asked: int | None, layers: int) -> str:
    if tables:
        at = tables[-1].update
        before = f", the newest table up to update {asked}" if asked is not None and asked != at else ""
        return f"{layers} layer{'' if layers == 1 else 's'} at update {at}{before}."
    if updates:
        return f"No table of layers up to update {asked}; the first is of update {updates[0]}."
    return "No table of layers: they are collected at level debug. Raise it with POST escalations, or `gradwatch escalate`."


def _read(reader: StoreReader, stream: Stream, asked: int | None, count: int) -> tuple[list[TableRecord], list[int]]:
    updates = reader.table_updates(stream, KIND)
    end = len(updates) if asked is None else bisect.bisect_right(updates, asked)
    wanted = updates[max(0, end - count) : end]
    return reader.tables_at(stream, KIND, wanted) if wanted else [], updates


@router.get("/runs/{run}/layers", response_model=models.LayersAnswer, operation_id="get_layers", summary="Norms by layer")
async def get_layers(
    request: Request,
    *,
    run: RunName,
    update: Annotated[int | None, Query(ge=0, le=UPDATE_MAX, description="Newest table up to it; the newest of all")] = None,
    tables: Annotated[int, Query(ge=1, le=TABLES_MAX, description=f"So many up to it, or {NORMS_MAX:,} norms")] = 1,
    attempt: Attempt = None,
    rank: Rank = 0,
) -> Answer:
    """Gradient and weight norm of every layer at one update, or at several for a map of layers over updates."""
    context, view = find_run(request, run)
    stream = stream_of(view, attempt, rank)

    def read() -> Answer:
        found, updates = _read(context.reader, stream, update, tables)
        return Answer(layers_document(found, updates, update, stream, view))

    return await anyio.to_thread.run_sync(read)
