"""Runs, and what happened in them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from pydantic import ValidationError

from gradwatch_contracts.control import Level, RankState
from gradwatch_contracts.limits import NAME_CHARS_MAX
from gradwatch_daemon.api import control_models, models, run_models
from gradwatch_daemon.api.context import DetectorInfo, context_of
from gradwatch_daemon.api.coverage import coverage
from gradwatch_daemon.api.cursors import Key, page
from gradwatch_daemon.api.numbers import Answer, plain, time_text
from gradwatch_daemon.api.parameters import LIMIT, UPDATE_MAX, Cursor, Limit, RunName, check_order, check_word, find_run
from gradwatch_daemon.api.run_control import read_control
from gradwatch_daemon.api.sentences import ranks_late, run_sentence
from gradwatch_daemon.records import DetectorState, EventRecord, LossRecord, Newest, RunView

STATES = ("live", "slow", "stalled", "lost", "crashed", "finished", "stopped", "imported")
EVENTS_READ_MAX = 10_000
"""Newest events of a run that can be paged through: an event is rare, a run that has more of them has one message."""

OVERHEAD_READ_MAX = 1_000
"""Newest events of a run among which its last `overhead` event is looked for."""

EVERY = "every."
"""Before the name of a thinned collector, in the detail of an `overhead` event."""

router = APIRouter(tags=["runs"])


def level_name(level: Level) -> str:
    """`off`, `minimal`, `normal` or `debug`."""
    return level.name.lower()


def rank_items(ranks: Iterable[RankState]) -> list[control_models.RankItem]:
    """What each rank said of an escalation or a command."""
    said = tuple(ranks)
    late = ranks_late(said)
    return [
        control_models.RankItem(
            rank=one.rank,
            state=one.state.value,
            update=one.update,
            reason=one.reason,
            applied=one.applied,
            late=late.get(one.rank),
        )
        for one in said
    ]


def detector_counts(states: Iterable[DetectorState]) -> models.DetectorCounts:
    """How many detectors are in each state."""
    counts = Counter(state.state for state in states)
    return models.DetectorCounts(
        armed=counts["armed"], learning=counts["learning"], blind=counts["blind"], firing=counts["firing"]
    )


def _summary(view: RunView) -> dict[str, Any]:
    run = view.run
    return {
        "run": run.run,
        "attempt": run.attempt,
        "group": run.group,
        "state": view.state or run.state,
        "evidence": view.evidence,
        "sentence": run_sentence(view),
        "level": models.LevelView.model_validate(
            {
                "base": level_name(run.base),
                "pin": None if run.pin is None else level_name(run.pin),
                "effective": None if view.effective is None else level_name(view.effective),
                "revision": run.revision,
            }
        ),
        "live": view.live,
        "sessions": view.sessions,
        "world": run.world,
        "update_last": view.update_last,
        "updates_total": run.updates_total,
        "first_seen_at": time_text(run.first_seen_ns),
        "last_seen_at": time_text(run.last_seen_ns),
        "coverage": coverage([view]),
        "detectors": detector_counts(view.detectors),
        "anomalies_open": len(view.open_anomalies),
        "beside": list(view.beside),
    }


def run_summary(view: RunView) -> models.RunSummary:
    """A run as lists and the stream show it."""
    return models.RunSummary(**_summary(view))


def _row_times(newest: Newest) -> run_models.RowTimes:
    return run_models.RowTimes(made_at=time_text(newest.t_ns), received_at=time_text(newest.received_ns))


def line_to_add(state: DetectorState, catalogue: Iterable[DetectorInfo]) -> str:
    """What to add to the trainer for a blind detector, '' when nothing there would help.

    A blind detector's reason ends with the line of the need that it lacks; this finds which of its needs that is. The
    wiring test holds every detector to it.
    """
    if state.state != "blind":
        return ""
    info = next((info for info in catalogue if info.kind == state.kind), None)
    lines = [text for need in info.needs for text in (need.line, need.undefined) if text] if info else []
    return max((line for line in lines if line in state.reason), key=len, default="")


def standings_of(view: RunView, catalogue: Iterable[DetectorInfo]) -> list[models.DetectorStanding]:
    """How each detector of a run stands, and what to add for a blind one."""
    return [
        models.DetectorStanding.model_validate({**asdict(state), "add": line_to_add(state, catalogue)})
        for state in view.detectors
    ]


def overhead(view: RunView, events: Iterable[EventRecord]) -> run_models.OverheadView | None:
    """The newest word of the present attempt about thinned collectors, from events that come newest first."""
    attempt = view.run.attempt
    found = next((event for event in events if event.kind == "overhead" and event.stream.attempt == attempt), None)
    if found is None:
        return None
    detail = plain(found.detail)
    every = {name.removeprefix(EVERY): count for name, count in detail.items() if name.startswith(EVERY)}
    shares = {"share_before": detail.get("was"), "share": detail.get("share"), "budget": detail.get("budget")}
    try:
        return run_models.OverheadView.model_validate(
            {"update": found.update, "thinned": every, "sentence": found.text, **shares}
        )
    except ValidationError:  # an event is what a trainer says; ours has all of it
        return None


def crash(view: RunView, events: Iterable[EventRecord]) -> run_models.CrashView | None:
    """The exception that the present attempt ended by, from events that come newest first; the first where ranks differ."""
    attempt, found = view.run.attempt, None
    for event in events:
        if event.kind == "exception" and event.stream.attempt == attempt:
            found = event
    if found is None:
        return None
    run = quote(view.run.run, safe="")
    return run_models.CrashView(
        type=str(found.detail.get("type", "")),
        message=str(found.detail.get("message", "")),
        traceback=found.text,
        update=found.update,
        rank=found.stream.rank_shown,
        at=time_text(found.t_ns),
        updates=f"/api/v1/runs/{run}/snapshot?around={found.update}&attempt={attempt}",
    )


def run_detail(
    view: RunView,
    losses: Iterable[LossRecord],
    events: Iterable[EventRecord],
    control: Mapping[str, Any],
    standings: Iterable[models.DetectorStanding],
) -> run_models.RunDetail:
    """A run with its configuration, each detector's standing, why records were lost, and `read_control`."""
    reasons: Counter[str] = Counter()
    for loss in losses:
        reasons[loss.reason] += loss.last_seq - loss.first_seq + 1
    return run_models.RunDetail(
        **_summary(view),
        **control,
        launch_id=view.run.launch_id,
        agent_version=view.agent_version,
        verbs=list(view.verbs),
        row_last=None if view.newest is None else _row_times(view.newest),
        tags=dict(view.run.tags),
        labels=dict(view.run.labels),
        config=plain(view.run.config),
        standings=list(standings),
        losses=[run_models.LossReason(reason=reason, records=records) for reason, records in reasons.most_common()],
        overhead=overhead(view, events),
        crash=crash(view, events),
    )


