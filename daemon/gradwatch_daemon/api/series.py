"""Signals of a run, and one of them over updates."""

from typing import Annotated, Any, NamedTuple

import anyio.to_thread
from fastapi import APIRouter, Query, Request

from gradwatch_contracts.columns import STATUS_REASON, Status
from gradwatch_contracts.limits import NAME_CHARS_MAX
from gradwatch_contracts.signals import SIGNALS
from gradwatch_daemon.api import models
from gradwatch_daemon.api.numbers import Answer, integers, number, numbers, times, words
from gradwatch_daemon.api.parameters import UPDATE_MAX, RunName, check_order, find_run
from gradwatch_daemon.api.problems import ApiError, FieldFault, refuse_word
from gradwatch_daemon.api.runs import coverage, level_name
from gradwatch_daemon.records import ALL_RANKS, RunView, SignalKey, Stream
from gradwatch_daemon.store.protocol import Series, SignalSummary, StoreReader

POINTS_DEFAULT = 2000
POINTS_MAX = 20_000
"""Points of one answer: about 2 MB of JSON."""

STATUS_NAMES = tuple(status.name.lower() for status in Status)
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
    """Unit, estimator and window; a stored signal this version does not know has unknown ones, and is shown all the same."""
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
        "rows": series.rows,
        "coverage": coverage([view]).model_dump(),
    }


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
        raise _unknown_signal(key, known)
    return series


def _unknown_signal(key: SignalKey, known: list[SignalKey]) -> ApiError:
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
async def list_signals(request: Request, run: RunName, attempt: Attempt = None, rank: Rank = None) -> Answer:
    """Every signal of a run with its last value, or why there is none."""
    context, view = find_run(request, run)
    summaries = await anyio.to_thread.run_sync(context.reader.signals, *stream_of(view, attempt, rank))
    items = [signal_item(summary) for summary in summaries]
    return Answer(models.SignalList(items=items, next=None, coverage=coverage([view])).model_dump())


@router.get("/runs/{run}/series", response_model=models.SeriesAnswer, operation_id="get_series", summary="One signal")
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
) -> Answer:
    """A signal over a range of updates: raw where it fits into `points`, else low, high and last of buckets."""
    context, view = find_run(request, run)
    check_order(first, last)
    stream = stream_of(view, attempt, rank)
    key, window = SignalKey(signal, subject), Window(first, last, points)

    def read() -> Answer:
        # Also the writing: 20,000 points are 30 ms that the event loop must not spend.
        return Answer(series_document(_read(context.reader, stream, key, window), stream, view))

    return await anyio.to_thread.run_sync(read)
