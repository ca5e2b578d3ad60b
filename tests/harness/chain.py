"""From the agent's calls to verdicts in one process: what a monitor gave, as the daemon's stages would take it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from gradwatch_agent.row import pack_rows
from gradwatch_daemon.derive.derive import Deriver
from gradwatch_daemon.ingest.gate import row_block
from gradwatch_daemon.pipeline.stream import StreamDetection
from harness.blocks import STREAM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gradwatch_agent.row import Row
    from gradwatch_daemon.detect.engine import Engine
    from gradwatch_daemon.records import Anomaly


def judge(rows: Sequence[Row], engine: Engine, updates_total: int | None = None) -> tuple[list[Anomaly], dict[str, str]]:
    """The anomalies of a run, newest state of each, and why each detector that is blind at its end is; by `kind:subject`."""
    detection, deriver = StreamDetection(STREAM, engine, updates_total), Deriver()
    found: dict[str, Anomaly] = {}
    for _, alike in groupby(rows, key=lambda row: row.schema.id):
        part = list(alike)
        block = deriver.derive(row_block(STREAM, "s", part[0].schema, pack_rows(0, part)))
        found.update({anomaly.id: anomaly for anomaly in detection.advance(block)})
    blind = {f"{s.kind}:{s.subject}".rstrip(":"): s.reason for s in detection.detector_states if s.state == "blind"}
    return list(found.values()), blind
