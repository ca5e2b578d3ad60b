"""The evidence of one anomaly: the stored updates around its onset, what deviated first in them, and the tables near it."""

import math
import struct
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from gradwatch_contracts.vocabulary import Stage
from gradwatch_daemon.api.numbers import JsonNumber, number
from gradwatch_daemon.evidence.first import FirstLayer, FirstSignal, earliest_layer, first_layer, first_signal
from gradwatch_daemon.evidence.norms import KIND, BlackBox, read_tables
from gradwatch_daemon.records import ALL_RANKS, Anomaly, SignalBlock, Stream, TableRecord
from gradwatch_daemon.store.protocol import StoreReader

BEFORE = 64
"""Updates before the onset that are looked at: as many as a black box holds."""

AFTER = 24
"""Updates from the onset on: those that may be named, and an escalation's after them."""

SENT_WITHIN = 128
"""Updates after the onset within which a black box may still hold it: its size, and as much for a slow answer."""

ROWS_MAX = 4 * (BEFORE + AFTER)
TABLES_MAX = 64
EXEMPLARS_MAX = 8
"""Tables of exemplars given whole, those nearest to the onset."""

NONFINITE = "nonfinite"
"""The kind of anomaly whose stage is where the first value that was not finite arose."""

RANKS_MAX = 64
"""Ranks whose black boxes are read."""


def evidence_document(anomaly: Anomaly, world: int, reader: StoreReader) -> dict[str, Any]:
    """What of `models.EvidenceDetail` is read from the store. Called in a worker thread."""
    first, last = max(0, anomaly.update_onset - BEFORE), anomaly.update_onset + AFTER
    blocks = reader.blocks_between(Stream(anomaly.run, anomaly.attempt, anomaly.rank), first, last, ROWS_MAX)
    streams = [Stream(anomaly.run, anomaly.attempt, rank) for rank in _ranks(anomaly, world)]
    boxes = {stream.rank: _box(reader, stream, anomaly.update_onset) for stream in streams}
    if before_gradients(anomaly):
        layer: FirstLayer | str = f"it began in stage {anomaly.stage}, before any gradient of its update"
    else:
        layer = earliest_layer([first_layer(box, anomaly.update_onset, rank) for rank, box in boxes.items()])
    signal = first_signal(blocks, anomaly.update_onset)
    exemplars = [table for stream in streams for table in _near(reader, stream, "exemplars", anomaly.update_onset)]
    exemplars.sort(key=lambda table: (abs(table.update - anomaly.update_onset), table.stream.rank))
    return {
        "sentence": sentence_of(layer, signal),
        "updates": _held(blocks, anomaly.update_onset),
        "first_signal": _signal_document(signal) if isinstance(signal, FirstSignal) else None,
        "first_signal_reason": signal if isinstance(signal, str) else "",
        "first_layer": _layer_document(layer) if isinstance(layer, FirstLayer) else None,
        "first_layer_reason": layer if isinstance(layer, str) else "",
        "norms": _norms(boxes[layer.rank], layer) if isinstance(layer, FirstLayer) else [],
        "exemplars": [_exemplars_document(table) for table in exemplars[:EXEMPLARS_MAX]],
        "tables": _links(anomaly, streams, reader, exemplars),
        "snapshot": f"/api/v1/runs/{quote(anomaly.run, safe='')}/snapshot?around={anomaly.update_onset}{_of_stream(anomaly)}",
    }


def before_gradients(anomaly: Anomaly) -> bool:
    """Whether the first value that was not finite came before any gradient: they all follow from it, and no layer began it."""
    return anomaly.kind == NONFINITE and Stage(anomaly.stage).order < Stage.GRAD.order


def sentence_of(layer: FirstLayer | str, signal: FirstSignal | str) -> str:
    """Where it began, in one sentence; why there is no telling where there is none."""
    if isinstance(layer, FirstLayer):
        among = f"{len(layer.layers)} layers at once, {layer.layers[0]} first among them"
        who = f"The {layer.what} of {layer.layer or among}"
        step = "" if layer.step is None else f", step {layer.step}"
        rank = f" on rank {layer.rank}" if layer.rank else ""
        numbers = f"{layer.value:.3g} at update {layer.update}{step}{rank} ({layer.usual:.3g} was usual)"
        return f"{who} deviated first: {numbers}."
    if isinstance(signal, FirstSignal):
        name = f"{signal.key.name}/{signal.key.subject}" if signal.key.subject else signal.key.name
        return (
            f"{name} deviated first: {signal.value:.3g} at update {signal.update} ({signal.usual:.3g} was usual). "
            f"No layer is named: {layer}."
        )
    return f"What began it cannot be told: {layer}; of the signals, {signal}."


