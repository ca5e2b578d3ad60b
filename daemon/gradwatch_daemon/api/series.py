"""Signals of a run, and one of them over updates."""

import csv
import io
import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from gradwatch_contracts.columns import STATUS_REASON, Status
from gradwatch_contracts.limits import NAME_CHARS_MAX
from gradwatch_contracts.signals import SIGNALS, Stage
from gradwatch_daemon.api import models
from gradwatch_daemon.api.coverage import HEADER, HEADERS, coverage, header, of_views
from gradwatch_daemon.api.cursors import LIMIT_MAX, page
from gradwatch_daemon.api.numbers import Answer, integers, number, numbers, time_text, times, words
from gradwatch_daemon.api.parameters import UPDATE_MAX, Cursor, Limit, RunName, check_order, check_word, find_run
from gradwatch_daemon.api.problems import ApiError, FieldFault, refuse_word
from gradwatch_daemon.api.runs import level_name
from gradwatch_daemon.records import ALL_RANKS, RunView, SignalKey, Stream
from gradwatch_daemon.store.protocol import Point, Series, SignalSummary, StoreReader

POINTS_DEFAULT = 2000
POINTS_MAX = 20_000
"""Points of one answer: about 2 MB of JSON."""

STATUS_NAMES = tuple(status.name.lower() for status in Status)
CSV_EXAMPLE = """\
update,at,env_steps,low,high,last,measured,nonfinite,status
118,2026-01-31T12:00:00.123Z,241664,0.011,0.011,0.011,1,0,measured
119,2026-01-31T12:00:01.004Z,243712,NaN,NaN,NaN,1,1,measured
120,2026-01-31T12:00:01.877Z,245760,,,,0,0,not_called
"""
_RANK_MAX = 2**31 - 1

Attempt = Annotated[int | None, Query(ge=1, le=_RANK_MAX, description="Attempt; the newest when not given")]
Rank = Annotated[int | None, Query(ge=0, le=_RANK_MAX, description="Rank; all ranks together when not given")]

router = APIRouter(tags=["signals"])


class Window(NamedTuple):
    """The updates asked for, both ends included, None for open; and into how many points."""

    first: int | None
    last: int | None
    points: int


def status_name(status: int) -> str:
    """`measured`, or the reason's short name."""
    return Status(status).name.lower()


def signal_item(summary: SignalSummary) -> models.SignalItem:
    """One line of a run's list of signals."""
    signal = SIGNALS.get(summary.key.name)
    return models.SignalItem.model_validate(
        {
            "signal": summary.key.name,
            "subject": summary.key.subject,
            "stage": summary.key.name.split(".", 1)[0],
            **meaning(summary.key.name),
            "sign": signal.sign if signal else "signed",
            "source": signal.spec.source.value if signal else "",
            "level": level_name(signal.spec.level) if signal else None,
            "call": signal.spec.call if signal else "",
            "update_last": summary.update_last,
            "value_last": number(summary.value_last),
            "status": status_name(summary.status_last),
            "reason": STATUS_REASON[Status(summary.status_last)],
            "measured": summary.measured,
            "nonfinite": summary.nonfinite,
        }
    )


def meaning(name: str) -> dict[str, str]:
    """Unit, estimator and window of a signal; one this version does not know has unknown ones, and is shown all the same."""
    signal = SIGNALS.get(name)
    if signal is None:
        return {"unit": "unknown", "estimator": "", "window": ""}
    return {"unit": signal.unit.value, "estimator": signal.estimator, "window": signal.window}