def event_item(event: EventRecord) -> models.EventItem:
    """One event of a run."""
    return models.EventItem(
        attempt=event.stream.attempt,
        rank=event.stream.rank_shown,
        session=event.session,
        seq=event.seq,
        update=event.update,
        at=time_text(event.t_ns),
        kind=event.kind,
        text=event.text,
        detail=plain(event.detail),
    )


def _event_key(event: EventRecord) -> Key:
    return event.t_ns, f"{event.session}-{event.seq:020d}"


def _run_key(view: RunView) -> Key:
    return view.run.last_seen_ns, view.run.run


@router.get("/runs", response_model=models.RunList, operation_id="list_runs", summary="Runs, last seen first")
async def list_runs(
    request: Request,
    *,
    state: Annotated[str | None, Query(description=f"One of {', '.join(STATES)}")] = None,
    group: Annotated[str | None, Query(description="Only runs of this group")] = None,
    tag: Annotated[str | None, Query(description="Only runs with this tag, as name:value", examples=["team:ants"])] = None,
    live: Annotated[bool | None, Query(description="Only runs with a connected trainer, or only those without")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Answer:
    """All runs this daemon knows, live or not."""
    check_word("state", state, STATES)
    name, _, value = (tag or "").partition(":")
    views = [
        view
        for view in context_of(request).snapshots().values()
        if state in (None, view.state or view.run.state)
        and group in (None, view.run.group)
        and live in (None, view.live)
        and (tag is None or view.run.tags.get(name) == value)
    ]
    shown, following = page(views, _run_key, limit, cursor)
    return Answer(models.RunList(items=[run_summary(view) for view in shown], next=following).model_dump())


@router.get("/runs/{run}", response_model=run_models.RunDetail, operation_id="get_run", summary="One run")
async def get_run(request: Request, run: RunName) -> Answer:
    """Everything known of a run."""
    context, view = find_run(request, run)

    def read() -> tuple[list[LossRecord], list[EventRecord], dict[str, Any]]:
        events = context.reader.events(run, OVERHEAD_READ_MAX)
        return context.reader.losses(run), events, read_control(context, view, events)

    losses, events, control = await anyio.to_thread.run_sync(read)
    standings = context.kept.standings(run, view.detectors, lambda: standings_of(view, context.catalogue))
    return Answer(run_detail(view, losses, events, control, standings).model_dump())


@router.get("/runs/{run}/events", response_model=models.EventList, operation_id="list_events", summary="What happened")
async def list_events(
    request: Request,
    *,
    run: RunName,
    kind: Annotated[str | None, Query(max_length=NAME_CHARS_MAX, description="Only of this kind, as exception")] = None,
    attempt: Annotated[int | None, Query(ge=1, description="Only of this attempt; all when not given")] = None,
    first: Annotated[int | None, Query(alias="from", ge=0, le=UPDATE_MAX, description="First update")] = None,
    last: Annotated[int | None, Query(alias="to", ge=0, le=UPDATE_MAX, description="Last update")] = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Answer:
    """Exceptions, checkpoints, notes, phases and changes of level of a run, newest first."""
    context, view = find_run(request, run)
    check_order(first, last)
    events = await anyio.to_thread.run_sync(context.reader.events, run, EVENTS_READ_MAX)
    wanted = [
        event
        for event in events
        if kind in (None, event.kind)
        and attempt in (None, event.stream.attempt)
        and (first is None or event.update >= first)
        and (last is None or event.update <= last)
    ]
    shown, following = page(wanted, _event_key, limit, cursor)
    items = [event_item(event) for event in shown]
    return Answer(models.EventList(items=items, next=following, coverage=coverage([view])).model_dump())
