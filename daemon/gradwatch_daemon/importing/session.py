"""One attempt of a log as the messages of a session: what a trainer would have sent, no more."""

from __future__ import annotations

import hashlib
import math
import struct
from typing import TYPE_CHECKING

import msgpack

from gradwatch_contracts import limits
from gradwatch_contracts import messages as m
from gradwatch_contracts.columns import WIDTH, Column, Kind, RankRule, Schema, Status
from gradwatch_contracts.control import Level
from gradwatch_contracts.signals import COLUMNS
from gradwatch_daemon.importing.rows import moments

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gradwatch_contracts.dialects import Dialect, Meaning
    from gradwatch_daemon.importing.rows import LoggedRow

ORIGIN = "imported"
"""Reason of the BYE: nobody knows how the training ended, only that the log does."""

EPISODES = "episode.return"
Cells = dict[tuple[str, str], tuple[float, ...]]
"""(column, subject) → slots of what was measured."""


def hello_of(run: str, number: int, rows: Sequence[LoggedRow], dialect: Dialect, file: str) -> m.Hello:
    """The greeting of attempt `number` (from 0). Its session is named by how the log begins, so the same log again is the same
    session, and only what is new in it counts."""
    first = rows[0]
    # Not its time: a progress.csv has none of its own, and what is reckoned for it moves as the file grows.
    content = msgpack.packb([run, number, first.step, sorted(first.values.items()), first.episodes])
    identity = hashlib.blake2b(content, digest_size=8).hexdigest()
    started_ns = int(first.wall_s * 1e9)
    labels = {"imported_from": file[-200:], "written_by": dialect.name}
    return m.Hello(run, f"log-{identity}", f"log-{identity}", 0, 1, "", 0, started_ns, labels=labels, level=1, replay=True)


def messages_of(
    rows: Sequence[LoggedRow], keys: Mapping[str, tuple[Meaning, str]], dialect: Dialect, steps_known: bool
) -> Iterator[m.Message]:
    """SCHEMA and SAMPLES of one attempt; records count from 0. `steps_known` is whether a step is an environment step."""
    cells = [_cells(row, keys, dialect) for row in rows]
    schema = Schema.of(_columns(cells))
    yield m.SchemaMessage(schema.columns)
    size = limits.ROWS_PER_MESSAGE_MAX
    for start in range(0, len(rows), size):
        yield _samples(start, rows[start : start + size], cells[start : start + size], schema, steps_known)


def _samples(start: int, rows: Sequence[LoggedRow], cells: Sequence[Cells], schema: Schema, steps_known: bool) -> m.Samples:
    n = len(rows)
    values, status = bytearray(), bytearray()
    for row in cells:
        for column in schema.columns:
            found = row.get(column.key)
            values += struct.pack(f"<{WIDTH[column.kind]}d", *(found or (0.0,) * WIDTH[column.kind]))
            status.append(Status.MEASURED if found else Status.NOT_CALLED)
    return m.Samples(
        start,
        n,
        schema.id,
        struct.pack(f"<{n}q", *(row.update for row in rows)),
        struct.pack(f"<{n}q", *(int(row.wall_s * 1e9) for row in rows)),
        struct.pack(f"<{n}q", *(row.step if steps_known else -1 for row in rows)),
        bytes([Level.MINIMAL]) * n,
        bytes(n),
        bytes(values),
        bytes(status),
    )


def _cells(row: LoggedRow, keys: Mapping[str, tuple[Meaning, str]], dialect: Dialect) -> Cells:
    found: Cells = {}
    if row.episodes and dialect.episode in keys:
        meaning, _ = keys[dialect.episode]
        found[EPISODES, ""] = moments(row.episodes)
        for value in row.episodes:
            _count_nonfinite(found, meaning, value)
    for key, value in row.values.items():
        if key not in keys:
            continue
        meaning, name = keys[key]
        found[(meaning.signal, "") if meaning.signal else ("user", name)] = (meaning.sign * value,)
        _count_nonfinite(found, meaning, value)
    return found


def _count_nonfinite(found: Cells, meaning: Meaning, value: float) -> None:
    """One is the least it can be; where all is finite the log says nothing of the others, and nor do we."""
    if meaning.nonfinite and (math.isnan(value) or (meaning.infinite and math.isinf(value))):
        found[meaning.nonfinite, ""] = (1.0,)


def _columns(cells: Sequence[Cells]) -> list[Column]:
    """Each column once, in order of first appearance. A signal that no column of the registry is, travels as itself."""
    keys = dict.fromkeys(key for row in cells for key in row)
    columns = []
    for name, subject in keys:
        spec = COLUMNS.get(name)
        width = next(len(row[name, subject]) for row in cells if (name, subject) in row)
        known = spec is not None and WIDTH[spec.kind] == width
        columns.append(spec.column(subject) if spec and known else Column(name, Kind.LAST, RankRule.RANK0, subject))
    return columns
