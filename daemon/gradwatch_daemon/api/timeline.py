"""GET runs/{run}/timeline: what happened in an attempt, on the one axis of updates."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Any, get_args
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Query, Request

from gradwatch_contracts.control import Level
from gradwatch_daemon.api import moment_models as models
from gradwatch_daemon.api.coverage import coverage
from gradwatch_daemon.api.cursors import Key, page
from gradwatch_daemon.api.numbers import Answer, time_text
from gradwatch_daemon.api.parameters import LIMIT, UPDATE_MAX, Cursor, Limit, RunName, check_order, find_run, split_words
from gradwatch_daemon.api.runs import level_name
from gradwatch_daemon.api.series import Attempt, Rank, stream_of
from gradwatch_daemon.records import Anomaly, EventRecord, Stream
from gradwatch_daemon.store.protocol import AnomalyFilter, StoreReader, Stretch

WHATS = get_args(models.TimelineWhat)
LOOKED_AT_MAX = 10_000
"""Newest events, and newest anomalies, of a run that are looked at: more would be a picture of nothing."""

GAP = "gap"
"""Kind of the daemon's event that says why records never came, behind the last update before them."""

router = APIRouter(tags=["runs"])


def _item(what: models.TimelineWhat, id_: str, at_ns: int | None, **fields: Any) -> models.TimelineItem:
    """An item that is no anomaly; `fields` are the others."""
    at = None if at_ns is None else time_text(at_ns)
    blank = {"update_end": None, "kind": "", "subject": "", "severity": None, "link": None}
    return models.TimelineItem(what=what, id=f"{what}-{id_}", at=at, **{**blank, **fields})


def of_stretches(stretches: Sequence[Stretch], gaps: Iterable[EventRecord]) -> Iterator[models.TimelineItem]:
    """The begin of the attempt, changes of level, missing updates and steps back; `gaps` say why records never came."""
    reasons: defaultdict[int, list[EventRecord]] = defaultdict(list)
    for gap in gaps:
        reasons[gap.update].append(gap)
    for begin in stretches[:1]:
        text = f"The first update that was recorded, at level {_level(begin)}."
        yield _item("attempt", "", begin.first_ns, update=begin.update_first, kind=_level(begin), sentence=text)
    ends = _level_ends(stretches)
    for place, (before, after) in enumerate(pairwise(stretches), 1):
        fields = {"update": after.update_first, "at_ns": after.first_ns}
        if after.update_first > before.update_last + 1:
            yield _hole(place, before.update_last + 1, after.update_first - 1, reasons.pop(before.update_last, []))
        elif after.update_first <= before.update_last:
            text = f"The trainer went back from update {before.update_last} to {after.update_first}."
            yield _item("rewind", str(place), **fields, sentence=text)
        if after.level != before.level:
            text = f"Collected at {_level(after)}, before at {_level(before)}."
            yield _item("level", str(place), **fields, update_end=ends[place], kind=_level(after), sentence=text)
    yield from (_gap(gap) for unplaced in reasons.values() for gap in unplaced)


def _level(stretch: Stretch) -> str:
    return level_name(Level(stretch.level))


def _level_ends(stretches: Sequence[Stretch]) -> list[int | None]:
    """For each stretch the last update at its level, None where that holds to the newest."""
    ends: list[int | None] = [None] * len(stretches)
    for place in range(len(stretches) - 2, -1, -1):
        changes = stretches[place].level != stretches[place + 1].level
        ends[place] = stretches[place].update_last if changes else ends[place + 1]
    return ends


def _hole(place: int, first: int, last: int, gaps: list[EventRecord]) -> models.TimelineItem:
    said = f"Update {first} never came" if first == last else f"Updates {first} to {last} never came"
    why = ", ".join(dict.fromkeys(gap.text for gap in gaps if gap.text))
    return _item("gap", str(place), None, update=first, update_end=last, sentence=f"{said}: {why}." if why else f"{said}.")


def _gap(event: EventRecord) -> models.TimelineItem:
    """A loss between two updates that did come: of records that are no rows, or of one rank among several."""
    records = event.detail.get("records")
    text = f"{records} record{'' if records == 1 else 's'} after update {event.update} never came: {event.text}."
    return _item("gap", _name(event), event.t_ns, update=event.update, sentence=text)


