"""Several signals of a run over one axis: what a page of panels draws, and how it stays current, each in one request."""

import math
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request

from gradwatch_contracts.limits import NAME_CHARS_MAX
from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.api import chart_models as models
from gradwatch_daemon.api.axis import Axis, Points, on_one_axis
from gradwatch_daemon.api.coverage import of_views
from gradwatch_daemon.api.numbers import Answer, number, time_text
from gradwatch_daemon.api.parameters import UPDATE_MAX, RunName, find_run
from gradwatch_daemon.api.problems import ApiError, FieldFault
from gradwatch_daemon.api.series import STATUS_NAMES, Attempt, Rank, Window, meaning, stream_of, unknown_signal
from gradwatch_daemon.records import RunView, SignalKey, Stream
from gradwatch_daemon.store.protocol import Series, StoreReader

SIGNALS_MAX = 24
POINTS_DEFAULT = 800
POINTS_MAX = 4000
"""Points of each signal: twice the pixels of a panel. 24 signals of the most are about 6 MB of JSON."""

SIGNALS_CHARS_MAX = SIGNALS_MAX * (2 * NAME_CHARS_MAX + 2)

router = APIRouter(tags=["signals"])


def parse_signals(text: str) -> list[SignalKey]:
    """`name` or `name/subject`, with commas between.

    Raises:
        ApiError: `invalid-parameter` for none, or more than `SIGNALS_MAX`.
    """
    parts = [part for part in text.split(",") if part]
    if not 1 <= len(parts) <= SIGNALS_MAX:
        fault = FieldFault("query/signals", f"names {len(parts)} signals, expected 1 to {SIGNALS_MAX}")
        raise ApiError(
            "invalid-parameter", where="signals", expected=f"1 to {SIGNALS_MAX}", got=str(len(parts)), faults=[fault]
        )
    split = [part.partition("/") for part in dict.fromkeys(parts)]
    return [SignalKey(name, subject) for name, _, subject in split]


def chart_document(found: list[Series], absent: list[SignalKey], stream: Stream, view: RunView) -> dict[str, Any]:
    """The plain document of `models.ChartAnswer`."""
    axis, lines = on_one_axis(found) if found else (Axis(1, [], [], []), [])
    return {
        "run": stream.run,
        "attempt": stream.attempt,
        "rank": stream.rank_shown,
        "bucket": axis.bucket,
        "update": axis.update,
        "at": [time_text(t_ns) for t_ns in axis.t_ns],
        "env_steps": [None if steps < 0 else steps for steps in axis.env_steps],
        "series": [_line(series.key, line, axis.bucket) for series, line in zip(found, lines, strict=True)],
        "absent": [f"{key.name}/{key.subject}" if key.subject else key.name for key in absent],
        "rows": max((series.rows for series in found), default=0),
        "coverage": of_views([view]),
    }


def _line(key: SignalKey, points: Points, bucket: int) -> dict[str, Any]:
    extremes = {"low": None, "high": None} if bucket == 1 else {"low": _finite(points.low), "high": _finite(points.high)}
    return {
        "signal": key.name,
        "subject": key.subject,
        **meaning(key.name),
        **extremes,
        "last": [number(value) if n else None for value, n in zip(points.last, points.measured, strict=True)],
        "nonfinite": points.nonfinite,
        "status": [STATUS_NAMES[status] for status in points.status],
    }


def _finite(values: list[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _read(reader: StoreReader, stream: Stream, keys: list[SignalKey], window: Window) -> tuple[list[Series], list[SignalKey]]:
    """The series, and which signals the run never sent. In a worker thread.

    Raises:
        ApiError: `signal-not-found` for a name that neither the run nor gradwatch has.
    """
    found = [reader.series(stream, key, window.first, window.last, window.points) for key in keys]
    unseen = [series.key for series in found if not series.measured.any()]
    known = [summary.key for summary in reader.signals(*stream)] if unseen else []
    absent = [key for key in unseen if key not in known]
    for key in absent:
        if key.name not in SIGNALS:
            raise unknown_signal(key, known)
    return [series for series in found if series.key not in absent], absent


@router.get(
    "/runs/{run}/chart", response_model=models.ChartAnswer, operation_id="get_chart", summary="Several signals over one axis"
)
async def get_chart(
    request: Request,
    *,
    run: RunName,
    signals: Annotated[
        str,
        Query(
            max_length=SIGNALS_CHARS_MAX,
            description=f"Up to {SIGNALS_MAX} names, or name/subject, with commas",
            examples=["policy.kl.k3"],
        ),
    ],
    first: Annotated[int | None, Query(alias="from", ge=0, le=UPDATE_MAX, description="First update")] = None,
    last: Annotated[int | None, Query(alias="to", ge=0, le=UPDATE_MAX, description="Last update")] = None,
    points: Annotated[int, Query(ge=1, le=POINTS_MAX, description="Beyond it updates share a bucket")] = POINTS_DEFAULT,
    attempt: Attempt = None,
    rank: Rank = None,
) -> Answer:
    """Like `series` for each, with one axis for all: a page of panels is one request, and so is what it lacks later."""
    context, view = find_run(request, run)
    if first is not None and last is not None and first > last:
        fault = FieldFault("query/from", "is after `to`")
        raise ApiError("invalid-parameter", where="from", expected=f"at most to={last}", got=str(first), faults=[fault])
    stream, keys = stream_of(view, attempt, rank), parse_signals(signals)
    if stream.attempt == view.run.attempt and view.update_last is not None:
        # Rows that come while the signals are read must not make them differ.
        last = view.update_last if last is None else min(last, view.update_last)
    window = Window(first, last, points)

    def read() -> Answer:
        return Answer(chart_document(*_read(context.reader, stream, keys, window), stream, view))

    return await anyio.to_thread.run_sync(read)