def _ranks(anomaly: Anomaly, world: int) -> Iterable[int]:
    return range(min(world, RANKS_MAX)) if anomaly.rank == ALL_RANKS else (anomaly.rank,)


def _of_stream(anomaly: Anomaly) -> str:
    return f"&attempt={anomaly.attempt}{'' if anomaly.rank == ALL_RANKS else f'&rank={anomaly.rank}'}"


def _box(reader: StoreReader, stream: Stream, onset: int) -> BlackBox:
    tables = reader.tables_between(stream, KIND, max(0, onset - BEFORE), onset + SENT_WITHIN, TABLES_MAX)
    return read_tables(tables, max(0, onset - BEFORE), onset + AFTER)


def _near(reader: StoreReader, stream: Stream, kind: str, onset: int) -> list[TableRecord]:
    return reader.tables_between(stream, kind, max(0, onset - BEFORE), onset + AFTER, TABLES_MAX)


def _held(blocks: list[SignalBlock], onset: int) -> dict[str, int | None]:
    updates = sorted({update for block in blocks for update in block.update.tolist()})
    before = sum(update < onset for update in updates)
    ends = (updates[0], updates[-1]) if updates else (None, None)
    return {"first": ends[0], "last": ends[1], "before": before, "since": len(updates) - before}


def _usual(value: float) -> float | None:
    """NaN stands for a series of which nothing was usual yet."""
    return None if math.isnan(value) else value


def _signal_document(signal: FirstSignal) -> dict[str, Any]:
    return {
        "signal": signal.key.name,
        "subject": signal.key.subject,
        "update": signal.update,
        "value": number(signal.value),
        "usual": _usual(signal.usual),
        "score": signal.score,
    }


def _layer_document(layer: FirstLayer) -> dict[str, Any]:
    return {
        "rank": layer.rank,
        "update": layer.update,
        "step": layer.step,
        "what": layer.what,
        "layer": layer.layer,
        "layers": list(layer.layers),
        "total": layer.total,
        "value": number(layer.value),
        "usual": _usual(layer.usual),
        "score": layer.score,
    }


def _norms(box: BlackBox, layer: FirstLayer) -> list[dict[str, Any]]:
    layers, updates, values, measured = box.matrix(layer.what)
    shown = []
    for name in layer.layers:
        at = layers.index(name)
        told = zip(values[:, at].tolist(), measured[:, at].tolist(), strict=True)
        norms = [number(value) if there else None for value, there in told]
        shown.append({"layer": name, "what": layer.what, "update": updates.tolist(), "norm": norms})
    return shown


def _exemplars_document(table: TableRecord) -> dict[str, Any]:
    width = len(table.names)
    cells: list[JsonNumber] = [number(cell) for cell in struct.unpack(f"<{len(table.index) * width}d", table.values)]
    return {
        "rank": table.stream.rank,
        "update": table.update,
        "names": list(table.names),
        "index": list(table.index),
        "rows": [cells[at : at + width] for at in range(0, len(cells), width)],
    }


def _links(anomaly: Anomaly, streams: list[Stream], reader: StoreReader, exemplars: list[TableRecord]) -> list[dict[str, Any]]:
    """Where the tables of layers near the onset are, and which exemplars were given."""
    base = f"/api/v1/runs/{quote(anomaly.run, safe='')}/layers?attempt={anomaly.attempt}"
    layers = [table for stream in streams for table in _near(reader, stream, "layers", anomaly.update_onset)]
    found = [(table, f"{base}&rank={table.stream.rank}&update={table.update}") for table in layers]
    found += [(table, "") for table in exemplars[:EXEMPLARS_MAX]]
    return [{"kind": t.kind, "rank": t.stream.rank, "update": t.update, "href": href} for t, href in found]