def _name(event: EventRecord) -> str:
    """An event of the daemon's own has no sequence number, but its place among the marks."""
    return f"{event.session}-{event.kind}-{event.seq}-{event.t_ns}-{event.detail.get('mark', '')}"


def of_events(events: Iterable[EventRecord]) -> Iterator[models.TimelineItem]:
    """What the trainer or the daemon noted."""
    for event in events:
        text = event.text or {"tick": "No update came within the time that they usually take."}.get(
            event.kind, f"{event.kind}."
        )
        yield _item("event", _name(event), event.t_ns, update=event.update, kind=event.kind, sentence=text)


def of_anomalies(anomalies: Iterable[Anomaly]) -> Iterator[models.TimelineItem]:
    """What was found, from its onset on."""
    for anomaly in anomalies:
        yield models.TimelineItem(
            what="anomaly",
            id=anomaly.id,
            update=anomaly.update_onset,
            update_end=anomaly.update_resolved,
            at=None,
            kind=anomaly.kind,
            subject=anomaly.subject,
            severity=anomaly.severity.value,
            sentence=anomaly.sentence,
            link=f"/api/v1/anomalies/{quote(anomaly.id, safe='')}",
        )


def timeline(reader: StoreReader, stream: Stream) -> tuple[list[models.TimelineItem], bool]:
    """Everything of an attempt in no order, and whether there was more than was looked at."""
    events = reader.events(stream.run, LOOKED_AT_MAX)
    anomalies = reader.anomalies(AnomalyFilter(run=stream.run, limit=LOOKED_AT_MAX))
    mine = [event for event in events if event.stream.attempt == stream.attempt]
    gaps = [event for event in mine if event.kind == GAP]
    found = [
        *of_stretches(reader.stretches(stream), gaps),
        *of_events(event for event in mine if event.kind != GAP),
        *of_anomalies(anomaly for anomaly in anomalies if anomaly.attempt == stream.attempt),
    ]
    return found, LOOKED_AT_MAX in (len(events), len(anomalies))


def _key(item: models.TimelineItem) -> Key:
    return item.update, f"{WHATS.index(item.what)}-{item.id}"


@router.get(
    "/runs/{run}/timeline",
    response_model=models.TimelineAnswer,
    operation_id="get_timeline",
    summary="What happened, on one axis",
)
async def get_timeline(
    request: Request,
    *,
    run: RunName,
    what: Annotated[str | None, Query(description=f"Some of {', '.join(WHATS)}, with commas; all when not given")] = None,
    first: Annotated[int | None, Query(alias="from", ge=0, le=UPDATE_MAX, description="First update")] = None,
    last: Annotated[int | None, Query(alias="to", ge=0, le=UPDATE_MAX, description="Last update")] = None,
    attempt: Attempt = None,
    rank: Rank = None,
    limit: Limit = LIMIT,
    cursor: Cursor = None,
) -> Answer:
    """Anomalies, events, changes of level, missing updates and steps back of one attempt, that touch the range asked for."""
    context, view = find_run(request, run)
    check_order(first, last)
    wanted = split_words("what", what, WHATS)
    stream = stream_of(view, attempt, rank)

    def read() -> Answer:
        found, truncated = timeline(context.reader, stream)
        chosen = [item for item in found if (wanted is None or item.what in wanted) and _touches(item, first, last)]
        shown, following = page(chosen, _key, limit, cursor)
        answer = models.TimelineAnswer(
            run=stream.run,
            attempt=stream.attempt,
            rank=stream.rank_shown,
            items=shown,
            next=following,
            truncated=truncated,
            coverage=coverage([view]),
        )
        return Answer(answer.model_dump())

    return await anyio.to_thread.run_sync(read)


def _touches(item: models.TimelineItem, first: int | None, last: int | None) -> bool:
    lasts = item.what in {"anomaly", "level"} and item.update_end is None
    end = UPDATE_MAX if lasts else item.update if item.update_end is None else item.update_end
    return (last is None or item.update <= last) and (first is None or end >= first)