def series_document(series: Series, stream: Stream, view: RunView) -> dict[str, Any]:
    """The plain document of `models.SeriesAnswer`: arrays are converted whole, never number by number."""
    unmeasured = series.measured == 0
    # In a bucket, low and high are those of the finite values; a bucket of nothing but NaN has neither.
    boundless = unmeasured if series.bucket == 1 else series.measured <= series.nonfinite
    return {
        "run": stream.run,
        "attempt": stream.attempt,
        "rank": stream.rank_shown,
        "signal": series.key.name,
        "subject": series.key.subject,
        **meaning(series.key.name),
        "bucket": series.bucket,
        "update": series.update.tolist(),
        "at": times(series.t_ns),
        "env_steps": integers(series.env_steps, series.env_steps < 0),
        "low": numbers(series.low, boundless),
        "high": numbers(series.high, boundless),
        "last": numbers(series.last, unmeasured),
        "measured": series.measured.tolist(),
        "nonfinite": series.nonfinite.tolist(),
        "status": words(series.status, STATUS_NAMES),
        "end": None if series.end is None else _end(series.end),
        "rows": series.rows,
        "thinned": series.thinned,
        "coverage": of_views([view]),
    }


def _end(point: Point) -> dict[str, Any]:
    return {
        "update": point.update,
        "at": time_text(point.t_ns),
        "env_steps": None if point.env_steps < 0 else point.env_steps,
        "value": number(point.value) if point.status == 0 else None,
        "status": STATUS_NAMES[point.status],
    }


def prefers_csv(accept: str) -> bool:
    """Whether an Accept header names CSV, and JSON not with a higher quality (RFC 9110, section 12.5.1)."""
    quality = {"text/csv": 0.0, "application/json": 0.0}
    for part in accept.lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        if name in quality:
            said = next((word[2:] for word in parameters if word.startswith("q=")), "1")
            quality[name] = float(said) if re.fullmatch(r"[01](\.\d{0,3})?", said) else 0.0
    return quality["text/csv"] > quality["application/json"]


CSV_COLUMNS = ("update", "at", "env_steps", "low", "high", "last", "measured", "nonfinite", "status")


