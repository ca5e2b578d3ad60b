"""GET runs/{run}/snapshot: every signal around one update."""

from collections.abc import Sequence
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request

from gradwatch_contracts.columns import RowFlag
from gradwatch_contracts.control import Level
from gradwatch_daemon.api import moment_models as models
from gradwatch_daemon.api.coverage import of_views
from gradwatch_daemon.api.numbers import Answer, JsonNumber, integers, numbers, times, words
from gradwatch_daemon.api.parameters import UPDATE_MAX, RunName, find_run
from gradwatch_daemon.api.runs import level_name
from gradwatch_daemon.api.series import STATUS_NAMES, Attempt, Rank, meaning, stream_of
from gradwatch_daemon.records import RunView, SignalBlock, SignalKey, Stream
from gradwatch_daemon.store.protocol import StoreReader

WINDOW_DEFAULT = 5
WINDOW_MAX = 100
ROWS_MAX = 2 * WINDOW_MAX + 1
"""Rows of one answer. With 200 signals some 40,000 values and statuses: 1 MB of JSON."""

ABSENT = "absent"
"""Status of a row that did not have the signal at all: the trainer began to send it later, or no longer does."""

_LEVELS = tuple(level_name(level) for level in sorted(Level))

router = APIRouter(tags=["signals"])


def unite(blocks: Sequence[SignalBlock]) -> dict[SignalKey, tuple[list[JsonNumber], list[str]]]:
    """Values and statuses of every signal over the rows of all blocks; `absent` in the rows of a block that lacks it."""
    found: dict[SignalKey, tuple[list[JsonNumber], list[str]]] = {key: ([], []) for block in blocks for key in block.signals}
    for block in blocks:
        place = {key: at for at, key in enumerate(block.signals)}
        for key, (values, status) in found.items():
            at = place.get(key)
            if at is None:
                values.extend([None] * len(block))
                status.extend([ABSENT] * len(block))
            else:
                values.extend(numbers(block.values[at].astype(float), block.status[at] != 0))
                status.extend(words(block.status[at], STATUS_NAMES))
    return found


def snapshot_document(
    found: Sequence[SignalBlock], around: int | None, window: int, stream: Stream, view: RunView
) -> dict[str, Any]:
    """The plain document of `models.SnapshotAnswer` from the rows of the window, one more than are shown if there are."""
    more = max(0, sum(len(block) for block in found) - ROWS_MAX)
    shown = [block.select(slice(more if not place else 0, None)) for place, block in enumerate(found)]
    blocks = [block for block in shown if len(block)]

    return {
        "run": stream.run,
        "attempt": stream.attempt,
        "rank": stream.rank_shown,
        "around": around,
        "first": None if around is None else max(0, around - window),
        "last": None if around is None else min(UPDATE_MAX, around + window),
        "update": [update for block in blocks for update in block.update.tolist()],
        "at": [at for block in blocks for at in times(block.t_ns)],
        "env_steps": [steps for block in blocks for steps in integers(block.env_steps, block.env_steps < 0)],
        "level": [level for block in blocks for level in words(block.level, _LEVELS)],
        "partial": [bool(flags & RowFlag.PARTIAL) for block in blocks for flags in block.flags.tolist()],
        "signals": [
            {
                "signal": key.name,
                "subject": key.subject,
                "unit": meaning(key.name)["unit"],
                "values": values,
                "status": status,
            }
            for key, (values, status) in sorted(unite(blocks).items())
        ],
        "truncated": more > 0,
        "coverage": of_views([view]),
    }


def _newest(reader: StoreReader, stream: Stream, view: RunView) -> int | None:
    if stream.attempt == view.run.attempt:
        return view.update_last
    stretches = reader.stretches(stream)
    return stretches[-1].update_last if stretches else None


@router.get(
    "/runs/{run}/snapshot",
    response_model=models.SnapshotAnswer,
    operation_id="get_snapshot",
    summary="Every signal around an update",
)
async def get_snapshot(
    request: Request,
    *,
    run: RunName,
    around: Annotated[int | None, Query(ge=0, le=UPDATE_MAX, description="Update; the newest when not given")] = None,
    window: Annotated[int, Query(ge=0, le=WINDOW_MAX, description="So many updates before and after it")] = WINDOW_DEFAULT,
    attempt: Attempt = None,
    rank: Rank = None,
) -> Answer:
    """All signals of the rows around an update, as they are stored."""
    context, view = find_run(request, run)
    stream = stream_of(view, attempt, rank)

    def read() -> Answer:
        middle = _newest(context.reader, stream, view) if around is None else around
        span = (0, -1) if middle is None else (max(0, middle - window), min(UPDATE_MAX, middle + window))
        blocks = context.reader.blocks_between(stream, *span, ROWS_MAX + 1)
        return Answer(snapshot_document(blocks, middle, window, stream, view))

    return await anyio.to_thread.run_sync(read)