def series_csv(document: Mapping[str, Any]) -> Response:
    """The same points as lines: an empty cell is not measured, NaN and Infinity were measured so. What is said once for all
    of them is in the headers of the response."""
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(zip(*(document[name] for name in CSV_COLUMNS), strict=True))
    headers = {
        "Gradwatch-Bucket": str(document["bucket"]),
        "Gradwatch-Unit": document["unit"],
        HEADER: header(document["coverage"]),
        "Content-Disposition": 'inline; filename="series.csv"',
        "Vary": "Accept",
    }
    return Response(page.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def stream_of(view: RunView, attempt: int | None, rank: int | None) -> Stream:
    """The stream asked for; without a rank that of all ranks together, which for a single one is its own.

    Raises:
        ApiError: `invalid-parameter` for an attempt or rank that the run never had: an empty answer would look like a run
            that measured nothing.
    """
    for name, value, low, high in (("attempt", attempt, 1, view.run.attempt), ("rank", rank, 0, view.run.world - 1)):
        if value is not None and not low <= value <= high:
            fault = FieldFault(f"query/{name}", f"is not one of {low} to {high}")
            raise ApiError("invalid-parameter", where=name, expected=f"{low} to {high}", got=str(value), faults=[fault])
    if rank is None:
        rank = ALL_RANKS if view.run.world > 1 else 0
    return Stream(view.run.run, attempt or view.run.attempt, rank)


def _read(reader: StoreReader, stream: Stream, key: SignalKey, window: Window) -> Series:
    """Read in a worker thread.

    Raises:
        ApiError: `signal-not-found`, naming the nearest, when the run has no such signal. Looked up only when nothing was
            measured, because the list of signals costs more than a series.
    """
    series = reader.series(stream, key, window.first, window.last, window.points)
    if series.measured.any():
        return series
    known = [summary.key for summary in reader.signals(*stream)]
    if key not in known:
        raise unknown_signal(key, known)
    return series


def unknown_signal(key: SignalKey, known: list[SignalKey]) -> ApiError:
    """The refusal of a signal that a run with the `known` ones does not have."""
    subjects = sorted(k.subject for k in known if k.name == key.name)
    if subjects:
        listed = ", ".join(repr(subject) for subject in subjects[:20])
        return ApiError(
            "signal-not-found", where=f"subject of {key.name}", expected=f"one of {listed}", got=repr(key.subject[:80])
        )
    # Before its first row a run has no signals; then the registry's names help.
    from_run = {k.name for k in known}
    expected = f"one of the {len(from_run)} signals of this run" if known else "a signal; this run has none yet"
    return refuse_word("signal-not-found", "signal", key.name, from_run or SIGNALS.keys(), expected)


@router.get("/runs/{run}/signals", response_model=models.SignalList, operation_id="list_signals", summary="Signals a run has")
async def list_signals(
    request: Request,
    *,
    run: RunName,
    stage: Annotated[str | None, Query(description=f"Only of this stage: {', '.join(Stage)}")] = None,
    status: Annotated[str | None, Query(description="Only with this status in the newest row, as measured")] = None,
    attempt: Attempt = None,
    rank: Rank = None,
    limit: Limit = LIMIT_MAX,
    cursor: Cursor = None,
) -> Answer:
    """Every signal of a run with its last value, or why there is none, in the order in which they first came."""
    context, view = find_run(request, run)
    check_word("stage", stage, [one.value for one in Stage])
    check_word("status", status, STATUS_NAMES)
    found = await anyio.to_thread.run_sync(context.reader.signals, *stream_of(view, attempt, rank))
    # Counted down, because pages go from the largest key on; a signal keeps its place for ever.
    placed = [(-place, summary) for place, summary in enumerate(found)]
    wanted = [
        (place, summary)
        for place, summary in placed
        if stage in (None, summary.key.name.split(".", 1)[0]) and status in (None, status_name(summary.status_last))
    ]
    shown, following = page(wanted, lambda item: (item[0], ""), limit, cursor)
    items = [signal_item(summary) for _, summary in shown]
    return Answer(models.SignalList(items=items, next=following, coverage=coverage([view])).model_dump())


@router.get(
    "/runs/{run}/series",
    response_model=models.SeriesAnswer,
    operation_id="get_series",
    summary="One signal",
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}, "example": CSV_EXAMPLE}}, "headers": HEADERS}},
)
async def get_series(
    request: Request,
    *,
    run: RunName,
    signal: Annotated[str, Query(max_length=NAME_CHARS_MAX, description="Name of the signal", examples=["policy.kl.k3"])],
    subject: Annotated[str, Query(max_length=NAME_CHARS_MAX, description="Head, layer or key; empty for none")] = "",
    first: Annotated[int | None, Query(alias="from", ge=0, le=UPDATE_MAX, description="First update")] = None,
    last: Annotated[int | None, Query(alias="to", ge=0, le=UPDATE_MAX, description="Last update")] = None,
    points: Annotated[int, Query(ge=1, le=POINTS_MAX, description="Beyond it updates share a bucket")] = POINTS_DEFAULT,
    attempt: Attempt = None,
    rank: Rank = None,
    form: Annotated[str | None, Query(alias="format", description="json or csv; else what Accept prefers")] = None,
) -> Response:
    """A signal over a range of updates: raw where it fits into `points`, else low, high and last of buckets.

    As CSV one line a point: an empty cell is not measured.
    """
    context, view = find_run(request, run)
    check_order(first, last)
    check_word("format", form, ("json", "csv"))
    as_csv = prefers_csv(request.headers.get("accept", "")) if form is None else form == "csv"
    stream = stream_of(view, attempt, rank)
    key, window = SignalKey(signal, subject), Window(first, last, points)

    def read() -> Response:
        # Also the writing: 20,000 points are 30 ms that the event loop must not spend.
        document = series_document(_read(context.reader, stream, key, window), stream, view)
        return series_csv(document) if as_csv else Answer(document, headers={"Vary": "Accept"})

    return await anyio.to_thread.run_sync(read)
